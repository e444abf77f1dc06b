"""The SDK: give events to the queue and forget about them.

    from producers.client import Holdfire

    holdfire = Holdfire()
    holdfire.enqueue({"version": 1, "type": "conversion", ...})

One client serves a whole process, all its threads, and its forked children. docs/sdk.md has the details.
"""

from __future__ import annotations

import os
import random
import threading
import time
import weakref
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from types import TracebackType
from typing import Literal, Self

from infra.broker import BrokerAwayError, celery_app
from infra.embedded import EngineError, Engines, use_engines
from infra.settings import load_settings, normalise_broker_url
from producers.buffer import Buffer, OnUnsent, log_unsent
from producers.lines import Lines
from producers.message import Checked, Chunk, Given, check, chunks
from producers.outcome import BrokerUnavailableError, EnqueueReport, InvalidEventsError, Rejected
from schemas.event import MAX_EVENTS_PER_MESSAGE
from schemas.problem import InvalidInputError

__all__ = [
    "BrokerUnavailableError",
    "Buffer",
    "EnqueueReport",
    "Given",
    "Holdfire",
    "InvalidEventsError",
    "InvalidInputError",
    "Rejected",
]

DEADLINE_S = 30.0
_FIRST_WAIT_S = 0.05
_LONGEST_WAIT_S = 2.0


class Holdfire:
    """A client of the queue. Thread-safe and fork-safe; make one and keep it. A context manager."""

    _lines: Lines | None
    _engines: Engines | None

    def __init__(self, broker_url: str | None = None, *, deadline_s: float = DEADLINE_S) -> None:
        """``broker_url`` defaults to HOLDFIRE_BROKER_URL, and without it to the embedded broker.

        ``deadline_s`` is how long one message is tried again while the broker is away; an exchange that is
        under way when it passes may take 13 s more. Connects to nothing until something is sent. Raises
        ValueError for a URL that is no broker's, and SettingsError for an environment that cannot be used.
        """
        self.deadline_s = deadline_s
        self._broker_url = normalise_broker_url(broker_url) if broker_url else load_settings().broker_url
        self._begin()
        _clients.add(self)

    def enqueue(self, event: Given) -> None:
        """Validate one event and give it to the broker; returns once the broker has taken it.

        Raises InvalidInputError with every problem found, and BrokerUnavailableError after the deadline.
        """
        self.send(Chunk([self.check(event)]), self.deadline_s)

    def enqueue_many(
        self, events: Iterable[Given], *, on_invalid: Literal["collect", "raise"] = "collect"
    ) -> EnqueueReport:
        """Validate events and give them to the broker in messages of up to 500; far faster than one by one.

        An invalid event does not stop the rest: the report lists it. With ``on_invalid="raise"`` all are
        validated first, and if one is invalid none is sent: InvalidEventsError. If the broker stays away past
        the deadline (which every message has anew), BrokerUnavailableError holds all that was not sent; to
        fill it, ``events`` is read to its end.
        """
        report = EnqueueReport()
        checked: Iterable[Checked] = self._sift(events, report)
        if on_invalid == "raise":
            checked = list(checked)
            if report.rejected:
                raise InvalidEventsError(report.rejected)
        messages = chunks(checked)
        for chunk in messages:
            try:
                self.send(chunk, self.deadline_s)
            except BrokerUnavailableError as error:
                unsent = error.events + [given for later in messages for given in later.given]
                raise BrokerUnavailableError(error.reason, unsent, report) from error.__cause__
            report.sent += len(chunk.events)
            report.messages += 1
        return report

    def buffered(
        self,
        *,
        linger_s: float = 0.2,
        max_events: int = MAX_EVENTS_PER_MESSAGE,
        capacity: int | None = None,
        on_unsent: OnUnsent = log_unsent,
    ) -> Buffer:
        """A buffer that sends in the background, at the latest ``linger_s`` after an event came in.

        It sends as soon as ``max_events`` (1 to 500) wait, and makes ``enqueue`` wait while ``capacity`` (by
        default ten times as many) do. ``on_unsent`` gets what could not be sent when the process ends.
        """
        return Buffer(self, linger_s=linger_s, max_events=max_events, capacity=capacity, on_unsent=on_unsent)

    def queued(self) -> int:
        """How many messages wait for intake, those that a worker has already taken left out.

        Raises BrokerAwayError.
        """
        return self._open_lines().queued()

    def close(self) -> None:
        """Close what is open. The client may be used again, and then opens it again."""
        with self._lock:
            lines, self._lines = self._lines, None
            engines, self._engines = self._engines, None
        if lines is not None:
            lines.close()
        if engines is not None:
            engines.release()

    def __enter__(self) -> Self:
        """Return the client."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close what is open."""
        self.close()

    def check(self, event: Given) -> Checked:
        """Validate one event without sending it. Raises InvalidInputError with every problem found."""
        return check(event, datetime.now(UTC))

    def send(self, chunk: Chunk, deadline_s: float) -> None:
        """Give one message to the broker, trying again for ``deadline_s``. Raises BrokerUnavailableError."""
        deadline = time.monotonic() + deadline_s
        longest = _FIRST_WAIT_S
        while True:
            try:
                return self._open_lines().send(chunk)
            except EngineError as error:
                raise BrokerUnavailableError(str(error), chunk.given) from error
            except BrokerAwayError as error:
                left_s = deadline - time.monotonic()
                if left_s <= 0:
                    raise BrokerUnavailableError(str(error), chunk.given) from error
                # The last try comes at the deadline, and not a long wait before it.
                time.sleep(min(random.uniform(0, longest), left_s))  # noqa: S311 — jitter, not cryptography
                longest = min(longest * 2, _LONGEST_WAIT_S)

    def _sift(self, events: Iterable[Given], report: EnqueueReport) -> Iterator[Checked]:
        for index, event in enumerate(events):
            try:
                yield self.check(event)
            except InvalidInputError as error:
                report.rejected.append(Rejected(index, event, error.problems))

    def _open_lines(self) -> Lines:
        with self._lock:
            if self._lines is None:
                url = self._broker_url
                if url is None:
                    # Held as long as the lines are, so that the embedded broker outlives what it was given.
                    self._engines = use_engines(load_settings().data_dir, postgres=False)
                    url = self._engines.broker_url
                self._lines = Lines(celery_app(url))
            return self._lines

    def _begin(self) -> None:
        self._lock = threading.Lock()
        self._lines = None
        self._engines = None

    def _begin_again_in_child(self) -> None:
        # The parent's sockets are left as they are, referred to and untouched: a goodbye on one of them would
        # end the parent's conversation.
        _parents.append(self._lines)
        self._begin()


_clients: weakref.WeakSet[Holdfire] = weakref.WeakSet()
_parents: list[Lines | None] = []


def _after_fork_in_child() -> None:
    for client in list(_clients):
        client._begin_again_in_child()


os.register_at_fork(after_in_child=_after_fork_in_child)
