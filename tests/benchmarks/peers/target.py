"""The HTTP target every contestant fires at: answers 200 to any GET, keep-alive, and counts what it answered.

A raw protocol on uvloop, because a framework here would be what is measured. It takes bodiless requests only,
pipelined or split anywhere, and never closes a connection by itself.
"""

from __future__ import annotations

import argparse
import asyncio
import urllib.request
from typing import cast

import uvloop

from tests.benchmarks.peers import processes

_COUNT_PATH = "/-/answered"
_END_OF_HEAD = b"\r\n\r\n"
_BODY = b'{"status":"ok"}'
_ANSWER = (
    b"HTTP/1.1 200 OK\r\nServer: target\r\nContent-Type: application/json\r\nCache-Control: no-store\r\n"
    b"X-Request-Id: 7f9c2ba4e88f827d\r\nContent-Length: %d\r\n\r\n%s" % (len(_BODY), _BODY)
)


class _Answering(asyncio.Protocol):
    """One connection. `answered` is shared by all of them: a one-element list holding the count."""

    def __init__(self, answered: list[int]) -> None:
        self._answered = answered
        self._rest = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        data = self._rest + data
        requests = data.count(_END_OF_HEAD)
        self._rest = data[data.rfind(_END_OF_HEAD) + 4 :] if requests else data
        if data.startswith(b"GET " + _COUNT_PATH.encode()):
            body = str(self._answered[0]).encode()
            self._transport.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body))
            return
        self._answered[0] += requests
        self._transport.write(_ANSWER * requests)


class Target(processes.Child):
    """A running target in a process of its own. `url` is its base, without a trailing slash."""

    def __init__(self) -> None:
        super().__init__("tests.benchmarks.peers.target")
        self.url = f"http://127.0.0.1:{self.wait_ready()}"

    def answered(self) -> int:
        """How many requests the target has answered since it started."""
        with urllib.request.urlopen(self.url + _COUNT_PATH, timeout=5) as answer:
            return int(answer.read())


async def _serve(port: int) -> None:
    answered = [0]
    server = await asyncio.get_running_loop().create_server(
        lambda: _Answering(answered), "127.0.0.1", port, backlog=1024
    )
    processes.say_ready(str(server.sockets[0].getsockname()[1]))
    await server.serve_forever()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, default=0, help="0 takes a free one")
    uvloop.run(_serve(parser.parse_args().port))
