"""The HTTP application."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from importlib.metadata import version

from anyio.to_thread import run_sync
from fastapi import Depends, FastAPI
from starlette.middleware import Middleware

from api import errors, openapi
from api.bodies import BodyLimit
from api.head_requests import HeadRequests
from api.hosts import HostCheck
from api.parameters import refuse_unknown_parameters
from api.request_context import RequestContext
from api.routes import (
    catalogue,
    checkpoints,
    datasets,
    evaluations,
    events,
    forecasts,
    health,
    jobs,
    layers,
    metrics,
    workers,
)
from api.services import open_services
from jobstore.settings import Settings

DESCRIPTION = """Train sparse forecasters: upload a series, post a job, watch loss and sparsity, download the sparse
checkpoint, ask it for forecasts. Times are UTC; refusals are RFC 9457 problem details."""
_ROUTES = (datasets, jobs, events, metrics, layers, evaluations, checkpoints, forecasts, catalogue, workers, health)


def create_app(settings: Settings | None = None) -> FastAPI:
    """The API for these settings, or for those of the environment; opens nothing before it starts."""
    settings = settings or Settings()

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        services = await run_sync(open_services, settings)
        app.state.services = services
        tailing = asyncio.create_task(services.tailer.run())
        try:
            yield
        finally:
            services.tailer.close()
            tailing.cancel()
            with suppress(asyncio.CancelledError):
                await tailing
            await run_sync(services.close)

    app = FastAPI(
        title="PALS",
        version=version("pals"),
        description=DESCRIPTION,
        lifespan=lifespan,
        redirect_slashes=False,
        redoc_url=None,
        dependencies=[Depends(refuse_unknown_parameters)],
        middleware=[
            Middleware(RequestContext),
            Middleware(HostCheck, names=(settings.host, *settings.allowed_hosts)),
            Middleware(BodyLimit),
            Middleware(HeadRequests),
        ],
    )
    errors.install(app)
    openapi.install(app)
    for module in _ROUTES:
        app.include_router(module.router)
    return app
