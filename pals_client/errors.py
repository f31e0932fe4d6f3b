"""Every error the client raises on purpose.

ClientError
├── ApiError             the service refused or failed; carries its problem details
├── ServiceUnreachable   no answer came, however often it was tried
├── DatasetInvalid       the upload was kept, but its audit found it unusable
└── DownloadCorrupted    the downloaded bytes are not those the service described
"""

from __future__ import annotations

from typing import Any

import httpx

from pals_client.resources import Dataset, Problem


class ClientError(Exception):
    """Base of every error raised on purpose."""


class ApiError(ClientError):
    """An answer with a 4xx or 5xx status, as RFC 9457 problem details.

    `errors` lists what is wrong and where: `{"pointer": "/spec/data/horizon", "message": …}`.
    """

    def __init__(self, status: int, code: str, title: str, detail: str, errors: list[Problem], request_id: str) -> None:
        self.status = status
        self.code = code
        self.title = title
        self.detail = detail
        self.errors = errors
        self.request_id = request_id
        lines = [f"{status} {code}: {detail or title}"]
        lines += [f"  {_place(error)}{error['message']}" for error in errors]
        super().__init__("\n".join(lines))

    @classmethod
    def of(cls, response: httpx.Response) -> ApiError:
        """Read a response's problem; one that is none (a proxy's page, say) keeps its status and phrase."""
        body = _problem(response)
        return cls(
            status=response.status_code,
            code=str(body.get("code", "unknown")),
            title=str(body.get("title", response.reason_phrase)),
            detail=str(body.get("detail", "")),
            errors=list(body.get("errors", [])),
            request_id=str(body.get("request_id", response.headers.get("x-request-id", ""))),
        )


class ServiceUnreachable(ClientError):
    """No answer: the service is not running, the address is wrong, or the connection breaks."""


class DatasetInvalid(ClientError):
    """The table cannot be used; `dataset["error"]` says why and where."""

    def __init__(self, dataset: Dataset) -> None:
        self.dataset = dataset
        error = dataset["error"] or {"code": "invalid", "message": "the table cannot be used", "errors": []}
        lines = [f"dataset {dataset['id']}: {error['message']}"]
        lines += [f"  {_place(problem)}{problem['message']}" for problem in error.get("errors", [])]
        super().__init__("\n".join(lines))


class DownloadCorrupted(ClientError):
    """The sha256 of the downloaded bytes differs from the checkpoint's; nothing was kept."""


def _problem(response: httpx.Response) -> dict[str, Any]:
    if not response.headers.get("content-type", "").startswith("application/problem+json"):
        return {}
    try:
        body = response.json()
    except ValueError:
        return {}
    return body if isinstance(body, dict) else {}


def _place(problem: Problem) -> str:
    parts = [
        problem.get("pointer") or problem.get("parameter") or "",
        f"row {problem['row']}" if problem.get("row") else "",
        f"column {problem['column']}" if problem.get("column") else "",
    ]
    place = ", ".join(part for part in parts if part)
    return f"{place}: " if place else ""
