"""Query parameters nobody knows are refused: a misspelt filter must not list everything."""

from __future__ import annotations

import difflib

from fastapi import Request, params
from fastapi.dependencies.utils import get_flat_params
from fastapi.routing import APIRoute

from api.problems import ApiProblem, ProblemCode, ProblemItem
from api.routes.jobs import METADATA_PREFIX, list_all_jobs


async def refuse_unknown_parameters(request: Request) -> None:
    """Raise ApiProblem for a query parameter that the route does not have."""
    route = request.scope.get("route")
    if not isinstance(route, APIRoute) or not request.query_params:
        return
    known = {field.alias for field in get_flat_params(route.dependant) if isinstance(field.field_info, params.Query)}
    filterable = route.endpoint is list_all_jobs
    items = []
    for name in request.query_params:
        if name in known or (filterable and name.startswith(METADATA_PREFIX)):
            continue
        close = difflib.get_close_matches(name, known, n=1)
        hint = f"; did you mean {close[0]!r}?" if close else ""
        items.append(ProblemItem(parameter=name[:100], message=f"is not a parameter here{hint}"))
    if items:
        detail = f"There is no parameter {items[0].parameter!r} here; there are: {', '.join(sorted(known)) or 'none'}."
        raise ApiProblem(ProblemCode.INVALID_QUERY, detail, items)
