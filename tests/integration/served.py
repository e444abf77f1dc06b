"""An application for tests behind a real server and socket, in a thread of the test's own process."""

from __future__ import annotations

import socket
import threading

import uvicorn
from starlette.types import ASGIApp

from tests.integration.ground import until

START_WITHIN_S = 15.0
END_WITHIN_S = 30.0


class Served:
    """``application`` at ``url``, from ``start`` until ``close``: both wait until it is so."""

    def __init__(self, application: ASGIApp, name: str, *, graceful_s: int) -> None:
        self._name = name
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._socket.getsockname()[1]}"
        self._server = uvicorn.Server(
            uvicorn.Config(
                application,
                loop="uvloop",
                http="httptools",
                lifespan="on",
                log_config=None,
                access_log=False,
                server_header=False,
                timeout_graceful_shutdown=graceful_s,
            )
        )
        self._thread = threading.Thread(
            target=self._server.run, kwargs={"sockets": [self._socket]}, name=name, daemon=True
        )

    def start(self) -> None:
        self._thread.start()
        until(lambda: self._server.started or not self._thread.is_alive(), START_WITHIN_S)
        assert self._thread.is_alive(), f"the {self._name} ended while it started: see the log"

    def close(self) -> None:
        """End it, as SIGTERM ends the real one. May be called twice."""
        self._server.should_exit = True
        self._thread.join(END_WITHIN_S)
        assert not self._thread.is_alive(), f"the {self._name} did not end"
        self._socket.close()
