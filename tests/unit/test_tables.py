"""Reading CSV: every dialect that exports come in, and what is said about a line that cannot be taken."""

from __future__ import annotations

import io
import re
from typing import Any

import pytest

from infra.delimited import Stream
from producers.imports import Line
from producers.mapping import ColumnMap, load_map, parse_columns
from producers.tables import Table
from schemas.cells import MappingError

COLUMNS = "order_id=Order,value=Total,occurred_at=When,source='shop',name='purchase',currency='EUR'"
HEADER = "Order,Total,When"
WHEN = "2026-01-15T10:00:00Z"


def table(content: str | bytes, columns: str = COLUMNS, **options: Any) -> Table:
    """A table of this content, read with these columns and options."""
    data = content if isinstance(content, bytes) else content.encode()
    return Table(Stream(io.BytesIO(data)), load_map(None, parse_columns([columns]) | options))


def read(content: str | bytes, columns: str = COLUMNS, **options: Any) -> list[Line]:
    """All its records."""
    return list(table(content, columns, **options))


def only_event(content: str | bytes, columns: str = COLUMNS, **options: Any) -> dict[str, Any]:
    """The event of its one good record."""
    (line,) = read(content, columns, **options)
    assert line.problems == []
    event: dict[str, Any] = line.event
    return event


def codes(lines: list[Line]) -> list[list[str]]:
    """The codes of what is wrong with each record."""
    return [[problem.code for problem in line.problems] for line in lines]


def test_a_row_becomes_an_event() -> None:
    """Columns, constants, and an event_id made of the order."""
    assert only_event(f"{HEADER}\n1001,49.90,{WHEN}\n") == {
        "version": 1, "type": "conversion", "event_id": "purchase:1001", "source": "shop", "name": "purchase",
        "order_id": "1001", "value": "49.90", "currency": "EUR", "occurred_at": "2026-01-15T10:00:00+00:00",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("written", "options"),
    [
        ('Order;Total;When\n1001;"1.234,50";15.01.2026 11:00\n', {"decimal": ",", "thousands": "."}),
        ("sep=;\r\nOrder;Total;When\r\n1001;1234,50;15.01.2026 11:00\r\n", {"decimal": ","}),
        ("Order\tTotal\tWhen\n1001\t1 234,50\t15.01.2026 11:00", {"decimal": ",", "thousands": " "}),
        ("Order|Total|When\n\n;;\n1001|1234.50|15.01.2026 11:00|\n".replace(";;\n", "||\n"), {}),
        ("\ufeffOrder,Total,When\n1001,1234.50,15.01.2026 11:00\n", {}),
        ('"Order","Total","When"\n"1001","1,234.50","15.01.2026 11:00"\n', {"thousands": ","}),
    ],
)
def test_the_dialects_of_spreadsheets_say_the_same(written: str, options: dict[str, str]) -> None:
    """Delimiters, byte order marks, line ends, decimal commas, empty lines and local times."""
    event = only_event(written, timezone="Europe/Berlin", date_format="%d.%m.%Y %H:%M", **options)
    assert (event["order_id"], event["value"], event["occurred_at"]) == (
        "1001", "1234.50", "2026-01-15T10:00:00+00:00",
    )  # fmt: skip


def test_an_encoding_is_named_or_the_line_is_refused() -> None:
    """cp1252 is read when it is said; under UTF-8 the line that is not names the option."""
    written = f"{HEADER},Näme\n1001,49.90,{WHEN},Zürich\n".encode("cp1252")
    event = only_event(written, COLUMNS + ",params.city=Näme", encoding="cp1252")
    assert event["params"] == {"city": "Zürich"}
    plain = written.replace("Näme".encode("cp1252"), b"City")
    (line,) = read(plain, COLUMNS + ",params.city=City")
    assert "byte 0xfc" in str(line.problems[0])
    assert "--encoding" in str(line.problems[0])


def test_click_ids_signals_and_mixed_files_are_columns_too() -> None:
    """A type per row; what is the same in all rows is left out where the type does not have it."""
    columns = (
        "type=Kind,order_id=Order,value=Total,amount=Back,occurred_at=When,click_ids.xandr=SSPDATA,source='shop',"
        "name='purchase',currency='EUR'"
    )
    written = f"Kind,Order,Total,Back,When,SSPDATA\nsale,1,9.90,,{WHEN},abc\nreturn,1,,9.90,{WHEN},\n"
    sale, back = read(
        written, columns, id=["Kind", "Order"], values={"type": {"sale": "conversion", "return": "refund"}}
    )
    assert (sale.problems, back.problems) == ([], [])
    assert sale.event["click_ids"] == {"xandr": "abc"}
    assert (back.event["type"], back.event["amount"], "name" in back.event) == ("refund", "9.90", False)
    assert (sale.event["event_id"], back.event["event_id"]) == ("purchase:sale:1", "refund:return:1")


def test_a_quoted_cell_may_hold_lines_and_the_next_record_keeps_its_number() -> None:
    """A record is numbered by its first line, as an editor shows it."""
    first, second = read(
        f'{HEADER},Note\n1,1.00,{WHEN},"two\r\nlines"\n2,2.00,{WHEN},x\n', COLUMNS + ",params.n=Note"
    )
    assert (first.number, first.event["params"]["n"], second.number) == (2, "two\r\nlines", 4)


def test_formulas_are_text() -> None:
    """Nothing is computed, and nothing is taken away."""
    assert (
        only_event(f"{HEADER},Note\n=1+1,1.00,{WHEN},@x\n", COLUMNS + ",params.n=Note")["order_id"] == "=1+1"
    )


@pytest.mark.parametrize(
    ("row", "code", "said"),
    [
        (f'"12 TV,1.00,{WHEN}', "malformed", "never closed"),
        (f'"12" TV,1.00,{WHEN}', "malformed", "quotes that do not fit"),
        (f"1\0,1.00,{WHEN}", "malformed", "NUL"),
        (f"1,1.00\r,{WHEN}", "malformed", "carriage return"),
        (f"1,1,00,{WHEN}", "columns", "4 cells where the header has 3"),
        ("1,1.00", "columns", "2 cells where the header has 3"),
        (f"1,-1.00,{WHEN}", "money_shape", "value: '-1.00' is no amount such as 1234.50"),
        (f'1,"1,00",{WHEN}', "money_shape", "--decimal"),
        ("1,1.00,2026-01-15 10:00", "timezone_aware", "--timezone"),
        ("1,1.00,2026-01-15", "instant_shape", "--date-format"),
        ("1,1.00,yesterday", "instant_shape", "'yesterday' is not written like"),
        (f",1.00,{WHEN}", "no_event_id", "'Order', which is empty"),
    ],
)
def test_a_bad_line_is_named_and_its_neighbours_are_taken(row: str, code: str, said: str) -> None:
    """Number, field, reason and remedy; the lines before and after go in."""
    before, bad, after = read(f"{HEADER}\n0,1.00,{WHEN}\n{row}\n9,1.00,{WHEN}\n")
    assert (before.problems, after.problems) == ([], [])
    assert (bad.number, bad.problems[0].code) == (3, code)
    assert said in str(bad.problems[0])


def test_an_hour_that_did_not_exist_is_refused() -> None:
    """Clocks were put forward; nobody bought anything then."""
    (line,) = read(f"{HEADER}\n1,1.00,2026-03-29 02:30\n", timezone="Europe/Berlin")
    assert "does not exist in Europe/Berlin" in str(line.problems[0])


def test_two_rows_with_one_id_are_not_taken_for_one() -> None:
    """The lines of an order would come to one event and lose all but the first; a true repeat does no harm."""
    lines = read(f"{HEADER}\n1,5.00,{WHEN}\n1,5.00,{WHEN}\n1,7.00,{WHEN}\n")
    assert codes(lines) == [[], [], ["repeated_event_id"]]
    assert "line 2" in str(lines[2].problems[0])


def test_an_event_id_is_the_same_on_every_run_and_of_no_two_rows() -> None:
    """Cells are told apart whatever is in them, and a long one is shortened without meeting another."""
    columns = f"{COLUMNS},params.a=A"
    rows = [("x:y", "z"), ("x", "y:z"), ("x%3Ay", "z"), ("q" * 190, "a"), ("q" * 190, "b")]
    written = "Order,Total,When,A\n" + "".join(f"{order},1.00,{WHEN},{other}\n" for order, other in rows)
    ids = [line.event["event_id"] for line in read(written, columns, id=["Order", "A"])]
    assert len(set(ids)) == len(rows)
    assert ids == [line.event["event_id"] for line in read(written, columns, id=["Order", "A"])]
    assert max(map(len, ids)) <= 200


@pytest.mark.parametrize(
    ("columns", "options", "said"),
    [
        ("order_id=Ordr,occurred_at=When,source='s',name='n'", {}, "did you mean 'Order'"),
        ("order_idd=Order", {}, "did you mean order_id"),
        ("order_id=Order,name='n',source='s'", {}, "what occurred_at is"),
        ("order_id=Order,occurred_at=When,source='s',type='refund'", {}, "--id"),
        ("order_id=Order order_id=Order,=", {}, "cannot be read at"),
        (COLUMNS, {"encoding": "utf-16"}, "iconv"),
        (COLUMNS, {"decimals": ","}, "did you mean decimal?"),
        (COLUMNS, {"encoding": "klingon"}, "no text encoding"),
        (COLUMNS, {"timezone": "Europe/Brlin"}, "no time zone"),
        (COLUMNS, {"date_format": "%H:%M"}, "gives no date"),
        (COLUMNS, {"decimal": ",", "thousands": ","}, "the same character"),
    ],
)
def test_a_mapping_that_cannot_be_used_says_why(columns: str, options: dict[str, Any], said: str) -> None:
    """Before anything is sent."""
    with pytest.raises(MappingError, match=re.escape(said)):
        table(f"{HEADER}\n", columns, **options)


def test_a_header_named_like_the_fields_needs_no_mapping() -> None:
    """And a column that is no field is not left out in silence."""
    written = f"order_id,occurred_at,source,name,click_ids.xandr\n1,{WHEN},shop,purchase,abc\n"
    (line,) = Table(Stream(io.BytesIO(written.encode())), ColumnMap())
    assert line.event["click_ids"] == {"xandr": "abc"}
    with pytest.raises(MappingError, match="did you mean value"):
        Table(Stream(io.BytesIO(written.replace("click_ids.xandr", "valeu").encode())), ColumnMap())


def rejects(opened: Table) -> bytes:
    """The file of rejects that is kept of a table."""
    kept = [opened.reject(line, line.problems) for line in opened if line.problems]
    return b"\n".join([opened.rejects_header(), *kept, b""])


def test_rejects_are_a_file_of_the_same_columns_that_can_be_fed_back_once_mended() -> None:
    """Mended, a record goes in; as it was kept it is refused again; nothing of it was lost."""
    first = table(f'{HEADER}\n1,"1,00",{WHEN}\n2,"2.00"x,{WHEN}\n3,3.00,{WHEN}\n')
    kept = rejects(first)
    assert kept.startswith(b"Order,Total,When,holdfire_line,holdfire_reason\n")
    assert b'2,""2.00""x' in kept
    assert codes(list(table(kept))) == [["money_shape"], ["malformed"]]
    assert rejects(table(kept)).count(b"\n") == 3
    mended = kept.replace(b'"1,00"', b"1.00").splitlines()[:2]
    assert only_event(b"\n".join(mended))["value"] == "1.00"


def test_a_kept_record_of_several_lines_stays_one_record() -> None:
    """Line ends in its cells stay in quotes."""
    kept = rejects(table(f'{HEADER},Note\n1,x,{WHEN},"two\nlines"\n', COLUMNS + ",params.n=Note"))
    (line,) = read(kept.replace(b",x,", b",1.00,"), COLUMNS + ",params.n=Note")
    assert (line.problems, line.event["params"]) == ([], {"n": "two\nlines"})
