"""Sending a file of events: read, send, check, and keep what did not get in. No terminal, no exit codes."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import IO, Final, Self

from producers.client import Holdfire
from producers.confirming import MAX_PENDING, Confirmation
from producers.imports import Line, ndjson_reject
from producers.outcome import BrokerUnavailableError
from schemas.problem import Problem

LINES_PER_BATCH: Final = 5_000


@dataclass(slots=True)
class Tally:
    """How the lines of a file were split: lines = sent + rejected + unsent."""

    lines: int = 0
    read_bytes: int = 0
    sent: int = 0
    rejected: int = 0
    unsent: int = 0
    broker_away: str | None = None
    """The last thing the broker said, once it stayed away past the deadline."""


class KeptLines:
    """A file that is made when the first line is put into it. A context manager."""

    def __init__(self, path: Path, header: bytes | None = None) -> None:
        """``path`` is overwritten, but only if there is something to write; then it begins with ``header``."""
        self.path = path
        self._header = header
        self.count = 0
        self._stack = ExitStack()
        self._file: IO[bytes] | None = None

    def put(self, line: bytes) -> None:
        """Add one line, without its line end."""
        if self._file is None:
            self._file = self._stack.enter_context(self.path.open("wb"))
            if self._header is not None:
                self._file.write(self._header + b"\n")
        self._file.write(line + b"\n")
        self.count += 1

    def flush(self) -> None:
        """Have everything in the file, so that a killed process takes none of it with it."""
        if self._file is not None:
            self._file.flush()

    def __enter__(self) -> Self:
        """Return the file."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the file, if it was made."""
        self._stack.close()


class FileSending:
    """One file on its way: every line ends up sent, in the rejects, or among the unconfirmed.

    Once the broker has stayed away past the deadline, the rest of the file is not tried but kept; once intake
    has committed nothing for as long as the check is patient, the rest is sent and kept as unconfirmed.
    """

    def __init__(  # noqa: PLR0913 — two files and three ways to tell about lines, all by name
        self,
        client: Holdfire,
        *,
        rejects: KeptLines,
        unconfirmed: KeptLines,
        on_reject: Callable[[Line, list[Problem]], None],
        on_progress: Callable[[], None],
        as_reject: Callable[[Line, list[Problem]], bytes] = ndjson_reject,
    ) -> None:
        """``on_reject`` gets each bad line, ``on_progress`` is called whenever a count has changed; ``as_reject``
        writes a bad line so that it can be mended and fed back.
        """
        self.tally = Tally()
        self.confirmation: Confirmation | None = None
        """Set to have what is sent checked."""
        self.check_gave_up = False
        self._client = client
        self._rejects = rejects
        self._unconfirmed = unconfirmed
        self._on_reject = on_reject
        self._on_progress = on_progress
        self._as_reject = as_reject

    def take(self, lines: list[Line]) -> None:
        """Send the next lines of the file; waits for intake when too many await their check."""
        sent = self._send_valid(lines)
        self._on_progress()
        if self.confirmation is None:
            return
        self.confirmation.add(sent)
        if self.check_gave_up:
            self._keep(self.confirmation.give_up())
        elif len(self.confirmation.pending) > MAX_PENDING:
            self._confirm(until_pending=MAX_PENDING // 2)

    def settled_before(self) -> int | None:
        """The first line that is neither committed nor kept in a file; None if there is none.

        What is kept is in its file from here on, whatever becomes of this process.
        """
        self._rejects.flush()
        self._unconfirmed.flush()
        pending = self.confirmation.pending.values() if self.confirmation is not None else ()
        return min((line.number for line in pending), default=None)

    def finish(self) -> None:
        """Wait for the commit of what was sent, and keep what is not known to be committed."""
        if self.confirmation is not None and not self.check_gave_up:
            self._confirm(until_pending=0)

    def send_again(self, lines: list[Line]) -> None:
        """Send lines once more; what the broker does not take stays pending."""
        try:
            self._client.enqueue_many(line.event for line in lines)
        except BrokerUnavailableError as error:
            self.tally.broker_away = error.reason

    def _confirm(self, *, until_pending: int) -> None:
        assert self.confirmation is not None
        if not self.confirmation.wait(until_pending=until_pending, on_progress=self._on_progress):
            self.check_gave_up = True
            self._keep(self.confirmation.give_up())

    def _send_valid(self, lines: list[Line]) -> list[Line]:
        """Send what can be sent; returns the lines that the broker took."""
        self.tally.lines += len(lines)
        self.tally.read_bytes = lines[-1].end
        readable = [line for line in lines if not line.problems]
        bad = [(line, line.problems) for line in lines if line.problems]
        # Once the broker is given up, a deadline for every further message would take hours.
        if self.tally.broker_away is not None:
            self._keep(readable)
            self.tally.unsent += len(readable)
            self._reject(bad)
            return []
        unsent: set[int] = set()
        try:
            report = self._client.enqueue_many(line.event for line in readable)
        except BrokerUnavailableError as error:
            report = error.report
            self.tally.broker_away = error.reason
            unsent = {id(event) for event in error.events}
        refused = {rejected.index: rejected.problems for rejected in report.rejected}
        self._reject(bad + [(readable[index], problems) for index, problems in refused.items()])
        valid = [line for index, line in enumerate(readable) if index not in refused]
        self._keep([line for line in valid if id(line.event) in unsent])
        self.tally.sent += report.sent
        self.tally.unsent += len(unsent)
        return [line for line in valid if id(line.event) not in unsent]

    def _reject(self, bad: list[tuple[Line, list[Problem]]]) -> None:
        for line, problems in sorted(bad, key=lambda each: each[0].number):
            self.tally.rejected += 1
            self._rejects.put(self._as_reject(line, problems))
            self._on_reject(line, problems)

    def _keep(self, lines: list[Line]) -> None:
        for line in lines:
            self._unconfirmed.put(line.raw)
