"""A sink in a background thread, for tests and scripts that block."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from types import TracebackType
from typing import Any, Self

from infra.sink.client import SinkClient
from infra.sink.server import Sink

START_WITHIN_S = 10.0


def new_event_loop() -> asyncio.AbstractEventLoop:
    """uvloop's event loop where it is installed, else asyncio's."""
    try:
        import uvloop  # noqa: PLC0415 — not on every platform
    except ImportError:
        return asyncio.new_event_loop()
    return uvloop.new_event_loop()


class SinkThread:
    """``with SinkThread(...) as sink: sink.url, sink.client``. Takes what Sink takes."""

    def __init__(self, **options: Any) -> None:
        self.sink = Sink(**options)
        self._started = threading.Event()
        self._failure: BaseException | None = None
        self._stop: Callable[[], object] = lambda: None
        self._thread = threading.Thread(target=self._run, name="holdfire-sink", daemon=True)

    @property
    def url(self) -> str:
        """Where the sink listens."""
        return self.sink.url

    @property
    def client(self) -> SinkClient:
        """A blocking client for it."""
        return SinkClient(self.sink.url)

    def __enter__(self) -> Self:
        self._thread.start()
        if not self._started.wait(START_WITHIN_S):
            raise TimeoutError(f"the sink did not start within {START_WITHIN_S:g} s")
        if self._failure:
            raise self._failure
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop()
        self._thread.join(START_WITHIN_S)

    def _run(self) -> None:
        with asyncio.Runner(loop_factory=new_event_loop) as runner:
            try:
                runner.run(self._serve())
            except BaseException as error:  # handed to the thread that waits for the start
                self._failure = error
            finally:
                self._started.set()

    async def _serve(self) -> None:
        stopped = asyncio.Event()
        loop = asyncio.get_running_loop()
        async with self.sink:
            self._stop = lambda: loop.call_soon_threadsafe(stopped.set)
            self._started.set()
            await stopped.wait()
