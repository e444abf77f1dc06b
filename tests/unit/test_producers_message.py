"""What leaves a producer: checked events, messages cut to size, and the message other languages copy."""

from __future__ import annotations

import io
import json
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from infra.broker import celery_app
from infra.delimited import MAX_LINE_BYTES, Stream
from producers.imports import read_ndjson
from producers.message import MAX_MESSAGE_BYTES, Checked, Chunk, check, chunks, task_call
from schemas.event import _REMEDIES, json_schema, read_event
from schemas.problem import InvalidInputError

ROOT = Path(__file__).parents[2]
GOLDEN = json.loads((ROOT / "tests/fixtures/queue_message.json").read_text())
NOW = datetime(2026, 11, 22, tzinfo=UTC)


def conversion(**changes: Any) -> dict[str, Any]:
    """A valid conversion, but for ``changes``."""
    return {
        "version": 1,
        "type": "conversion",
        "event_id": "order:1",
        "source": "shop",
        "name": "purchase",
        "occurred_at": "2026-11-21T10:00:00+01:00",
        "value": "49.90",
        "currency": "EUR",
    } | changes


def test_the_sdk_sends_the_documented_message() -> None:
    """But for the sender's name, body, headers and properties are the golden message's."""
    events = [check(event, NOW) for event in GOLDEN["body"][0][0]]
    body, headers, properties = task_call(
        celery_app("redis://127.0.0.1:1/0"), Chunk(events, GOLDEN["headers"]["id"])
    )
    assert json.loads(body) == GOLDEN["body"]
    assert headers | {"origin": GOLDEN["headers"]["origin"]} == GOLDEN["headers"]
    assert properties.items() <= GOLDEN["properties"].items()


def test_what_leaves_is_what_intake_reads() -> None:
    """Models, decimals and offsets leave as JSON that reads as the same event."""
    event = read_event(conversion(), NOW)
    as_datetime = conversion(occurred_at=datetime.fromisoformat("2026-11-21T10:00:00+01:00"))
    for given in (event, conversion(value=Decimal("49.90")), conversion(partner_id=None), as_datetime):
        assert read_event(json.loads(check(given, NOW).body), NOW) == event


@pytest.mark.parametrize("amount", [Decimal(-5), Decimal("NaN"), Decimal("1E-9")])
def test_a_decimal_is_held_to_the_rules_of_the_wire(amount: Decimal) -> None:
    """A Decimal that intake would refuse as text is refused before it leaves."""
    with pytest.raises(InvalidInputError) as caught:
        check(conversion(value=amount), NOW)
    assert caught.value.problems[0].field == "value"


def test_a_model_made_around_the_rules_does_not_leave() -> None:
    """An Event that was not read from the wire is read as intake will read it."""
    event = read_event(conversion(), NOW).model_copy(update={"value": Decimal(-1)})
    with pytest.raises(InvalidInputError):
        check(event, NOW)


def test_messages_end_at_500_events_and_keep_the_order() -> None:
    """1,001 events make messages of 500, 500 and 1."""
    events = [Checked(conversion(event_id=str(number)), b"{}") for number in range(1001)]
    cut = list(chunks(events))
    assert [len(chunk.events) for chunk in cut] == [500, 500, 1]
    assert [event for chunk in cut for event in chunk.events] == events


def test_a_message_of_large_events_ends_early() -> None:
    """No message exceeds the size limit as long as each event is below it."""
    large = Checked(conversion(), b" " * (MAX_MESSAGE_BYTES // 2 - 1))
    assert [len(chunk.events) for chunk in chunks([large] * 5)] == [2, 2, 1]


def test_the_exported_schema_is_current() -> None:
    """docs/event-v1.schema.json says what schemas.event says."""
    exported = (ROOT / "docs/event-v1.schema.json").read_text()
    assert exported == json.dumps(json_schema(), indent=2) + "\n", (
        "write it anew: python -c 'import json; from schemas.event import json_schema; "
        "print(json.dumps(json_schema(), indent=2))' > docs/event-v1.schema.json"
    )


def test_lines_are_numbered_as_an_editor_numbers_them() -> None:
    """Empty lines count but are not read; a byte order mark and Windows line ends are no part of a line."""
    lines = list(read_ndjson(Stream(io.BytesIO(b'\xef\xbb\xbf{"a":1}\r\n\n  \n[2]'))))
    assert [(line.number, line.raw, line.event) for line in lines] == [
        (1, b'{"a":1}', {"a": 1}),
        (4, b"[2]", [2]),
    ]
    assert lines[-1].end == 19


def test_an_endless_line_is_a_problem_and_the_next_line_is_read() -> None:
    """A line beyond the limit is reported, cut, and passed over."""
    endless = b"x" * (3 * MAX_LINE_BYTES)
    first, second = read_ndjson(Stream(io.BytesIO(endless + b'\n{"a":1}\n')))
    assert [problem.code for problem in first.problems] == ["too_long"]
    assert len(first.raw) == MAX_LINE_BYTES
    assert (second.number, second.event, second.end) == (2, {"a": 1}, len(endless) + 9)


def test_a_line_that_is_no_json_says_so() -> None:
    """The bytes are kept, the problem has a remedy."""
    (line,) = read_ndjson(Stream(io.BytesIO(b'{"a": \xff}\n')))
    assert line.raw == b'{"a": \xff}'
    assert all(problem.remedy for problem in line.problems)
    assert line.problems


def test_the_docs_know_every_field_and_every_code() -> None:
    """docs/events.md has each field of the envelope and each code that has a remedy of its own."""
    page = (ROOT / "docs/events.md").read_text()
    models = json_schema()["$defs"].values()
    fields = {name for model in models for name in model["properties"]}
    assert {name for name in fields | set(_REMEDIES) if f"`{name}`" not in page} == set()
