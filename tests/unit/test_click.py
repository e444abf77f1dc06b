"""Landing pages' URLs and the click ids in them: byte for byte, or refused with the reason."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from infra.catalogue import load_catalogue
from schemas.click import KEYS, Click, click_ids_in, parameters_of, read_click
from schemas.destination import Destination, DestinationVersion, join

NOW = datetime(2026, 11, 22, 12, tzinfo=UTC)
TOKEN = "nym1CJjYiJ3oq6LkMxACGIHey7vM0vGDRyIJMTAuMS4xMi42KAE."
CATALOGUE = parameters_of(load_catalogue().values(), [])
SOME = {"xandr": ("sspdata",), "knorex-xpo": ("kcid",), "ezmob": ("click_id", "c")}


def read(**fields: Any) -> tuple[Click | None, list[str]]:
    """What is made of a click with these fields: the click, and the codes of its problems."""
    click, problems = read_click(fields, SOME, NOW)
    assert all(problem.field and problem.reason and problem.remedy for problem in problems)
    return click, [problem.code for problem in problems]


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        (f"utm_source=x&sspdata={TOKEN}", {"xandr": TOKEN}),
        (f"sspdata={TOKEN}&kcid=k-1", {"xandr": TOKEN, "knorex-xpo": "k-1"}),
        ("sspdata=a+b%2Bc%20d%252F=", {"xandr": "a+b+c d%2F="}),
        ("sspdata=%C3%A9", {"xandr": "é"}),
        ("kcid=100%", {"knorex-xpo": "100%"}),
        ("kcid=first&kcid=second", {"knorex-xpo": "first"}),
        ("kcid=&kcid=second", {"knorex-xpo": "second"}),
        ("c=short&click_id=long", {"ezmob": "long"}),
        ("kcid=1#kcid=2", {"knorex-xpo": "1"}),
        ("ssp%64ata=1", {"xandr": "1"}),
        ("SSPDATA=1&xkcid=2&kcid", {}),
        ("", {}),
    ],
)
def test_a_token_is_decoded_once_and_else_left_alone(query: str, expected: dict[str, str]) -> None:
    """A period, a plus and a second layer of encoding stay; names are exact; the first value counts."""
    assert click_ids_in(f"https://shop.example/land?{query}", SOME) == (expected, [])


@pytest.mark.parametrize(
    ("value", "code"),
    [
        ("${SSP_DATA}", "unreplaced_macro"),
        ("%24%7BSSP_DATA%7D", "unreplaced_macro"),
        ("[SSPDATA]", "unreplaced_macro"),
        ("%255BSSPDATA%255D", "unreplaced_macro"),
        ("%ff%fe", "undecodable_click_id"),
        ("a%00b", "unprintable_click_id"),
        ("x" * 4097, "string_too_long"),
    ],
)
def test_what_stands_in_place_of_a_token_is_refused(value: str, code: str) -> None:
    """A macro that was not filled in, encoded or not, and what is no text, are named by their parameter."""
    found, (problem,) = click_ids_in(f"https://shop.example/?sspdata={value}&kcid=1", SOME)
    assert found == {"knorex-xpo": "1"}
    assert (problem.code, problem.field) == (code, "url: sspdata")


def test_a_good_token_is_taken_beside_a_leftover_macro() -> None:
    """One network's mistake does not cost another's click."""
    click, codes = read(url=f"https://shop.example/?sspdata={TOKEN}&kcid={{kcid}}", lead_id="L1")
    assert click == Click({"xandr": TOKEN}, NOW, {"lead_id": "L1"})
    assert codes == ["unreplaced_macro"]


def test_click_ids_that_are_given_win_over_the_url() -> None:
    """Both may be sent; keys stand in the order in which they are tried."""
    click, codes = read(
        url="https://shop.example/?kcid=url", click_ids={"knorex-xpo": "given", "mine": "2"},
        customer_id="C", order_id="O", clicked_at="2026-11-22T10:00:00Z", source="site",
    )  # fmt: skip
    clicked_at = NOW - timedelta(hours=2)
    assert click == Click(
        {"knorex-xpo": "given", "mine": "2"}, clicked_at, {"order_id": "O", "customer_id": "C"}, "site"
    )
    assert list(click.keys) == ["order_id", "customer_id"]
    assert codes == []


@pytest.mark.parametrize(
    ("fields", "codes"),
    [
        ({}, ["no_click_id", "no_key"]),
        ({"lead_id": "L1", "url": "https://shop.example/?utm_source=x"}, ["no_click_id"]),
        ({"lead_id": "L1", "url": "https://shop.example/?kcid={kcid}"}, ["unreplaced_macro"]),
        ({"click_ids": {"xandr": "1"}}, ["no_key"]),
        ({"click_ids": {"xandr": ""}, "lead_id": "L1"}, ["unprintable_click_id"]),
        ({"click_ids": {"xandr": "1"}, "lead_id": "L1", "clicked_at": "2026-11-23T10:00:00Z"}, ["future_clicked_at"]),
        ({"click_ids": {"xandr": "1"}, "lead": "L1"}, ["extra_forbidden"]),
        ({"click_ids": {"xandr": "1"}, "lead_id": "L\n1"}, ["string_pattern_mismatch"]),
        ({"click_ids": {"xandr": "1"}, "lead_id": "L1", "clicked_at": 1}, ["instant_shape"]),
    ],
)  # fmt: skip
def test_a_click_that_links_nothing_is_refused(fields: dict[str, Any], codes: list[str]) -> None:
    """No click id, no key, or a field that cannot be: each with its reason and remedy."""
    assert read(**fields) == (None, codes)


@pytest.mark.parametrize("raw", [None, 1, "x", [], [{}]])
def test_what_is_no_object_is_refused(raw: object) -> None:
    """Any JSON value gets an answer."""
    assert read_click(raw, SOME, NOW)[0] is None


def test_the_catalogue_knows_where_click_ids_stand() -> None:
    """The networks' own parameters, and a destination's in place of its network's."""
    assert CATALOGUE["xandr"] == CATALOGUE["ad-personam"] == ("sspdata",)
    assert CATALOGUE["knorex-xpo"] == ("kcid",)
    assert "generic" not in CATALOGUE
    own = Destination.model_validate(
        {"network": "generic", "events": ["purchase"], "click_parameters": ["cid2"]}
    )
    version = DestinationVersion(1, 1, join("mine", own, load_catalogue()["generic"]))
    assert parameters_of([], [version]) == {"mine": ("cid2",)}


def test_every_key_is_a_field_of_a_click_and_of_a_conversion() -> None:
    """The keys that match are those that both can carry."""
    for name in KEYS:
        click, codes = read(click_ids={"xandr": "1"}, **{name: "K"})
        assert (click, codes) == (Click({"xandr": "1"}, NOW, {name: "K"}), [])
