"""Serves the application over HTTP until SIGTERM or Ctrl-C."""

from __future__ import annotations

import socket
import sys

import uvicorn

from api.app import create_app
from jobstore.logs import configure
from jobstore.settings import Settings

GRACEFUL_SECONDS = 15


class _Server(uvicorn.Server):
    """Says where it listens, and ends the event streams before it waits for requests to end."""

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        for server in self.servers:
            for bound in server.sockets:
                host, port = bound.getsockname()[:2]
                shown = f"[{host}]" if ":" in host else host
                sys.stdout.write(f"PALS listens on http://{shown}:{port}\n")
        sys.stdout.flush()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        services = getattr(self.config.app.state, "services", None)  # type: ignore[union-attr]
        if services is not None:
            services.tailer.close()
        await super().shutdown(sockets)


def run(settings: Settings) -> None:
    """Serve on `settings.host` and `settings.port` (0: a free one) and print the address once it listens."""
    configure(settings)
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
    _Server(config).run()
