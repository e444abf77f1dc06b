"""Reading CSV: records of any dialect, each turned into an event by a mapping, and kept so that it can be fed back."""

from __future__ import annotations

import csv
import io
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import replace
from typing import Final

import orjson

from infra.delimited import Record, Records, Stream
from producers.imports import Line
from producers.mapping import LINE_COLUMN, REASON_COLUMN, ColumnMap, Columns
from schemas.problem import Problem

REMEMBERED_IDS: Final = 100_000


class Table:
    """One file of CSV being read. Its header is read at once; then iterate over it."""

    def __init__(self, stream: Stream, mapping: ColumnMap) -> None:
        """Raises MappingError where the header and the mapping do not go together."""
        self.mapping = mapping
        self._records = Records(stream, encoding=mapping.encoding, delimiter=mapping.delimiter)
        self.delimiter, self.header = self._records.delimiter, self._records.header
        self._columns = Columns(mapping, [name.strip() for name in self.header])
        self._kept = [
            place
            for place, name in enumerate(self.header)
            if name.strip() not in {LINE_COLUMN, REASON_COLUMN}
        ]
        self._seen: OrderedDict[tuple[str, str], tuple[int, int]] = OrderedDict()

    def __iter__(self) -> Iterator[Line]:
        """Every record but the empty ones, with its event or what is wrong with it. Raises nothing of its own."""
        for record in self._records:
            yield self._map(record)

    def unconfirmed_header(self) -> bytes:
        """What a file of this one's records has to begin with."""
        return self._written(self.header)

    def rejects_header(self) -> bytes:
        """The file's own columns, then the line and the reason."""
        return self._written([*(self.header[place] for place in self._kept), LINE_COLUMN, REASON_COLUMN])

    def reject(self, line: Line, problems: list[Problem]) -> bytes:
        """A bad record with its line and reason. One that could not be split has no cells: it stands in the reason."""
        reason = " | ".join(map(str, problems))
        if line.cells is None:
            text = line.raw.decode(self.mapping.encoding, "backslashreplace")
            return self._written([*("" for _ in self._kept), str(line.number), f"{reason} | It was: {text}"])
        return self._written([*(line.cells[place] for place in self._kept), str(line.number), reason])

    def _map(self, record: Record) -> Line:
        line = Line(record.number, record.end, record.raw)
        if record.cells is None:
            assert record.problem is not None
            return replace(line, problems=[record.problem])
        cells = record.cells
        if not any(cells[place].strip() for place in self._kept):
            reason = "has no cells but line and reason, as it was kept"
            return replace(
                line,
                problems=[Problem("malformed", "line", reason, "Write the mended record into its cells")],
            )
        event, problems = self._columns.read(cells)
        if not problems and (problem := self._repeats(line.number, event)):
            problems = [problem]
        return replace(line, event=event, problems=problems, cells=cells)

    def _repeats(self, number: int, event: dict[str, object]) -> Problem | None:
        """Whether a nearby row had the same event_id and said something else: intake would take only the first."""
        key = str(event.get("source")), str(event.get("event_id"))
        said = hash(orjson.dumps(event, default=str, option=orjson.OPT_SORT_KEYS))
        first, before = self._seen.setdefault(key, (number, said))
        if len(self._seen) > REMEMBERED_IDS:
            self._seen.popitem(last=False)
        if before == said:
            return None
        return Problem(
            "repeated_event_id",
            "event_id",
            f"{key[1]!r} is that of line {first} too, which says something else, and one id is taken once",
            "Name with --id the columns that tell the rows apart, or sum up the lines of an order",
        )

    def _written(self, cells: list[str]) -> bytes:
        """One record, quoted as need be, without its line end."""
        out = io.StringIO(newline="")
        # The writer quotes a line end in a cell only if the character is one of its own line's end.
        csv.writer(out, delimiter=self.delimiter, lineterminator="\r\n").writerow(cells)
        encoding = (
            "utf-8"
            if self.mapping.encoding.lower().replace("_", "-") == "utf-8-sig"
            else self.mapping.encoding
        )
        return out.getvalue().removesuffix("\r\n").encode(encoding, "backslashreplace")
