"""How fast the evidence transport is, beside a bare aiohttp loop over the same server in the same run.

Run it as ``python tests/benchmarks/transport.py [requests] [concurrency]``. Prints requests a second and CPU
seconds of the sending process for 1,000 requests. The server is a process of its own.
"""

from __future__ import annotations

import asyncio
import multiprocessing
import resource
import sys
import time
from collections.abc import Awaitable, Callable
from multiprocessing.connection import Connection
from pathlib import Path

import aiohttp
import uvloop
from yarl import URL

if __name__ == "__main__":  # run as a script, the repository's root is not on the path
    sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from infra.http import EvidenceTransport, fetch
from schemas.exchange import FetchLimits, OutboundRequest

ANSWER = (
    b"HTTP/1.1 200 OK\r\nServer: sink\r\nDate: Sun, 22 Nov 2026 10:00:00 GMT\r\nContent-Type: image/gif\r\n"
    b"Content-Length: 43\r\nCache-Control: no-store\r\nConnection: keep-alive\r\n\r\n" + b"G" * 43
)
HEADERS = {"User-Agent": "holdfire-bench", "Accept": "*/*"}
LIMITS = FetchLimits(allow_private=True, allow_http=True)
Send = Callable[[str], Awaitable[None]]


class Sink(asyncio.Protocol):
    """Answers every request head with the same small answer."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport: asyncio.Transport = transport  # type: ignore[assignment] # TCP gives a full one

    def data_received(self, data: bytes) -> None:
        self.transport.write(ANSWER * data.count(b"\r\n\r\n"))


def serve(ready: Connection) -> None:
    async def main() -> None:
        server = await asyncio.get_running_loop().create_server(Sink, "127.0.0.1", 0)
        ready.send(server.sockets[0].getsockname()[1])
        await server.serve_forever()

    uvloop.run(main())


async def drive(send: Send, base: str, count: int, concurrency: int) -> tuple[float, float]:
    """Send ``count`` requests from ``concurrency`` tasks; give wall and CPU seconds."""
    urls = iter(
        [
            f"{base}/px?sspdata=nym1CJjYiJ3oq6LkMxACGIHey7vM{number}&order=%2B{number}"
            for number in range(count)
        ]
    )

    async def lane() -> None:
        for url in urls:
            await send(url)

    await send(f"{base}/warm-up")
    used = resource.getrusage(resource.RUSAGE_SELF)
    started, cpu = time.perf_counter(), used.ru_utime + used.ru_stime
    await asyncio.gather(*(lane() for _ in range(concurrency)))
    used = resource.getrusage(resource.RUSAGE_SELF)
    return time.perf_counter() - started, used.ru_utime + used.ru_stime - cpu


async def bare(base: str, count: int, concurrency: int) -> tuple[float, float]:
    connector = aiohttp.TCPConnector(limit=0)
    async with aiohttp.ClientSession(
        connector=connector, cookie_jar=aiohttp.DummyCookieJar(), auto_decompress=False, headers=HEADERS
    ) as session:

        async def send(url: str) -> None:
            async with session.get(URL(url, encoded=True), allow_redirects=False) as response:
                await response.read()

        return await drive(send, base, count, concurrency)


async def evidence(base: str, count: int, concurrency: int) -> tuple[float, float]:
    headers = tuple((name.encode(), value.encode()) for name, value in HEADERS.items())
    async with EvidenceTransport() as transport:

        async def send(url: str) -> None:
            answer = await fetch(transport, OutboundRequest("GET", url, headers), LIMITS)
            assert answer.failure is None
            assert answer.hops[0].body_length == 43

        return await drive(send, base, count, concurrency)


def main(count: int = 5000, concurrency: int = 50) -> None:
    ours, theirs = multiprocessing.Pipe()
    server = multiprocessing.get_context("spawn").Process(target=serve, args=(theirs,), daemon=True)
    server.start()
    try:
        base = f"http://127.0.0.1:{ours.recv()}"
        for name, loop in (("bare aiohttp", bare), ("evidence fetch()", evidence)) * 2:
            wall_s, cpu_s = uvloop.run(loop(base, count, concurrency))
            rate, cpu_per_1000_s = count / wall_s, cpu_s / count * 1000
            print(f"{name:18} {rate:8,.0f} requests/s  {cpu_per_1000_s:.3f} CPU s per 1,000")
    finally:
        server.terminate()
        server.join()


if __name__ == "__main__":
    main(*(int(argument) for argument in sys.argv[1:]))
