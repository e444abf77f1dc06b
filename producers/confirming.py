"""Checking that what was sent was committed, and sending again what was not.

Between the broker and intake's commit an event is as durable as the broker. Who has the events in a file need
not trust that: they ask the database for each key, and a key that does not come goes to the queue once more.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from itertools import islice
from typing import Final, Protocol

from producers.imports import Line

Key = tuple[str, str]
"""``(source, event_id)``."""

KEYS_PER_CHECK: Final = 5_000
MAX_PENDING: Final = 20_000
"""Sent events that may await their check before sending waits for intake: what bounds memory."""

_FIRST_RESEND_S: Final = 5.0
_FIRST_POLL_S: Final = 0.05
_LONGEST_POLL_S: Final = 1.0


class Committed(Protocol):
    """Which of these events the database has. Says none, rather than raise, while it cannot be asked."""

    def __call__(self, keys: list[Key]) -> set[Key]: ...


class Confirmation:
    """The sent events whose commit has not been seen yet."""

    def __init__(
        self,
        committed: Committed,
        *,
        resend: Callable[[list[Line]], None],
        queued: Callable[[], int],
        patience_s: float,
        resend_after_s: float = _FIRST_RESEND_S,
    ) -> None:
        """``queued`` says how many messages wait in the queue; ``patience_s`` how long to wait for the next
        event to be committed, counted from the last one that was, before giving up.
        """
        self.confirmed = 0
        self.resent = 0
        self.pending: dict[Key, Line] = {}
        self._committed = committed
        self._resend = resend
        self._queued = queued
        self._patience_s = patience_s
        self._resend_after_s = resend_after_s

    def add(self, lines: list[Line]) -> None:
        """Take lines that were sent. A key that comes twice is one event, as it is for intake."""
        for line in lines:
            key = line.event["source"], line.event["event_id"]
            # One that is overwritten is confirmed with the other: the later look finds the key for both.
            self.confirmed += key in self.pending
            self.pending[key] = line

    def look(self) -> int:
        """Ask once for all that is pending; returns how many of them are now known to be committed."""
        found = 0
        for keys in _parts(list(self.pending)):
            for key in self._committed(keys):
                found += self.pending.pop(key, None) is not None
        self.confirmed += found
        return found

    def wait(self, *, until_pending: int = 0, on_progress: Callable[[], None] = lambda: None) -> bool:
        """Look until at most ``until_pending`` are pending. False: patience ended first.

        What makes no progress while the queue is empty was lost on its way, so it is sent again, after 5 s, 10 s,
        20 s…; while the queue is not empty, intake is merely behind or not running.
        """
        last_progress = time.monotonic()
        resend_at, resend_in_s = last_progress + self._resend_after_s, self._resend_after_s
        poll_s = _FIRST_POLL_S
        while len(self.pending) > until_pending:
            found = self.look()
            on_progress()
            now = time.monotonic()
            if found:
                last_progress, poll_s = now, _FIRST_POLL_S
                resend_at = now + resend_in_s
            elif now >= last_progress + self._patience_s:
                return False
            elif now >= resend_at and self._queued() == 0:
                self._send_again()
                resend_in_s *= 2
                resend_at = time.monotonic() + resend_in_s
            time.sleep(poll_s)
            poll_s = min(poll_s * 1.5, _LONGEST_POLL_S)
        return True

    def give_up(self) -> list[Line]:
        """The lines that are still pending, which are then no longer."""
        lines, self.pending = list(self.pending.values()), {}
        return lines

    def _send_again(self) -> None:
        lines = list(self.pending.values())
        self._resend(lines)
        self.resent += len(lines)


def _parts(keys: list[Key]) -> Iterator[list[Key]]:
    rest = iter(keys)
    while part := list(islice(rest, KEYS_PER_CHECK)):
        yield part
