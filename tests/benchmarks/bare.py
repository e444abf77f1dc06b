"""The bare transport: the same requests with nothing around them, by one or two processes.

``fetch`` is the way firing goes; ``httpx`` is the same transport through the interface it implements, one
``httpx.Request`` in and one ``httpx.Response`` out. ``session`` is what one would write first: an httpx transport of forty
lines over an aiohttp session, with timing traces and the URL passed through as it is, which keeps no heads.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import time
from collections.abc import Iterator

import aiohttp
import httpx
import uvloop
from yarl import URL

from infra.http.fetch import fetch
from infra.http.transport import EvidenceTransport
from schemas.exchange import FetchLimits, OutboundRequest
from tests.benchmarks.peers.drive import Result, urls_at
from tests.benchmarks.peers.metering import CpuMeter
from tests.benchmarks.peers.processes import Child, peak_rss_mb, say_ready

BARE_MODES = ("session", "httpx", "fetch")
CONCURRENCY = 50
LIMITS = FetchLimits(allow_private=True, allow_http=True)
HEADERS = ((b"User-Agent", b"holdfire/bench"), (b"Accept", b"*/*"))


class SessionTransport(httpx.AsyncBaseTransport):
    """One aiohttp session behind httpx's interface."""

    def __init__(self) -> None:
        trace = aiohttp.TraceConfig()
        for signal in (
            trace.on_request_start,
            trace.on_dns_resolvehost_end,
            trace.on_connection_create_end,
            trace.on_connection_reuseconn,
            trace.on_request_headers_sent,
            trace.on_request_end,
        ):
            signal.append(self._note)
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=CONCURRENCY, ttl_dns_cache=30),
            cookie_jar=aiohttp.DummyCookieJar(),
            auto_decompress=False,
            trace_configs=[trace],
            trust_env=False,
        )

    @staticmethod
    async def _note(_session: object, context: object, _params: object) -> None:
        context.at = time.perf_counter()  # type: ignore[attr-defined]  # the trace's own namespace

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        url = URL(str(request.url), encoded=True)
        async with self._session.request(
            request.method, url, headers=request.headers.multi_items(), allow_redirects=False
        ) as answer:
            body = await answer.read()
            return httpx.Response(
                answer.status, headers=list(answer.raw_headers), content=body, request=request
            )

    async def aclose(self) -> None:
        await self._session.close()


async def _run(mode: str, urls: Iterator[str]) -> None:
    made = SessionTransport() if mode == "session" else EvidenceTransport(limits=LIMITS)
    async with made as transport:

        async def send() -> None:
            for url in urls:
                if isinstance(transport, EvidenceTransport) and mode == "fetch":
                    await fetch(transport, OutboundRequest("GET", url, HEADERS), LIMITS)
                else:
                    request = httpx.Request("GET", url, headers=list(HEADERS))
                    await (await transport.handle_async_request(request)).aread()

        await asyncio.gather(*(send() for _ in range(CONCURRENCY)))


def measure_bare(mode: str, n: int, target_url: str, target_pid: int, workers: int) -> Result:
    """``n`` requests shared among ``workers`` processes; the clock runs from the first one's start to the last's end."""
    children = [Child("tests.benchmarks.bare", mode, str(n // workers), target_url) for _ in range(workers)]
    for child in children:
        child.wait_ready()
    pids = [child.pid for child in children]
    with CpuMeter({"workers": pids, "target": [target_pid]}) as meter:
        started = time.perf_counter()
        for child in children:
            child.tell()
        for child in children:
            child.wait_ready(120)
        seconds = time.perf_counter() - started
        cpu = {name: used * 1000 / n for name, used in meter.read().items()}
        peak = peak_rss_mb(pids)
    for child in children:
        child.stop()
    return Result(
        f"bare transport, {mode}, {workers} process{'es' * (workers > 1)}",
        n, seconds, n / seconds, cpu.pop("workers"), cpu, peak,
    )  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("mode", choices=BARE_MODES)
    parser.add_argument("n", type=int)
    parser.add_argument("url")
    given = parser.parse_args()
    urls = iter(urls_at(given.url, given.n))
    say_ready()
    sys.stdin.readline()
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(_run(given.mode, urls))
    say_ready()
    sys.stdin.readline()


if __name__ == "__main__":
    main()
