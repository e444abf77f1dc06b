"""The HTTP door beside a plain FastAPI endpoint: single events over 64 connections, and batches of 100."""

from __future__ import annotations

import asyncio
import os
import secrets
import socket
import statistics
import subprocess
import sys
import time
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime

import orjson
from sqlalchemy import text

from infra.db.engine import open_engine
from infra.db.migrate import migrate
from infra.embedded import Engines
from tests.benchmarks.peers.plain_door import DATABASE_URL, TABLE

CONNECTIONS = 64
SECONDS = 8.0
BATCH = 100


@dataclass(frozen=True, slots=True)
class Load:
    """What one server did under load: events a second, and the latency of a request in milliseconds."""

    per_s: float
    p50_ms: float
    p99_ms: float
    refused: int


def door(engines: Engines, rounds: int, scale: float) -> None:
    """In turn, on the same box, with one process each, and the client beside them."""
    engine = open_engine(engines.database_url)
    migrate(engine)
    with engine.begin() as connection:
        connection.execute(text(TABLE))
    ratios = []
    for _ in range(rounds):
        plain = _measure(_plain(engines), 1, SECONDS * scale)
        ours = _measure(_ours(engines), 1, SECONDS * scale)
        batched = _measure(_ours(engines), BATCH, SECONDS * scale)
        with engine.connect() as connection:
            kept, out = connection.execute(
                text("SELECT (SELECT coalesce(sum(accepted), 0) FROM inbox), (SELECT count(*) FROM outbox)")
            ).one()
        for name, load in (("plain FastAPI", plain), ("door", ours), (f"door, batches of {BATCH}", batched)):
            print(f"{name:22} {load.per_s:8,.0f} events/s   p50 {load.p50_ms:6.1f} ms   p99 {load.p99_ms:6.1f} ms"
                  f"   refused {load.refused}", flush=True)  # fmt: skip
        print(f"{kept:,} events in the inbox, {out:,} messages in the outbox")
        ratios.append(ours.per_s / plain.per_s)
    print(
        f"\ndoor / plain FastAPI, single events: {statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})"
    )
    engine.dispose()


def _plain(engines: Engines) -> list[str]:
    os.environ[DATABASE_URL] = engines.database_url
    return [
        sys.executable, "-m", "uvicorn", "tests.benchmarks.peers.plain_door:app", "--loop", "uvloop", "--http",
        "httptools", "--no-access-log", "--log-level", "warning", "--port",
    ]  # fmt: skip


def _ours(engines: Engines) -> list[str]:
    os.environ |= {"HOLDFIRE_DATABASE_URL": engines.database_url, "HOLDFIRE_BROKER_URL": engines.broker_url}
    return [sys.executable, "-m", "holdfire", "serve", "door", "--open", "--port"]


def _measure(command: list[str], batch: int, seconds: float) -> Load:
    port = _free_port()
    server = subprocess.Popen([*command, str(port)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        _wait_for(port)
        return asyncio.run(_load(port, batch, seconds))
    finally:
        server.terminate()
        server.wait(timeout=30)


async def _load(port: int, batch: int, seconds: float) -> Load:
    took: list[float] = []
    refused = 0
    ends_at = time.perf_counter() + seconds

    async def one(number: int) -> None:
        nonlocal refused
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        label = secrets.token_hex(6)
        at = datetime.now(UTC).isoformat()
        sent = 0
        while time.perf_counter() < ends_at:
            events = [_event(f"{label}:{number}:{sent}:{place}", at) for place in range(batch)]
            body = orjson.dumps(events if batch > 1 else events[0])
            started = time.perf_counter()
            writer.write(
                b"POST /v1/events HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
                b"Content-Length: %d\r\n\r\n" % len(body) + body
            )
            head = await reader.readuntil(b"\r\n\r\n")
            length = int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
            await reader.readexactly(length)
            took.append(time.perf_counter() - started)
            refused += b" 202 " not in head[:20]
            sent += 1
        writer.close()

    await asyncio.gather(*(one(number) for number in range(CONNECTIONS)))
    cuts = statistics.quantiles(took, n=100)
    return Load(len(took) * batch / seconds, cuts[49] * 1000, cuts[98] * 1000, refused)


def _event(event_id: str, at: str) -> dict[str, object]:
    return {
        "version": 1, "type": "conversion", "event_id": event_id, "source": "bench", "name": "purchase",
        "occurred_at": at, "order_id": event_id, "value": "49.90", "currency": "EUR",
        "click_ids": {"xandr": f"nym1CJjYiJ3oq6LkMxACGIHey7vM0vGDRyIJMTAuMS4xMi42KAE.{event_id}"},
    }  # fmt: skip


def _free_port() -> int:
    with closing(socket.socket()) as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _wait_for(port: int) -> None:
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        with closing(socket.socket()) as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.05)
    raise TimeoutError(f"nothing listens on port {port}")
