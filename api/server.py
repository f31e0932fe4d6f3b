"""Serves the application over HTTP until SIGTERM or Ctrl-C."""

from __future__ import annotations

import gc
import socket
import sys
from collections.abc import Callable

import uvicorn

from api.app import create_app
from jobstore.database import DatabaseUnavailable, open_database
from jobstore.logs import configure
from jobstore.schema import SchemaOutdated, require_current
from jobstore.settings import Settings
from jobstore.storage import open_artifacts

GRACEFUL_SECONDS = 15


class _Server(uvicorn.Server):
    """Says where it listens, and that it stops; ends the event streams before it waits for requests to end."""

    def __init__(self, config: uvicorn.Config, stopping: Callable[[], None] | None) -> None:
        super().__init__(config)
        self._stopping = stopping

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        # What is there by now stays. Looked through again and again for garbage it would hold up a request for 0.1 s.
        gc.collect()
        gc.freeze()
        for server in self.servers:
            for bound in server.sockets:
                host, port = bound.getsockname()[:2]
                shown = f"[{host}]" if ":" in host else host
                sys.stdout.write(f"PALS listens on http://{shown}:{port}\n")
        sys.stdout.flush()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        if self._stopping is not None:
            self._stopping()
        services = getattr(self.config.app.state, "services", None)  # type: ignore[union-attr]
        if services is not None:
            services.tailer.close()
        await super().shutdown(sockets)


def _require_stores(settings: Settings) -> None:
    database = open_database(settings)
    try:
        database.ping()
        require_current(database)
        open_artifacts(settings).close()
    except (DatabaseUnavailable, SchemaOutdated, ValueError) as error:
        sys.exit(str(error))
    finally:
        database.close()


def run(settings: Settings, *, stopping: Callable[[], None] | None = None) -> None:
    """Serve on `settings.host` and `settings.port` (0: a free one) and print the address once it listens.

    `stopping` is called when it begins to stop, which waits for requests to end.
    Exits with one line of reason when the database does not answer or needs migrating, or artifacts have no such place.
    """
    configure(settings)
    _require_stores(settings)
    config = uvicorn.Config(
        create_app(settings),
        host=settings.host,
        port=settings.port,
        lifespan="on",
        log_config=None,
        access_log=False,
        server_header=False,
        date_header=True,
        timeout_graceful_shutdown=GRACEFUL_SECONDS,
        timeout_keep_alive=15,
        proxy_headers=False,
    )
    _Server(config, stopping).run()
