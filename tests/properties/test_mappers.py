"""Every mapper is total: whatever a delivery says, it becomes events, a reason to ignore it, or a named problem."""

from __future__ import annotations

import json
from typing import Any
from urllib.parse import urlencode

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from producers.hooks.pipeline import Understood
from producers.hooks.registry import HOOKS
from tests.unit.hooks.eight import FIXTURES, delivery, taken

JSON_FIXTURES = [
    (path.name.partition("_")[0], path)
    for path in sorted(FIXTURES.glob("*.json"))
    if path.name.partition("_")[0] in HOOKS and HOOKS[path.name.partition("_")[0]].payload == "json"
]
ODD: st.SearchStrategy[Any] = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.text(max_size=30),
    st.sampled_from(["", "-1", "1e400", "9" * 400, "NaN", "{x}", "2026-13-01", "\x00", "\ud800"]),
    st.lists(st.integers(), max_size=2),
    st.dictionaries(st.text(max_size=3), st.integers(), max_size=2),
)
TABLES: dict[str, Any] = {
    "events": {
        "deal.dealstage=closedwon": "purchase",
        "subscription_cancelled": "ended",
        "event": "purchase",
    },
    "signals": {"contact.loan_status": "refund"},
    "currency": "EUR",
    "click_ids": {"xandr": "a.b", "ezmob": "event_data"},
}


def places(value: Any, way: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """The way to every value inside a JSON document."""
    inside = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [way, *(place for key, child in inside for place in places(child, (*way, key)))]


def put(document: Any, way: tuple[Any, ...], value: Any) -> Any:
    """The document with another value at one place."""
    if not way:
        return value
    copy = dict(document) if isinstance(document, dict) else list(document)
    copy[way[0]] = put(document[way[0]], way[1:], value)
    return copy


def is_whole(understood: Understood) -> bool:
    """Something was made of it, and by no mistake of ours."""
    codes = {problem.code for refused in understood.refused for problem in refused.problems}
    assert "internal" not in codes
    return bool(understood.candidates or understood.refused or understood.ignored)


@pytest.mark.parametrize(("slug", "path"), JSON_FIXTURES, ids=lambda each: getattr(each, "stem", ""))
@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_no_value_anywhere_breaks_a_mapper(slug: str, path: Any, data: st.DataObject) -> None:
    """A real delivery with something odd in one place is taken, ignored or refused in words."""
    document = json.loads(path.read_bytes())
    way = data.draw(st.sampled_from(places(document)))
    odd = put(document, way, data.draw(ODD))
    known = {key: value for key, value in TABLES.items() if key in HOOKS[slug].options}
    assert is_whole(taken(slug, json.dumps(odd).encode(), **known))


@settings(max_examples=100, deadline=None)
@given(
    slug=st.sampled_from(["adjust", "branch-get"]),
    parameters=st.dictionaries(
        st.sampled_from(
            [
                "activity_kind",
                "event",
                "created_at",
                "revenue_float",
                "currency",
                "order_id",
                "nonce",
                "id",
                "name",
                "timestamp",
                "event_data.revenue",
                "event_data.currency",
                "event_data",
                "event_data.",
            ]
        ),
        st.one_of(
            st.text(max_size=20), st.sampled_from(["event", "install", "PURCHASE", "1790000000", "1e9"])
        ),
    ),
)
def test_no_parameters_break_a_mapper(slug: str, parameters: dict[str, str]) -> None:
    """Neither does any query."""
    query = urlencode(parameters, errors="replace")
    sent = delivery(url=f"https://door.example.com/hooks/it?{query}", method="GET")
    assert is_whole(taken(slug, sent, **TABLES))


@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_no_damage_breaks_the_reading_of_xml(data: st.DataObject) -> None:
    """A message of Salesforce with some of its bytes cut out or replaced."""
    body = (FIXTURES / "salesforce_opportunity.xml").read_bytes()
    start = data.draw(st.integers(0, len(body)))
    end = data.draw(st.integers(start, min(len(body), start + 200)))
    damaged = body[:start] + data.draw(st.binary(max_size=20)) + body[end:]
    assert is_whole(taken("salesforce", damaged, **{**TABLES, "events": {"Opportunity": "purchase"}}))
