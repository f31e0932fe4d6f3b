"""A multipart form read piece by piece: the bytes of its part `file`, never held as a whole."""

from __future__ import annotations

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header

from api.problems import ApiProblem, ProblemCode

MAX_NAME_BYTES = 1024


def _malformed(reason: str) -> ApiProblem:
    advice = "Send one part named 'file', as curl -F file=@series.csv does."
    return ApiProblem(ProblemCode.MALFORMED_MULTIPART, f"The multipart form cannot be used: {reason}. {advice}")


class FormReader:
    """Takes the body in pieces and gives back the file's bytes in each.

    A part `name` names the dataset; other parts are refused. Every method raises ApiProblem.
    """

    def __init__(self, content_type: str) -> None:
        _, options = parse_options_header(content_type)
        boundary = options.get(b"boundary")
        if not boundary:
            raise _malformed("its Content-Type has no boundary")
        try:
            self._parser = MultipartParser(
                boundary,
                {
                    "on_part_begin": self._part_begin,
                    "on_header_field": self._header_field,
                    "on_header_value": self._header_value,
                    "on_header_end": self._header_end,
                    "on_headers_finished": self._headers_finished,
                    "on_part_data": self._part_data,
                    "on_end": self._end,
                },
            )
        except FormParserError as error:
            raise _malformed(str(error)) from None
        self._field = b""
        self._value = b""
        self._disposition = b""
        self._part: str | None = None
        self._name = b""
        self._file = bytearray()
        self._ended = False
        self.seen_file = False
        self.file_name: str | None = None

    def feed(self, data: bytes) -> bytes:
        """The file's bytes within this piece of the body."""
        try:
            self._parser.write(data)
        except FormParserError as error:
            raise _malformed(str(error)) from None
        found = bytes(self._file)
        self._file.clear()
        return found

    def finish(self) -> None:
        """Raise unless the form was whole and held a file."""
        if not self._ended:
            raise _malformed("it ends before its last boundary")
        if not self.seen_file:
            raise _malformed("it has no part named 'file'")

    @property
    def name(self) -> str | None:
        """The part `name`, when there is one."""
        return self._name.decode("utf-8", "replace") or None

    def _part_begin(self) -> None:
        self._disposition = b""
        self._part = None

    def _header_field(self, data: bytes, start: int, end: int) -> None:
        self._field += data[start:end]

    def _header_value(self, data: bytes, start: int, end: int) -> None:
        self._value += data[start:end]

    def _header_end(self) -> None:
        if self._field.lower() == b"content-disposition":
            self._disposition = self._value
        self._field = self._value = b""

    def _headers_finished(self) -> None:
        _, options = parse_options_header(self._disposition)
        part = options.get(b"name", b"").decode("utf-8", "replace")
        if part not in {"file", "name"}:
            raise _malformed(f"it has a part named {part[:100]!r}")
        if part == "file":
            if self.seen_file:
                raise _malformed("it has more than one part named 'file'")
            self.seen_file = True
            self.file_name = options.get(b"filename", b"").decode("utf-8", "replace") or None
        self._part = part

    def _part_data(self, data: bytes, start: int, end: int) -> None:
        if self._part == "file":
            self._file += data[start:end]
        else:
            self._name += data[start:end]
            if len(self._name) > MAX_NAME_BYTES:
                raise _malformed("its part 'name' is too long")

    def _end(self) -> None:
        self._ended = True
