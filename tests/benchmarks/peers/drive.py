"""Measures one contestant after another on the same target, and prints them side by side."""

from __future__ import annotations

import argparse
import os
import secrets
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Protocol

import psutil

from infra.embedded import use_engines
from tests.benchmarks.peers import processes
from tests.benchmarks.peers.delay_insert import DelayInsert
from tests.benchmarks.peers.metering import CpuMeter
from tests.benchmarks.peers.pgqueuer_worker import PgQueuerWorkers
from tests.benchmarks.peers.target import Target
from tests.benchmarks.peers.tuned_celery import TunedCelery

WARM_UP = 400


class Peer(Protocol):
    """A contestant in firing. `wait_done` counts attempts committed since `prepare`."""

    name: str

    def prepare(self, database_url: str, broker_url: str, urls: Sequence[str] = ()) -> None: ...
    def enqueue(self, urls: Sequence[str]) -> None: ...
    def start(self) -> list[processes.Child]: ...
    def wait_done(self, rows: int, timeout_s: float) -> None: ...
    def stop(self) -> None: ...


@dataclass(frozen=True)
class Result:
    """What one contestant did. Processor seconds are user and system together, per 1,000 pieces of work.

    `cpu_s_per_1000` is that of its worker processes; `others_cpu_s_per_1000` that of whatever else was metered,
    by name. `peak_rss_mb` is the highest resident memory of any one worker process.
    """

    name: str
    n: int
    seconds: float
    per_s: float
    cpu_s_per_1000: float
    others_cpu_s_per_1000: Mapping[str, float]
    peak_rss_mb: float


def urls_at(sink_url: str, n: int) -> list[str]:
    """Postback URLs as an ad network's look: a path, a few fields, a long click token last, none alike."""
    return [
        f"{sink_url}/s2s/conversion?id=25619&value=49.90&order_id={number}&sspdata={secrets.token_urlsafe(48)}"
        for number in range(n)
    ]


def measure(
    peer: Peer,
    n: int,
    sink_url: str,
    database_url: str,
    broker_url: str,
    *,
    other_pids: Mapping[str, Iterable[int]] | None = None,
    timeout_s: float = 120,
) -> Result:
    """Let a contestant fire `n` postbacks that wait for it, its workers running and warm.

    The workers are frozen where they stand while the queue is filled. The clock starts when they are let go and
    stops when the n-th attempt is committed. `other_pids` names processes to be metered beside the workers, such
    as the engines and the sink.
    """
    peer.prepare(database_url, broker_url)
    pids = [child.pid for child in peer.start()]
    try:
        peer.enqueue(urls_at(sink_url, WARM_UP))
        peer.wait_done(WARM_UP, timeout_s)
        processes.freeze(pids)
        peer.enqueue(urls_at(sink_url, n))
        return _clocked(
            peer.name,
            n,
            pids,
            other_pids or {},
            work=lambda: (processes.thaw(pids), peer.wait_done(WARM_UP + n, timeout_s)),
        )
    finally:
        peer.stop()


def measure_intake(
    peer: DelayInsert,
    n: int,
    database_url: str,
    broker_url: str,
    *,
    other_pids: Mapping[str, Iterable[int]] | None = None,
    timeout_s: float = 120,
) -> Result:
    """Let a producer in this process send `n` events through the queue while warm workers take them in.

    The clock starts with the first event sent and stops when the n-th is committed. The producer's own
    processor time is among the others.
    """
    peer.prepare(database_url, broker_url)
    pids = [child.pid for child in peer.start()]
    try:
        peer.enqueue(peer.events(WARM_UP, "warm-up"))
        peer.wait_done(WARM_UP, timeout_s)
        events = peer.events(n, "measured")
        return _clocked(
            peer.name,
            n,
            pids,
            {"producer": [os.getpid()], **(other_pids or {})},
            work=lambda: (peer.enqueue(events), peer.wait_done(WARM_UP + n, timeout_s)),
        )
    finally:
        peer.stop()


def _clocked(
    name: str, n: int, pids: list[int], other_pids: Mapping[str, Iterable[int]], work: Callable[[], object]
) -> Result:
    with CpuMeter({"workers": pids, **other_pids}) as meter:
        started = time.perf_counter()
        work()
        seconds = time.perf_counter() - started
        cpu = {name: used * 1000 / n for name, used in meter.read().items()}
        peak = processes.peak_rss_mb(pids)
    return Result(name, n, seconds, n / seconds, cpu.pop("workers"), cpu, peak)


def table(results: Iterable[Result]) -> str:
    """The results as a Markdown table."""
    lines = [
        "| contestant | n | seconds | per s | worker CPU s per 1,000 | other CPU s per 1,000 | peak RSS MB |",
        "|---|---|---|---|---|---|---|",
    ]
    for result in results:
        others = ", ".join(f"{name} {used:.2f}" for name, used in result.others_cpu_s_per_1000.items())
        lines.append(
            f"| {result.name} | {result.n:,} | {result.seconds:.2f} | {result.per_s:,.0f} "
            f"| {result.cpu_s_per_1000:.2f} | {others} | {result.peak_rss_mb:.0f} |"
        )
    return "\n".join(lines)


def measure_all(
    n: int, database_url: str, broker_url: str, engine_pids: Mapping[str, Iterable[int]]
) -> list[Result]:
    """Measure the firing peers and the intake peer on a target of their own, one after another."""
    firing: list[Peer] = [TunedCelery(), PgQueuerWorkers()]
    target = Target()
    try:
        metered = {**engine_pids, "target": [target.pid]}
        results = [
            measure(peer, n, target.url, database_url, broker_url, other_pids=metered) for peer in firing
        ]
        assert target.answered() == len(firing) * (WARM_UP + n), "a postback was sent twice or not at all"
    finally:
        target.stop()
    intake = measure_intake(DelayInsert(), n, database_url, broker_url, other_pids=engine_pids)
    return [*results, intake]


def main() -> None:
    """Measure all three on embedded engines of their own, or on those given."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--database-url", help="an empty database to use instead; needs --broker-url too")
    parser.add_argument("--broker-url")
    parser.add_argument("--n", type=int, default=10_000)
    parser.add_argument(
        "--meter", action="append", default=[], metavar="NAME=PID", help="also meter this tree"
    )
    given = parser.parse_args()
    pids = {name: [int(pid)] for name, _, pid in (pair.partition("=") for pair in given.meter)}
    if given.database_url:
        print(table(measure_all(given.n, given.database_url, given.broker_url, pids)))
        return
    with TemporaryDirectory() as folder:
        with use_engines(Path(folder), linger_s=0) as engines:
            servers = {"postgres": engines.postgres_pid, "valkey": engines.valkey_pid}
            pids |= {name: [pid] for name, pid in servers.items() if pid}
            running = [psutil.Process(pid) for pid in servers.values() if pid]
            print(table(measure_all(given.n, engines.database_url, engines.broker_url, pids)))
        psutil.wait_procs(running, timeout=30)  # their folder goes next


if __name__ == "__main__":
    main()
