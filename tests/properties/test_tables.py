"""Laws of reading CSV: whatever the bytes, nothing is raised, nothing is lost, and no event is taken by half."""

from __future__ import annotations

import csv
import io

from hypothesis import given
from hypothesis import strategies as st

from infra.delimited import Stream
from producers.imports import batched, ndjson_reject, read_ndjson
from producers.mapping import ColumnMap, load_map, parse_columns
from producers.tables import Table
from schemas.cells import MappingError

HEADER = "Order,Total,When,Note"
COLUMNS = [
    "order_id=Order,value=Total,occurred_at=When,params.note=Note,source='shop',name='purchase',currency='EUR'"
]

pieces = st.sampled_from(
    ['"', '""', ",", ";", "\n", "\r\n", "\r", "\0", "1", "49.90", "1,234", "=1+1", "2026-01-15T10:00:00Z", "é", "\ufeff",
     "a", " ", "\x85", "\u2028", "\ud7ff", "9" * 30, "0001-01-01T00:00:00+23:59", "-"]
)  # fmt: skip
noise = st.lists(pieces, max_size=60).map("".join).map(lambda text: text.encode("utf-8", "surrogatepass"))
contents = st.one_of(
    noise, st.binary(max_size=300), st.lists(st.one_of(noise, st.binary(max_size=9))).map(b"".join)
)
mappings = st.builds(
    lambda options: load_map(None, parse_columns(COLUMNS) | options),
    st.fixed_dictionaries(
        {},
        optional={
            "delimiter": st.sampled_from([",", ";", "\t"]),
            "encoding": st.sampled_from(["utf-8", "utf-8-sig", "cp1252", "latin-1", "shift_jis"]),
            "thousands": st.sampled_from([",", " ", "'"]),
            "timezone": st.sampled_from(["Europe/Berlin", "Pacific/Kiritimati", "UTC"]),
            "date_format": st.sampled_from(["%d.%m.%Y", "epoch_s", "epoch_ms", "%Y-%m-%dT%H:%M:%S%z"]),
            "id": st.just(("Order", "Note")),
        },
    ),
)


@given(contents, mappings)
def test_whatever_the_bytes_every_line_is_an_event_or_has_its_problems(
    content: bytes, mapping: ColumnMap
) -> None:
    """Nothing is raised, every byte is passed, every record that holds anything comes out, with an id if it is taken."""
    data = HEADER.encode() + b"\n" + content
    stream = Stream(io.BytesIO(data))
    try:
        table = Table(stream, mapping)
    except MappingError:
        return  # a header that is one column under the delimiter
    ends, kept = [], []
    for line in table:
        assert line.problems or line.event["event_id"]
        assert all(problem.reason and problem.remedy and problem.field for problem in line.problems)
        kept.append(table.reject(line, line.problems))
        ends.append(line.end)
    assert stream.offset == len(data)
    assert ends == sorted(set(ends))
    assert stream.number == data.count(b"\n") + (not data.endswith(b"\n"))


@given(contents, mappings)
def test_what_was_kept_is_refused_again_until_it_is_mended(content: bytes, mapping: ColumnMap) -> None:
    """A file of rejects fed back as it is takes in nothing, and loses nothing: each record is kept again."""
    try:
        table = Table(Stream(io.BytesIO(HEADER.encode() + b"\n" + content)), mapping)
    except MappingError:
        return
    bad = [line for line in table if line.problems and line.problems[0].code != "repeated_event_id"]
    kept = b"\n".join([table.rejects_header(), *(table.reject(line, line.problems) for line in bad), b""])
    again = list(Table(Stream(io.BytesIO(kept)), mapping.model_copy(update={"delimiter": table.delimiter})))
    assert len(again) == len(bad)
    assert [line.number for line in again if not line.problems] == []


cell = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=20)


@given(
    st.lists(st.tuples(cell, cell), max_size=10), st.sampled_from(",;\t|"), st.sampled_from(["\n", "\r\n"])
)
def test_cells_come_out_as_they_were_written(rows: list[tuple[str, str]], delimiter: str, end: str) -> None:
    """What a spreadsheet's CSV says is read to the letter, but for white space around it, and blank records."""
    out = io.StringIO(newline="")
    writer = csv.writer(out, delimiter=delimiter, lineterminator=end, quoting=csv.QUOTE_ALL)
    writer.writerow(["a", "b", "event_id", "source", "occurred_at"])
    for number, row in enumerate(rows):
        writer.writerow([*row, str(number), "shop", "2026-01-15T10:00:00Z"])
    mapping = load_map(
        None, parse_columns(["params.a=a,params.b=b,event_id=event_id,source=source,occurred_at=occurred_at"])
    )
    read = list(Table(Stream(io.BytesIO(out.getvalue().encode())), mapping))
    assert [line.problems for line in read] == [[] for _ in rows]
    assert [
        (line.event.get("params", {}).get("a", ""), line.event.get("params", {}).get("b", ""))
        for line in read
    ] == [(one.strip(), other.strip()) for one, other in rows]


@given(contents)
def test_any_bytes_are_lines_of_ndjson_and_can_be_kept(content: bytes) -> None:
    """Nothing is raised, and a reject that is fed back comes out as the line it was."""
    lines = [line for batch in batched(read_ndjson(Stream(io.BytesIO(content))), 3) for line in batch]
    kept = b"\n".join(ndjson_reject(line, line.problems) for line in lines)
    again = list(read_ndjson(Stream(io.BytesIO(kept))))
    assert [line.event for line in again] == [line.event for line in lines]
