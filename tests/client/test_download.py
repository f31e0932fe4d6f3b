from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest

from pals_client import ApiError, Client, DownloadCorrupted, ServiceUnreachable
from tests.client.conftest import HASTY, Script, answer, cut, hang_up

CONTENT = bytes(range(256)) * 1000
SHA256 = hashlib.sha256(CONTENT).hexdigest()
ETAG = f'"{SHA256}"'


def described(sha256: str = SHA256, size: int = len(CONTENT)) -> Any:
    return answer(body=json.dumps({"id": "ckpt_1", "sha256": sha256, "bytes": size}).encode())


def whole(content: bytes = CONTENT) -> Any:
    return answer(body=content, content_type="application/octet-stream", ETag=ETAG)


def rest(start: int) -> Any:
    return answer(206, CONTENT[start:], content_type="application/octet-stream", ETag=ETAG)


def broken_after(size: int, start: int = 0) -> Any:
    status = 206 if start else 200
    return cut(CONTENT[start : start + size], promised=len(CONTENT) - start, status=status, ETag=ETAG)


@pytest.fixture
def target(tmp_path: Path) -> Path:
    return tmp_path / "folder" / "model.safetensors"


def left_in(target: Path) -> list[str]:
    return sorted(path.name for path in target.parent.iterdir())


def test_a_download_is_written_whole_and_described(script: Script, scripted_client: Client, target: Path) -> None:
    script.answers = [described(), whole()]

    checkpoint = scripted_client.download("ckpt_1", target)
    assert target.read_bytes() == CONTENT
    assert checkpoint["sha256"] == SHA256
    assert left_in(target) == [target.name]
    assert [request.path for request in script.requests] == ["/v1/checkpoints/ckpt_1", "/v1/checkpoints/ckpt_1/content"]
    assert script.requests[1].headers["accept-encoding"] == "identity"


def test_a_broken_download_goes_on_where_it_ended(script: Script, scripted_client: Client, target: Path) -> None:
    script.answers = [described(), broken_after(100_000), broken_after(50_000, start=100_000), hang_up, rest(150_000)]

    scripted_client.download("ckpt_1", target)
    assert target.read_bytes() == CONTENT
    ranges = [(request.headers.get("range"), request.headers.get("if-range")) for request in script.requests[1:]]
    assert ranges == [
        (None, None),
        ("bytes=100000-", ETAG),
        ("bytes=150000-", ETAG),
        ("bytes=150000-", ETAG),
    ]


def test_progress_counts_anew_so_a_long_download_may_break_often(
    script: Script, scripted_client: Client, target: Path
) -> None:
    step = 10_000
    pieces = [broken_after(step, start=start) for start in range(0, 20 * step, step)]
    script.answers = [described(), *pieces, rest(20 * step)]

    scripted_client.download("ckpt_1", target)
    assert target.read_bytes() == CONTENT


def test_a_server_that_knows_no_ranges_sends_it_all_again(
    script: Script, scripted_client: Client, target: Path
) -> None:
    script.answers = [described(), broken_after(100_000), whole()]

    scripted_client.download("ckpt_1", target)
    assert target.read_bytes() == CONTENT


def test_what_one_call_left_is_completed_by_the_next(script: Script, scripted_client: Client, target: Path) -> None:
    script.answers = [described(), broken_after(100_000), *[hang_up] * HASTY.attempts]
    with pytest.raises(ServiceUnreachable):
        scripted_client.download("ckpt_1", target)
    assert not target.exists()

    script.answers = [described(), rest(100_000)]
    scripted_client.download("ckpt_1", target)
    assert target.read_bytes() == CONTENT
    assert left_in(target) == [target.name]


def test_pieces_of_another_version_are_not_mixed_in(script: Script, scripted_client: Client, target: Path) -> None:
    other = CONTENT[::-1]
    script.answers = [described(hashlib.sha256(other).hexdigest()), broken_after(100_000), *[hang_up] * HASTY.attempts]
    with pytest.raises(ServiceUnreachable):
        scripted_client.download("ckpt_1", target)

    script.answers = [described(), whole()]
    scripted_client.download("ckpt_1", target)
    assert target.read_bytes() == CONTENT
    assert "range" not in script.requests[-1].headers


def test_wrong_bytes_are_refused_and_not_kept(script: Script, scripted_client: Client, target: Path) -> None:
    target.parent.mkdir()
    target.write_bytes(b"what was there before")
    script.answers = [described(), whole(CONTENT[:-1] + b"?")]

    with pytest.raises(DownloadCorrupted, match=SHA256):
        scripted_client.download("ckpt_1", target)
    assert target.read_bytes() == b"what was there before"
    assert left_in(target) == [target.name]


def test_an_older_file_is_replaced(script: Script, scripted_client: Client, target: Path) -> None:
    target.parent.mkdir()
    target.write_bytes(b"old")
    script.answers = [described(), whole()]

    scripted_client.download("ckpt_1", target)
    assert target.read_bytes() == CONTENT


def test_a_folder_is_not_a_file_to_write(script: Script, scripted_client: Client, tmp_path: Path) -> None:
    script.answers = [described()]
    with pytest.raises(IsADirectoryError, match="name the file"):
        scripted_client.download("ckpt_1", tmp_path)


def test_a_refusal_is_raised(script: Script, scripted_client: Client, target: Path) -> None:
    gone = answer(404, b'{"code": "not_found"}', content_type="application/problem+json")
    script.answers = [described(), answer(503, b""), gone]

    with pytest.raises(ApiError, match="404 not_found"):
        scripted_client.download("ckpt_1", target)


def test_what_is_not_made_yet_is_waited_for(script: Script, scripted_client: Client, target: Path) -> None:
    making = answer(202, b'{"status": "making"}', Retry_After="0")
    first_byte = answer(206, CONTENT[:1], ETag=ETAG, Content_Range=f"bytes 0-0/{len(CONTENT)}")
    script.answers = [making, answer(503, b"{}", Retry_After="0"), making, first_byte, whole(), described("0" * 64)]

    checkpoint = scripted_client.download("ckpt_1", target, format="packed", precision="int8")
    assert target.read_bytes() == CONTENT
    assert checkpoint["id"] == "ckpt_1"
    assert {request.path for request in script.requests[:-1]} == {
        "/v1/checkpoints/ckpt_1/content?format=packed&precision=int8"
    }


def test_what_cannot_be_made_is_raised_with_its_reason(script: Script, scripted_client: Client, target: Path) -> None:
    body = json.dumps({"code": "variant_failed", "detail": "too large for ONNX", "status": 422}).encode()
    script.answers = [answer(422, body, content_type="application/problem+json")]

    with pytest.raises(ApiError, match="too large for ONNX"):
        scripted_client.download("ckpt_1", target, format="onnx")
    assert not target.exists()
