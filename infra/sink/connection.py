"""One client's connection: bytes in, requests answered strictly in order, bytes out."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Protocol, cast

from infra.sink.answers import Ending, Pause, Repeat, Script, Step
from infra.sink.gate import Waiting
from infra.sink.ports import reset
from infra.sink.wire import MalformedRequestError, Request, RequestReader

PLAIN_OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nOK"


class Receiver(Protocol):
    """What a connection asks of the sink."""

    plain: bool
    requests: int

    def connected(self, connection: Connection) -> bool: ...
    def disconnected(self, connection: Connection) -> None: ...
    def receive(self, request: Request, connection: Connection, on_connection: int) -> Script | Waiting: ...
    def malformed_request(
        self, error: MalformedRequestError, connection: Connection, on_connection: int
    ) -> Script: ...


class Connection(asyncio.Protocol):
    """The protocol object of one connection. ``number`` counts the sink's connections from 1."""

    __slots__ = (
        "_playing", "_queue", "_reader", "_requests", "_sink", "_task", "_transport", "_waiting", "_writable",
        "is_tls", "number", "peer",
    )  # fmt: skip

    def __init__(self, sink: Receiver, number: int, *, is_tls: bool) -> None:
        self.number = number
        self.is_tls = is_tls
        self.peer = ""
        self._sink = sink
        self._reader = RequestReader()
        self._requests = 0
        self._queue: deque[Request] = deque()
        self._playing = False
        self._task: asyncio.Task[None] | None = None
        self._waiting: Waiting | None = None
        self._writable: asyncio.Event | None = None
        self._transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        address = transport.get_extra_info("peername")
        self.peer = f"{address[0]}:{address[1]}" if address else ""
        if not self._sink.connected(self):
            reset(self._transport)

    def connection_lost(self, exc: Exception | None) -> None:
        self._queue.clear()
        self._sink.disconnected(self)
        if self._waiting:
            self._waiting.client_gone()
        if self._task:
            self._task.cancel()
        if self._writable:
            self._writable.set()

    def pause_writing(self) -> None:
        self._writable = asyncio.Event()

    def resume_writing(self) -> None:
        if self._writable:
            self._writable.set()
            self._writable = None

    def abort(self) -> None:
        """Drop the connection."""
        self._transport.abort()

    def data_received(self, data: bytes) -> None:
        if self._sink.plain and self._reader.is_idle and not self._playing and _is_one_plain_get(data):
            self._sink.requests += 1
            self._requests += 1
            self._transport.write(PLAIN_OK)
            return
        try:
            self._queue.extend(self._reader.feed(data))
        except MalformedRequestError as error:
            if not self._transport.is_closing():
                script = self._sink.malformed_request(error, self, self._requests + 1)
                self._start((*script, Ending.CLOSE), keep_alive=False)
            return
        if not self._playing:
            self._advance()
        if self._reader.take_continue():
            self._transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")

    def _advance(self) -> None:
        """Answer what is queued until an answer takes time."""
        while self._queue and not self._playing and not self._transport.is_closing():
            request = self._queue.popleft()
            self._requests += 1
            outcome = self._sink.receive(request, self, self._requests)
            if isinstance(outcome, Waiting):
                self._playing = True
                self._waiting = outcome
                self._task = asyncio.get_running_loop().create_task(self._wait(outcome, request.keeps_alive))
            else:
                self._start(outcome, keep_alive=request.keeps_alive)

    def _start(self, script: Script, *, keep_alive: bool) -> None:
        if len(script) == 1 and isinstance(script[0], bytes):
            self._transport.write(script[0])
            if not keep_alive:
                self._transport.close()
            return
        self._playing = True
        self._task = asyncio.get_running_loop().create_task(self._play(script, keep_alive))

    async def _wait(self, waiting: Waiting, keep_alive: bool) -> None:
        await waiting.released.wait()
        script = waiting.settle(True)
        self._waiting = None
        await self._play(script, keep_alive)

    async def _play(self, script: Script, keep_alive: bool) -> None:
        for step in script:
            if self._transport.is_closing():
                return
            await self._perform(step)
        if not keep_alive:
            self._transport.close()
        self._playing = False
        self._task = None
        self._advance()

    async def _perform(self, step: Step) -> None:
        if isinstance(step, bytes):
            self._transport.write(step)
        elif isinstance(step, Pause):
            await asyncio.sleep(step.seconds)
        elif isinstance(step, Repeat):
            for _ in range(step.times):
                if self._transport.is_closing():
                    return
                self._transport.write(step.chunk)
                if self._writable:
                    await self._writable.wait()
                if step.pause_s:
                    await asyncio.sleep(step.pause_s)
        elif step is Ending.RESET:
            reset(self._transport)
        else:
            self._transport.close()


def _is_one_plain_get(data: bytes) -> bool:
    """Whether ``data`` is exactly one whole GET that asks for nothing special."""
    if not data.startswith(b"GET /") or data.startswith(b"GET /_sink/"):
        return False
    if data.find(b"\r\n\r\n") != len(data) - 4:
        return False
    # A body or a close needs the real parser; names are looked for without their first letter's case.
    return b"ontent-" not in data and b"ransfer-" not in data and b"close" not in data
