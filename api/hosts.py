"""Who may call: the Host header against DNS rebinding, the Origin header against other sites' pages."""

from __future__ import annotations

from collections.abc import Iterable

from starlette.requests import Request
from starlette.types import ASGIApp, Receive, Scope, Send

from api.problems import ApiProblem, ProblemCode, problem_response

LOOPBACK_NAMES = frozenset({"localhost", "127.0.0.1", "::1"})
SAFE_METHODS = frozenset({"GET", "HEAD"})


def host_name(authority: str) -> str:
    """The name in `name:port` or `[address]:port`, in lower case; "" when there is none."""
    authority = authority.strip().lower()
    if authority.startswith("["):
        return authority[1:].partition("]")[0]
    name, colon, port = authority.rpartition(":")
    if colon and (port.isdigit() or not port) and ":" not in name:
        authority = name
    return authority.removesuffix(".")


class HostCheck:
    """Refuses hosts this service does not go by (421) and unsafe requests of other sites' pages (403)."""

    def __init__(self, app: ASGIApp, names: Iterable[str]) -> None:
        self._app = app
        self._names = LOOPBACK_NAMES | {host_name(name) for name in names}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        request = Request(scope)
        problem = self._problem(request)
        if problem is None:
            await self._app(scope, receive, send)
        else:
            await problem_response(request, problem)(scope, receive, send)

    def _problem(self, request: Request) -> ApiProblem | None:
        hosts = request.headers.getlist("host")
        if len(hosts) != 1 or host_name(hosts[0]) not in self._names:
            named = hosts[0] if len(hosts) == 1 else f"{len(hosts)} Host headers"
            detail = f"This service does not go by the name {named!r}; add it to PALS_ALLOWED_HOSTS if it should."
            return ApiProblem(ProblemCode.MISDIRECTED_REQUEST, detail)
        if request.method in SAFE_METHODS:
            return None
        origins = request.headers.getlist("origin")
        same = all(origin.partition("://")[2].lower() == hosts[0].strip().lower() for origin in origins)
        if not same or request.headers.get("sec-fetch-site") == "cross-site":
            detail = f"{request.method} is only allowed from this service's own pages or without a browser."
            return ApiProblem(ProblemCode.FOREIGN_ORIGIN, detail)
        return None
