"""Reading files of events, a line at a time, so that a file may be larger than memory; and NDJSON, which is the simpler
of the two forms. :mod:`producers.tables` reads CSV.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, field
from typing import Any, Final

import orjson

from infra.delimited import MAX_LINE_BYTES, Stream, is_too_long, too_long
from schemas.problem import Problem

REJECT_KEY: Final = "holdfire"
"""Where a kept reject says what was wrong; whoever feeds the mended line back need not take it out."""


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
