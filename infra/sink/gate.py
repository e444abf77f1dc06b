"""The gate: requests that match are received and recorded, and not answered until they are let go."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field

from infra.sink.answers import Script
from infra.sink.errors import SinkConfigError, require_table
from infra.sink.plan import Match, Sighting, read_match


@dataclass(slots=True)
class Hold:
    """A condition under which requests wait. ``counts``: the network decides on receipt, not at release."""

    match: Match
    limit: int | None = None
    """How many requests to hold in all; None for no limit."""
    counts: bool = True
    _taken: int = 0

    def takes(self, seen: Sighting) -> bool:
        """Whether this request waits."""
        if self.limit is not None and self._taken >= self.limit:
            return False
        if not self.match.takes(seen):
            return False
        self._taken += 1
        return True


def read_hold(value: object) -> Hold:
    """A Hold from a JSON table. Raises SinkConfigError."""
    table = require_table("hold", value, ("match", "limit", "counts"))
    limit, counts = table.get("limit"), table.get("counts", True)
    if limit is not None and (not isinstance(limit, int) or isinstance(limit, bool) or limit < 1):
        raise SinkConfigError("hold.limit", f"is {limit!r}", "Use a whole number from 1 on, or null.")
    if not isinstance(counts, bool):
        raise SinkConfigError("hold.counts", f"is {counts!r}", "Use true or false.")
    return Hold(read_match("hold.match", table.get("match", {})), limit, counts)


@dataclass(slots=True, eq=False)
class Waiting:
    """A request at the gate. ``finish(connected)`` settles it once and gives what is then sent."""

    number: int
    seen: Sighting
    finish: Callable[[bool], Script]
    released: asyncio.Event = field(default_factory=asyncio.Event)
    connected: bool = True
    _settled: bool = False

    def settle(self, connected: bool) -> Script:
        """Settle the request; what to send if the client is still there."""
        if self._settled:
            return ()
        self._settled = True
        return self.finish(connected)

    def client_gone(self) -> None:
        """The client has hung up. One that was let go but not yet answered is settled as such."""
        self.connected = False
        if self.released.is_set():
            self.settle(False)


class Gate:
    """The holds in force and the requests that wait."""

    def __init__(self) -> None:
        self._holds: list[Hold] = []
        self._waiting: list[Waiting] = []

    def hold(self, hold: Hold) -> None:
        """Begin to hold what matches."""
        self._holds.append(hold)

    def takes(self, seen: Sighting) -> Hold | None:
        """The hold under which a request waits, or None."""
        for hold in self._holds:
            if hold.takes(seen):
                return hold
        return None

    def admit(self, waiting: Waiting) -> None:
        """Put a request among those that wait."""
        self._waiting.append(waiting)

    @property
    def is_holding(self) -> bool:
        """Whether any hold is in force."""
        return bool(self._holds)

    @property
    def waiting(self) -> list[Waiting]:
        """Those that wait, oldest first; also those whose client has gone."""
        return list(self._waiting)

    def release(self, click_id: str = "") -> int:
        """Let go those with ``click_id``, or all, ending every hold. Returns how many were let go."""
        if not click_id:
            self._holds.clear()
        freed = [one for one in self._waiting if not click_id or one.seen.click_id == click_id]
        self._waiting = [one for one in self._waiting if one not in freed]
        for one in freed:
            one.released.set()
            if not one.connected:
                # Nobody waits on the connection any more, so the outcome is settled here.
                one.settle(False)
        return len(freed)
