"""Who calls, and what they may send."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from schemas.event import ConversionEvent, Event
from schemas.problem import Problem


@dataclass(frozen=True, slots=True)
class Caller:
    """The API key a request came with. Empty ``sources`` or ``events`` mean any."""

    key_id: int
    name: str
    sources: frozenset[str] = frozenset()
    events: frozenset[str] = frozenset()

    def may_not(self, event: Event) -> Problem | None:
        """Why this caller may not send the event, or None if it may."""
        if self.sources and event.source not in self.sources:
            return Problem(
                "not_allowed",
                "source",
                f"{event.source!r} is not one that the key {self.name!r} may send for",
                f"Use {', '.join(sorted(self.sources))}, or a key for that source",
            )
        name = event.name if isinstance(event, ConversionEvent) else event.type
        if self.events and name not in self.events:
            return Problem(
                "not_allowed",
                "name" if isinstance(event, ConversionEvent) else "type",
                f"{name!r} is not one that the key {self.name!r} may send",
                f"Use {', '.join(sorted(self.events))}, or a key for that event",
            )
        return None


class Gatekeeper(Protocol):
    """Tells callers by their credentials."""

    def start(self) -> None:
        """Called once, before the first request, off the event loop."""
        ...

    def close(self) -> None:
        """Called once, after the last request."""
        ...

    def admit(self, headers: dict[bytes, bytes], body: bytes) -> Caller:
        """Who sent this. Called on the event loop at every request, so it must take microseconds.

        Header names are in lower case, ``body`` as it came. Raises RefusedError: 401 without credentials or with wrong
        ones, 429 when it is too much, 503 when there is no telling.
        """
        ...


class Anyone:
    """Lets everyone in: for a door that only this machine can reach."""

    def start(self) -> None:
        """Nothing to prepare."""

    def close(self) -> None:
        """Nothing to end."""

    def admit(self, headers: dict[bytes, bytes], body: bytes) -> Caller:
        return Caller(0, "anyone")
