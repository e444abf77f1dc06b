"""What an enqueue comes to: the report, and the two errors that hold on to the events."""

from __future__ import annotations

from dataclasses import dataclass, field

from infra.broker import BrokerAwayError
from producers.message import Given
from schemas.problem import Problem


@dataclass(frozen=True, slots=True)
class Rejected:
    """An event that was not sent, because it is not one: its place in what was given (from 0), and why."""

    index: int
    event: object
    problems: list[Problem]


@dataclass(slots=True)
class EnqueueReport:
    """What became of one ``enqueue_many``: events and messages the broker took, and what was not sent."""

    sent: int = 0
    messages: int = 0
    rejected: list[Rejected] = field(default_factory=list)


class BrokerUnavailableError(BrokerAwayError):
    """The broker stayed away past the deadline. ``events`` are the valid ones it did not take, as given.

    Send them again whenever you like, here or elsewhere: intake takes each ``(source, event_id)`` once, so it
    does no harm if the broker had taken one after all. ``report`` says what went before.
    """

    def __init__(self, reason: str, events: list[Given], report: EnqueueReport | None = None) -> None:
        """``reason`` is the last thing the broker said."""
        self.reason = reason
        self.events = events
        self.report = report or EnqueueReport()
        super().__init__(
            f"{len(events)} event(s) not sent: {reason}. They are in this error's .events: enqueue them again "
            "once the broker is back"
        )


class InvalidEventsError(ValueError):
    """``enqueue_many(on_invalid="raise")`` found events that cannot be sent, so it sent none."""

    def __init__(self, rejected: list[Rejected]) -> None:
        """``rejected`` holds at least one."""
        self.rejected = rejected
        first = rejected[0]
        said = "; ".join(str(problem) for problem in first.problems)
        super().__init__(
            f"{len(rejected)} invalid event(s), none sent; the first is number {first.index}: {said}"
        )
