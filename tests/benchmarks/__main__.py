"""``make bench``: Holdfire beside what people use today, on the same engines and target, in one run.

Read the figures as ratios: the box decides the absolute ones. Each part can be named alone.
"""

from __future__ import annotations

import argparse
import itertools
import os
import statistics
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

import psutil

from infra.embedded import Engines, use_engines
from tests.benchmarks import holding
from tests.benchmarks.bare import BARE_MODES, measure_bare
from tests.benchmarks.door import door
from tests.benchmarks.holdfire import Holdfire
from tests.benchmarks.intake import HoldfireIntake
from tests.benchmarks.investigating import investigating
from tests.benchmarks.keeping import keeping
from tests.benchmarks.peers.delay_insert import DelayInsert
from tests.benchmarks.peers.drive import Result, measure, measure_intake, table
from tests.benchmarks.peers.pgqueuer_worker import PgQueuerWorkers
from tests.benchmarks.peers.target import Target
from tests.benchmarks.peers.tuned_celery import TunedCelery
from tests.benchmarks.reconciling import reconciling
from tests.benchmarks.stopping import stopping


def firing(engines: Engines, rounds: int, scale: float) -> None:
    """The same postbacks fired and logged by three, in turn, and the transport alone."""
    contestants = [(TunedCelery, 3000), (PgQueuerWorkers, 10_000), (Holdfire, 20_000)]
    kept: dict[str, list[Result]] = {}
    target = Target()
    metered = {**_engine_pids(engines), "target": [target.pid]}
    try:
        for _ in range(rounds):
            results = [
                measure(
                    contestant(), int(n * scale), target.url, engines.database_url, engines.broker_url,
                    other_pids=metered,
                )
                for contestant, n in contestants
            ]  # fmt: skip
            for mode, workers in itertools.product(BARE_MODES, (1, 2)):
                results.append(measure_bare(mode, int(20_000 * scale), target.url, target.pid, workers))
            results.append(_one_worker(engines, target, metered, int(15_000 * scale)))
            for result in results:
                kept.setdefault(result.name, []).append(result)
            print(table(results), flush=True)
    finally:
        target.stop()
    _ratios(kept)


def _one_worker(engines: Engines, target: Target, metered: dict[str, list[int]], n: int) -> Result:
    contestant = Holdfire(workers=1)
    contestant.name = "Holdfire, 1 worker"
    return measure(contestant, n, target.url, engines.database_url, engines.broker_url, other_pids=metered)


def _ratios(kept: dict[str, list[Result]]) -> None:
    def ratio(one: str, other: str) -> str:
        found = [a.per_s / b.per_s for a, b in zip(kept[one], kept[other], strict=True)]
        return f"{statistics.median(found):.2f} ({min(found):.2f} to {max(found):.2f})"

    print(f"\nHoldfire / tuned Celery: {ratio('Holdfire', 'tuned Celery')}")
    print(f"Holdfire / PgQueuer: {ratio('Holdfire', 'PgQueuer')}")
    for mode in BARE_MODES:
        print(f"Holdfire, 2 workers / bare transport ({mode}), 2 processes: "
              f"{ratio('Holdfire', f'bare transport, {mode}, 2 processes')}")  # fmt: skip
        print(f"Holdfire, 1 worker / bare transport ({mode}), 1 process: "
              f"{ratio('Holdfire, 1 worker', f'bare transport, {mode}, 1 process')}")  # fmt: skip
    for name, results in kept.items():
        whole = [r.cpu_s_per_1000 + sum(r.others_cpu_s_per_1000.values()) for r in results]
        print(f"{name}: {statistics.median(whole):.3f} CPU s per 1,000, engines and target included")


def taking_in(engines: Engines, rounds: int, scale: float) -> None:
    """Events through the queue until committed: one ``delay()`` and INSERT each, against ``enqueue_many``."""
    ratios = []
    for _ in range(rounds):
        results = [
            measure_intake(
                peer,
                int(n * scale),
                engines.database_url,
                engines.broker_url,
                other_pids=_engine_pids(engines),
            )
            for peer, n in ((DelayInsert(), 4000), (HoldfireIntake(), 40_000))
        ]
        print(table(results), flush=True)
        ratios.append(results[1].per_s / results[0].per_s)
    print(
        f"\nHoldfire / delay() and INSERT: {statistics.median(ratios):.1f} ({min(ratios):.1f} to {max(ratios):.1f})"
    )


def _engine_pids(engines: Engines) -> dict[str, list[int]]:
    pids = {"postgres": engines.postgres_pid, "valkey": engines.valkey_pid}
    return {name: [pid] for name, pid in pids.items() if pid}


PARTS: dict[str, Callable[[Engines, int, float], None]] = {
    "firing": firing,
    "intake": taking_in,
    "burst": holding.burst,
    "passes": holding.passes,
    "signals": holding.signals,
    "door": door,
    "lateness": holding.lateness,
    "stopping": stopping,
    "keeping": keeping,
    "investigating": investigating,
    "reconciling": reconciling,
}

LONG = "investigating"
"""Makes 18 GB of history, in more than half an hour."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "parts", nargs="*", choices=[*PARTS, []], default=[], help=f"which parts; all but {LONG} by default"
    )
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--scale", type=float, default=1.0, help="share of the usual amount of work")
    given = parser.parse_args()
    print(f"{os.cpu_count()} cores, {psutil.virtual_memory().total / 2**30:.0f} GiB")
    for name in given.parts or [name for name in PARTS if name != LONG]:
        print(f"\n## {name}\n", flush=True)
        with TemporaryDirectory(prefix="holdfire-bench-") as folder:
            with use_engines(Path(folder), linger_s=0) as engines:
                running = [psutil.Process(pid) for pid in (engines.postgres_pid, engines.valkey_pid) if pid]
                PARTS[name](engines, given.rounds, given.scale)
            psutil.wait_procs(running, timeout=30)  # their folder goes next


if __name__ == "__main__":
    main()
