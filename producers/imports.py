"""Reading files of events: NDJSON, a line at a time, so that a file may be larger than memory."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import IO, Any, Final

import orjson

from schemas.problem import Problem

MAX_LINE_BYTES: Final = 1_000_000
"""Far above the largest sensible event; a file without line ends must not be read into memory."""


@dataclass(frozen=True, slots=True)
class Line:
    """One line of a file: its number (from 1), the offset at which it ends, its bytes without the line end, and
    what it says or why that cannot be read.
    """

    number: int
    end: int
    raw: bytes
    event: Any = None
    problem: Problem | None = None


def read_ndjson(source: IO[bytes]) -> Iterator[Line]:
    """Read one JSON value a line. Empty lines are skipped, unreadable ones come with their problem.

    A line that is too long comes as its first ``MAX_LINE_BYTES`` bytes.
    """
    number = end = 0
    while raw := source.readline(MAX_LINE_BYTES + 1):
        number += 1
        end += len(raw)
        too_long = len(raw) > MAX_LINE_BYTES and not raw.endswith(b"\n")
        if too_long:
            end += _skip_line(source)
        # A byte order mark is what Windows programs begin a UTF-8 file with.
        raw = (raw.removeprefix(b"\xef\xbb\xbf") if number == 1 else raw).rstrip(b"\r\n")
        if too_long:
            reason, remedy = f"is longer than {MAX_LINE_BYTES} bytes", "Write one event a line"
            problem = Problem("too_long", "line", reason, remedy)
            yield Line(number, end, raw[:MAX_LINE_BYTES], problem=problem)
        elif raw.strip():
            yield _read_line(number, end, raw)


def _read_line(number: int, end: int, raw: bytes) -> Line:
    try:
        return Line(number, end, raw, orjson.loads(raw))
    except orjson.JSONDecodeError as error:
        problem = Problem(
            "malformed", "line", f"is not JSON: {error}", "Write one JSON object a line, in UTF-8"
        )
        return Line(number, end, raw, problem=problem)


def _skip_line(source: IO[bytes]) -> int:
    """Read to the line's end; returns how many bytes that was."""
    skipped = 0
    while rest := source.readline(MAX_LINE_BYTES):
        skipped += len(rest)
        if rest.endswith(b"\n"):
            break
    return skipped


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
