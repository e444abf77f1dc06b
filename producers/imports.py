"""Reading files of events, a line at a time, so that a file may be larger than memory; and NDJSON, which is the simpler
of the two forms. :mod:`producers.tables` reads CSV.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, field
from typing import IO, Any, Final

import orjson

from schemas.problem import Problem

MAX_LINE_BYTES: Final = 1_000_000
"""Far above the largest sensible event; a file without line ends must not be read into memory."""
REJECT_KEY: Final = "holdfire"
"""Where a kept reject says what was wrong; whoever feeds the mended line back need not take it out."""
_SKIP_BYTES: Final = 1 << 20


@dataclass(frozen=True, slots=True)
class Line:
    """One line of a file: its number (from 1), the offset at which it ends, its bytes without the line end, and
    what it says or why that cannot be read.

    In CSV a quoted cell may hold line ends: there it is one record, numbered by its first line.
    """

    number: int
    end: int
    raw: bytes
    event: Any = None
    problems: list[Problem] = field(default_factory=list)
    cells: tuple[str, ...] | None = None
    """The cells of a record of CSV that could be split into as many as there are columns."""


class Stream:
    """The bytes of a file, read forward once. Knows how much of it was passed, and the digest of that."""

    def __init__(self, source: IO[bytes]) -> None:
        """``source`` stands at its beginning."""
        self.offset = 0
        self.number = 0
        self._source = source
        self._digest = hashlib.sha256()

    @property
    def digest(self) -> str:
        """SHA-256 of everything passed, in hex."""
        return self._digest.hexdigest()

    def readline(self) -> bytes:
        """The next line with its line end, or the first ``MAX_LINE_BYTES + 1`` bytes of one that is longer; empty at
        the end. It does not count as passed yet.
        """
        return self._source.readline(MAX_LINE_BYTES + 1)

    def passed(self, line: bytes) -> None:
        """Count a line that was read. One that is too long is read to its end."""
        self._count(line)
        self.number += 1
        while is_too_long(line):
            line = self._source.readline(MAX_LINE_BYTES + 1)
            self._count(line)

    def skip_to(self, offset: int, number: int) -> bool:
        """Pass everything up to ``offset``, after which ``number`` lines were passed. False: the file ends before."""
        while self.offset < offset:
            part = self._source.read(min(offset - self.offset, _SKIP_BYTES))
            if not part:
                return False
            self._count(part)
        self.number = number
        return self.offset == offset

    def _count(self, part: bytes) -> None:
        self.offset += len(part)
        self._digest.update(part)


def is_too_long(line: bytes) -> bool:
    """Whether ``readline`` gave the beginning of a line only."""
    return len(line) > MAX_LINE_BYTES and not line.endswith(b"\n")


def too_long() -> Problem:
    """What is wrong with a line beyond the limit."""
    return Problem(
        "too_long", "line", f"is longer than {MAX_LINE_BYTES} bytes", "Write one event a line, with line ends"
    )


def read_ndjson(stream: Stream) -> Iterator[Line]:
    """Read one JSON value a line. Empty lines are skipped, unreadable ones come with their problem.

    A line that is too long comes as its first ``MAX_LINE_BYTES`` bytes. What ``ndjson_reject`` kept is read as the
    line that it was, or was mended to.
    """
    while given := stream.readline():
        stream.passed(given)
        number, end = stream.number, stream.offset
        # A byte order mark is what Windows programs begin a UTF-8 file with.
        raw = (given.removeprefix(b"\xef\xbb\xbf") if number == 1 else given).rstrip(b"\r\n")
        if is_too_long(given):
            yield Line(number, end, raw[:MAX_LINE_BYTES], problems=[too_long()])
        elif raw.strip():
            yield _read_line(number, end, raw)


def _read_line(number: int, end: int, raw: bytes) -> Line:
    try:
        event = orjson.loads(raw)
        if _is_reject(event):
            said = event.pop(REJECT_KEY)
            raw = orjson.dumps(event) if event else said.get("raw", "").encode()
            event = event or orjson.loads(raw)
        return Line(number, end, raw, event)
    except orjson.JSONDecodeError as error:
        problem = Problem(
            "malformed", "line", f"is not JSON: {error}", "Write one JSON object a line, in UTF-8"
        )
        return Line(number, end, raw, problems=[problem])


def _is_reject(event: object) -> bool:
    said = event.get(REJECT_KEY) if isinstance(event, dict) else None
    return isinstance(said, dict) and "line" in said and isinstance(said.get("raw", ""), str)


def ndjson_reject(line: Line, problems: list[Problem]) -> bytes:
    """A bad line to keep: an object stays as it was, with what is wrong in front of it, so that it can be mended in
    place and fed back; anything else stands under ``raw``.
    """
    said: dict[str, Any] = {"line": line.number, "problems": [asdict(one) for one in problems]}
    raw = line.raw.strip()
    if isinstance(line.event, dict) and line.event:
        # Spliced, not dumped anew: the sender's own numbers and order are what has to be looked at.
        return b'{"%s":%s,%s' % (REJECT_KEY.encode(), orjson.dumps(said), raw[1:].lstrip())
    said["raw"] = raw.decode("utf-8", "backslashreplace")
    return orjson.dumps({REJECT_KEY: said})


def batched(lines: Iterable[Line], size: int) -> Iterator[list[Line]]:
    """Group lines into lists of ``size``; the last one may be shorter."""
    batch: list[Line] = []
    for line in lines:
        batch.append(line)
        if len(batch) == size:
            yield batch
            batch = []
    if batch:
        yield batch
