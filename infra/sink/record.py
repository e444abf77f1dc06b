"""The record: every request byte for byte, what it was answered and what came of it.

``raw`` is the request's bytes as Latin-1 text, one character a byte, so that ``raw.encode("latin-1")``
gives back exactly what arrived while a reader can still read it. In the file each line is one JSON
object: ``{"kind": "request", …}``, or ``{"kind": "release", …}`` when a held request is let go.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import orjson

from infra.sink.judgement import Judgement
from infra.sink.ledger import iso


@dataclass(slots=True)
class Entry:
    """One request in the record."""

    number: int
    """Counted from 1 over the sink's life (until it is reset)."""
    received_at: float
    peer: str
    connection: int
    on_connection: int
    """The request's number on its connection, from 1."""
    raw: bytes
    profile: str
    behaviour: str
    """The bad behaviour it met, or an empty string."""
    status_code: int | None
    """What was answered; None when no status line was (or will be) sent."""
    answer: bytes
    """The beginning of the answer, up to 2 KiB."""
    judgement: Judgement
    held: bool = False
    released_at: float | None = None

    def as_json(self) -> dict[str, Any]:
        """The entry as the admin endpoint and the record file show it."""
        return {
            "kind": "request",
            "number": self.number,
            "received_at": iso(self.received_at),
            "peer": self.peer,
            "connection": self.connection,
            "on_connection": self.on_connection,
            "raw": self.raw.decode("latin-1"),
            "profile": self.profile,
            "behaviour": self.behaviour,
            "status_code": self.status_code,
            "answer": self.answer.decode("latin-1"),
            "click_id": self.judgement.click_id,
            "order_id": self.judgement.order_id,
            "value": self.judgement.value,
            "credited": self.judgement.credited,
            "reason": self.judgement.reason,
            "repeat": self.judgement.repeat,
            "detail": self.judgement.detail,
            "held": self.held,
            "released_at": iso(self.released_at) if self.released_at is not None else None,
        }


class Record:
    """The latest ``keep`` entries in memory, and all of them appended to a file if there is one."""

    def __init__(self, path: Path | None = None, keep: int = 100_000) -> None:
        self._entries: deque[Entry] = deque(maxlen=keep)
        self._file = path.open("ab") if path else None
        self._unwritten: list[bytes] = []

    def add(self, entry: Entry) -> bool:
        """Keep an entry. True when it is the first that waits for ``flush``."""
        self._entries.append(entry)
        return self._write(entry.as_json()) if self._file else False

    def add_release(self, entry: Entry) -> bool:
        """Note that a held entry was let go. True when it is the first that waits for ``flush``."""
        if not self._file:
            return False
        shown = entry.as_json()
        told = ("number", "released_at", "status_code", "credited", "reason")
        return self._write({"kind": "release", **{name: shown[name] for name in told}})

    def _write(self, line: dict[str, Any]) -> bool:
        self._unwritten.append(orjson.dumps(line, option=orjson.OPT_APPEND_NEWLINE))
        return len(self._unwritten) == 1

    def flush(self) -> None:
        """Write what waits to the file, where a reader sees it at once."""
        if self._file and self._unwritten:
            lines, self._unwritten = self._unwritten, []
            self._file.write(b"".join(lines))
            self._file.flush()

    def since(self, number: int, limit: int) -> Iterator[Entry]:
        """Up to ``limit`` entries numbered above ``number``, oldest first."""
        if not self._entries:
            return iter(())
        start = max(0, number + 1 - self._entries[0].number)
        return islice(self._entries, start, start + limit)

    def clear(self) -> None:
        """Forget the entries in memory; the file keeps what it has."""
        self._entries.clear()

    def close(self) -> None:
        """Flush and close the file."""
        self.flush()
        if self._file:
            self._file.close()
            self._file = None
