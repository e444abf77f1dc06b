"""The language of the search box: what is read, what is refused and with which remedy, and that it can be written again."""

from __future__ import annotations

import shlex
from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal

import pytest
import typer
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from infra.filters import AskingError, Filters, show_options, with_filters
from infra.store.searching.search import Criteria
from investigations.query import LONGEST_QUERY, Query, read_query, show_query
from investigations.terms import EXAMPLES, FIELDS
from schemas.ids import parse
from schemas.lifecycle import State
from schemas.verdict import VerdictKind

NOW = datetime(2026, 11, 22, 12, tzinfo=UTC)


def asked(text: str) -> dict[str, object]:
    criteria = read_query(text, NOW).criteria
    return {name: getattr(criteria, name) for name in criteria.given()}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", {}),
        ("state:in_doubt", {"states": (State.IN_DOUBT,)}),
        ("state:dead,in_doubt,dead", {"states": (State.DEAD, State.IN_DOUBT)}),
        ("destination:xandr-main network:xandr", {"destination": "xandr-main", "network": "xandr"}),
        ("source:shop", {"source": "shop"}),
        ("status:5xx", {"status_codes": (500, 599)}),
        ("status:503", {"status_codes": (503, 503)}),
        ("verdict:retry error:timeout", {"verdict": VerdictKind.RETRY, "error": "timeout"}),
        ("value:10..50", {"value": (Decimal(10), Decimal(50))}),
        ("value:10..", {"value": (Decimal(10), None)}),
        ("value:..49.90", {"value": (None, Decimal("49.90"))}),
        ("value:49.90", {"value": (Decimal("49.90"), Decimal("49.90"))}),
        ("value:>100", {"above": Decimal(100)}),
        ("value:<=-5", {"value": (None, Decimal(-5))}),
        ("since:2h until:30m", {"since": NOW - timedelta(hours=2), "until": NOW - timedelta(minutes=30)}),
        ("until:2026-11-01", {"until": datetime(2026, 11, 1, tzinfo=UTC)}),
        (
            "received:2026-11-01..2026-11-03",
            {"since": datetime(2026, 11, 1, tzinfo=UTC), "until": datetime(2026, 11, 4, tzinfo=UTC)},
        ),
        (
            "received:2026-11-01",
            {"since": datetime(2026, 11, 1, tzinfo=UTC), "until": datetime(2026, 11, 2, tzinfo=UTC)},
        ),
        ("received:2026-11-01..", {"since": datetime(2026, 11, 1, tzinfo=UTC)}),
        ('text:"foo bar"', {"text": "foo bar"}),
        (r'text:"say \"hi\" \\"', {"text": 'say "hi" \\'}),
        ("text:a:b", {"text": "a:b"}),
        ("order:1234 click:a.b:c event:shopify:order:1", {"order_id": "1234", "click_id": "a.b:c", "event_id": "shopify:order:1"}),
        ("lost:yes adjustments:no matched:no", {"lost": True, "adjustments": False, "matched": False}),
    ],
)  # fmt: skip
def test_a_term_says_what_to_look_for(text: str, expected: dict[str, object]) -> None:
    """Each field is read as it is meant, alone and beside others."""
    assert asked(text) == expected


@pytest.mark.parametrize(
    "word",
    [
        "1234", "shopify:order:1234", "stripe:evt_1", "nym1CJjYiJ3oq6LkMxACGIHey7vM0vGDRyIJMTAuMS4xMi42KAE.",
        "https://shop.example/thanks", "a/b:c", "gid://shopify/Order/1", "State:dead", ":x", "cv_12", "über",
        "Cj0KCQ:iAo", "x:state:dead",
    ],
)  # fmt: skip
def test_a_word_that_cannot_be_a_term_is_an_id(word: str) -> None:
    """Ids hold colons, dots and slashes; only what stands before the first colon makes a term."""
    assert read_query(word, NOW) == Query(Criteria(), word)


def test_an_id_that_looks_like_a_term_is_one_in_quotes() -> None:
    """Also one that holds spaces."""
    assert read_query('"order:1234"', NOW) == Query(Criteria(), "order:1234")
    assert read_query('"two words" state:dead', NOW).names == "two words"


@pytest.mark.parametrize(
    ("text", "names", "remedy"),
    [
        ("stat:dead", "stat:", "did you mean state:?"),
        ("orders:1234", "orders:", 'put it in quotes: "orders:1234"'),
        ("destinaton:x", "destinaton:", "did you mean destination:?"),
        ("state:ded", "state:ded", "did you mean dead?"),
        ("state:dead,", "state:", "there are held"),
        ("verdict:maybe", "verdict:maybe", "delivered, retry"),
        ("status:9xx", "status:9xx", "status:5xx"),
        ("value:ten", "value", "10..50"),
        ("value:..", "value", "10..50"),
        ("value:NaN", "value", "49.90"),
        ("value:50..10", "value", "10..50"),
        ("value:1e9", "value", "49.90"),
        ("since:yesterday", "since:yesterday", "since:2h"),
        ("since:99999d", "since:99999d", "since:3d"),
        ("until:9999-12-31", "until:9999-12-31", "until:2h"),
        ("received:2h", "received:2h", "received:2026-11-01..2026-11-03"),
        ("received:..", "received:..", "received:2026-11-01..2026-11-03"),
        ("received:2026-11-03..2026-11-01", "received:", "received:2026-11-01..2026-11-03"),
        ("since:1h until:2h", "until:", "exchange"),
        ("lost:maybe", "lost:maybe", "lost:yes or lost:no"),
        ("text:", "text:", 'text:"success=false"'),
        ('text:""', "text:", 'text:"success=false"'),
        ('text:"never closed', "never closed", "end it with"),
        ('"a"b', '"a"', "leave a space"),
        ("one two", "'one' and 'two'", "in quotes"),
        ("state:dead state:held", "state:", "leave one out"),
        ("since:2h received:2026-11-01..", "received:", "leave one out"),
        ('""', '""', "leave it out"),
        ("a\0b", "NUL", "leave them out"),
        ("a\ud800", "half of a pair", "leave them out"),
        ("x" * (LONGEST_QUERY + 1), f"{LONGEST_QUERY}", "less"),
    ],
)
def test_what_cannot_be_read_is_refused_with_the_term_and_the_remedy(
    text: str, names: str, remedy: str
) -> None:
    """Nothing is guessed, and nothing quietly left out."""
    with pytest.raises(AskingError) as refused:
        read_query(text, NOW)
    assert names in str(refused.value)
    assert remedy in str(refused.value)


def test_every_example_that_is_given_as_a_remedy_can_be_read() -> None:
    """A remedy that is refused in turn is none."""
    assert set(EXAMPLES) == set(FIELDS)
    for example in EXAMPLES.values():
        assert asked(example)


TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1, max_size=40)
AMOUNT = st.decimals(-10_000, 10_000, places=2)
INSTANT = st.datetimes(  # hypothesis wants the ends without an offset
    datetime.fromisoformat('1971-01-01'), datetime.fromisoformat('2200-01-01'), timezones=st.sampled_from([UTC, timezone(timedelta(hours=5, minutes=30))])
)  # fmt: skip
maybe = lambda of: st.none() | of  # noqa: E731 — a word, not a function
CRITERIA = st.builds(
    Criteria,
    states=st.lists(st.sampled_from(State), unique=True).map(tuple),
    destination=maybe(TEXT),
    network=maybe(TEXT),
    order_id=maybe(TEXT),
    click_id=maybe(TEXT),
    event_id=maybe(TEXT),
    source=maybe(TEXT),
    since=maybe(INSTANT),
    status_codes=maybe(st.sampled_from([(503, 503), (500, 599), (100, 199), (302, 302)])),
    verdict=maybe(st.sampled_from(VerdictKind)),
    lost=maybe(st.booleans()),
    adjustments=maybe(st.booleans()),
    matched=maybe(st.booleans()),
    error=maybe(TEXT),
    value=maybe(
        st.tuples(AMOUNT, AMOUNT).map(lambda ends: (min(ends), max(ends)))
        | AMOUNT.map(lambda end: (end, None))
        | AMOUNT.map(lambda end: (None, end))
    ),
    above=maybe(AMOUNT),
    below=maybe(AMOUNT),
    text=maybe(TEXT),
    named=maybe(TEXT.filter(lambda name: parse(name) is None)),
)


@given(CRITERIA)
def test_a_search_written_as_text_is_read_as_the_same_search(criteria: Criteria) -> None:
    """So that a link can be shared, whatever is in an id: quotes, spaces, colons, backslashes, fields of ours."""
    assert read_query(show_query(criteria), NOW).search == criteria


@given(CRITERIA.map(lambda criteria: replace(criteria, named=None, above=None)))
def test_a_search_written_as_options_is_read_as_the_same_search(criteria: Criteria) -> None:
    """So that what a page names can be pasted into a shell, whatever is in an id; or no options are shown at all."""
    options = show_options(criteria)
    unsaid = False in {criteria.lost, criteria.adjustments} or None not in {criteria.value, criteria.below}
    assert (options is None) == unsaid
    if options is not None:
        assert read_options(shlex.split(options)).criteria(NOW) == criteria


def read_options(words: list[str]) -> Filters:
    """As a command reads them."""
    found: list[Filters] = []
    app = typer.Typer()

    @app.command()
    @with_filters
    def command(*, filters: Filters) -> None:
        found.append(filters)

    result = CliRunner().invoke(app, words)
    assert result.exit_code == 0, result.output
    return found[0]


def test_an_id_of_anything_is_said_by_no_option() -> None:
    assert show_options(Criteria(named="1234")) is None


@given(TEXT)
def test_whatever_is_typed_is_read_or_refused_in_words(text: str) -> None:
    """No input ends in anything but a search or a refusal that can be shown; and what was read can be written."""
    try:
        query = read_query(text, NOW)
    except AskingError:
        return
    assert read_query(show_query(query.criteria, query.names), NOW) == query


def test_our_own_ids_search_by_themselves() -> None:
    """``pb_34`` is one postback, ``cv_12`` all of one conversion."""
    assert read_query("pb_34 state:dead", NOW).search == Criteria(states=(State.DEAD,), postback_id=34)
    assert read_query("cv_12", NOW).search == Criteria(conversion_id=12)
    assert read_query("1234", NOW).search == Criteria(named="1234")
