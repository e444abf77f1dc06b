"""What a door process counts, in Prometheus' format. Requests are counted in plain integers, and written out when asked.

Each process has its own numbers and names itself in the label ``process``: behind one port, a scrape meets any of them.
"""

from __future__ import annotations

import os
import time
from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator
from itertools import accumulate
from typing import Final

from prometheus_client import CollectorRegistry
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_1_0_0, generate_latest
from prometheus_client.metrics_core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector

from schemas.arrival import Receipt

MEDIA_TYPE: Final = CONTENT_TYPE_PLAIN_1_0_0
ROUTES: Final = frozenset({"events", "hooks", "clicks"})
_SIZES: Final = (1, 2, 5, 10, 20, 50, 100, 200)
_SECONDS: Final = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 5.0)


class _Histogram:
    """Counts by bucket. One thread writes; a reader may be an observation behind."""

    def __init__(self, bounds: tuple[float, ...]) -> None:
        self._bounds = bounds
        self._counts = [0] * (len(bounds) + 1)
        self._sum = 0.0

    def observe(self, value: float) -> None:
        self._counts[bisect_left(self._bounds, value)] += 1
        self._sum += value

    def family(self, name: str, about: str, process: str) -> HistogramMetricFamily:
        labels = [*(str(bound) for bound in self._bounds), "+Inf"]
        family = HistogramMetricFamily(name, about, labels=["process"])
        counts = [float(count) for count in accumulate(self._counts)]
        family.add_metric([process], list(zip(labels, counts, strict=True)), self._sum)
        return family


class Metrics(Collector):
    """The numbers of one application. ``depth`` counts the outbox, or gives None where that cannot be told."""

    def __init__(self) -> None:
        self.waiting: Callable[[], int] = lambda: 0
        self.depth: Callable[[], int | None] = lambda: None
        self._requests: dict[tuple[str, int], int] = {}
        self._events = {"accepted": 0, "duplicate": 0, "rejected": 0}
        self._sizes = _Histogram(_SIZES)
        self._seconds = _Histogram(_SECONDS)
        self._process = str(os.getpid())
        self._registry = CollectorRegistry()
        self._registry.register(self)

    def answered(self, path: str, status: int) -> None:
        """A request was answered. Called on the event loop."""
        route = path[1:].removeprefix("v1/").split("/", 1)[0].removesuffix(".gif")
        slot = (route if route in ROUTES else "other", status)
        self._requests[slot] = self._requests.get(slot, 0) + 1

    def committed(self, receipts: Iterable[Receipt], started: float) -> None:
        """A group was committed that began at ``started``, on ``time.perf_counter``. Called in the committing thread."""
        self._seconds.observe(time.perf_counter() - started)
        size = 0
        for receipt in receipts:
            size += 1
            if receipt.replayed or receipt.conflict:
                continue
            answer = receipt.answer
            if "accepted" not in answer:  # a click: it has no events
                continue
            self._events["accepted"] += answer["accepted"]
            self._events["duplicate"] += len(answer["duplicates"])
            self._events["rejected"] += len(answer["rejected"])
        self._sizes.observe(size)

    def exposition(self) -> bytes:
        """All of it, as ``MEDIA_TYPE``. Asks the database how deep the outbox is."""
        return generate_latest(self._registry)

    def describe(self) -> Iterable[Metric]:
        """Nothing beforehand: a registry that asks would make it query."""
        return ()

    def collect(self) -> Iterator[Metric]:
        requests = CounterMetricFamily(
            "holdfire_door_requests", "Requests answered", labels=["process", "route", "status"]
        )
        for (route, status), count in sorted(self._requests.copy().items()):
            requests.add_metric([self._process, route, str(status)], count)
        events = CounterMetricFamily(
            "holdfire_door_events", "Events by what became of them", labels=["process", "outcome"]
        )
        for outcome, count in self._events.items():
            events.add_metric([self._process, outcome], count)
        waiting = GaugeMetricFamily(
            "holdfire_door_waiting_requests", "Requests that wait to be committed", labels=["process"]
        )
        waiting.add_metric([self._process], self.waiting())
        yield from (requests, events, waiting)
        yield self._sizes.family("holdfire_door_commit_group_size", "Requests in a commit", self._process)
        yield self._seconds.family("holdfire_door_commit_seconds", "How long a commit took", self._process)
        depth = self.depth()
        if depth is not None:  # of the installation, not of a process
            yield GaugeMetricFamily("holdfire_outbox_messages", "Messages on their way to intake", depth)
