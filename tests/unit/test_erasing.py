"""What is found of an identifier, and what is left alone."""

from __future__ import annotations

import json

import pytest

from schemas.erasing import STUB, Traces, bare_row, digest, named_by, pseudonym, without_events

LONG = "nym1CJjYiJ3oq6LkMxACGIHey7vM0vGDRyIJMTAuMS4xMi42KAE."


@pytest.mark.parametrize(
    "text",
    ["?o=ord-77431&x", '{"o": "ord-77431"}', "o%3Dord-77431%26", "ORD-77431", '{"o":"\\u006frd-77431"}', "o=ord%2D77431",
     "b3JkLTc3NDMx", "6f72642d3737343331", "<b>ord-77431</b>", "shop:ord-77431"],
)  # fmt: skip
def test_an_identifier_is_found_in_any_writing(text: str) -> None:
    """In a query, JSON, percent-encoded, upper case, base64, hexadecimal or as part of another."""
    assert Traces(["ord-77431"]).in_text(text)


@pytest.mark.parametrize("text", ["?o=ord-774310", "xord-77431", "ord-7743", "word-77431"])
def test_a_longer_word_is_another(text: str) -> None:
    """An identifier of a few characters must stand by itself."""
    assert not Traces(["ord-77431"]).in_text(text)


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ('{"o": "77"}', True),
        ("?o=77&x", True),
        ("2026-11-28T00:77", False),
        ("1.77 EUR", False),
        ("1,77 EUR", False),
        ('{"n":77}', True),
        ('{"n": 77, "m": 1}', True),
    ],
)
def test_a_short_one_must_be_a_whole_value(text: str, found: bool) -> None:
    """Else half of everything would go with it."""
    assert Traces(["77"]).in_text(text) is found


def test_what_stands_around_it_stays() -> None:
    """Only the identifier is replaced."""
    assert Traces(["ord-77431"]).without("for ord-77431, paid") == "for [erased], paid"
    assert Traces([LONG]).without(f"a{LONG}b") == "a[erased]b"


def test_in_json_the_whole_value_goes() -> None:
    """In keys and numbers too; a value that only looks like it stays."""
    value = {"a": "x ord-77431", "ord-77431": 1, "n": [77431, True, None, 1.5], "b": "other"}
    assert Traces(["ord-77431", "77431"]).without_in(value) == {
        "a": "[erased]", "[erased]": 1, "n": ["[erased]", True, None, 1.5], "b": "other",
    }  # fmt: skip


def test_without_identifiers_nothing_is_found() -> None:
    """An empty pattern would match everything."""
    assert not Traces([]).in_text("anything")
    assert Traces([""]).without("anything") == "anything"


def test_an_event_goes_out_of_a_list_and_the_others_stay_to_the_byte() -> None:
    """White space, order and odd writings of the others included."""
    body = b' [ {"o":  1.0},\n\t{"o": "x"} , {"\\u006f":2}\n] '
    assert without_events(body, "application/json", lambda piece: b'"x"' in piece) == (
        b' [ {"o":  1.0},\n\t' + json.dumps(STUB).encode() + b' , {"\\u006f":2}\n] '
    )


def test_an_event_goes_out_of_lines() -> None:
    """NDJSON, with any line end."""
    body = b'{"o": 1}\r\n{"o": "x"}\n\n{"o": 2}'
    kept = without_events(body, "application/x-ndjson; charset=utf-8", lambda piece: b'"x"' in piece)
    assert kept == b'{"o": 1}\r\n{"erased": true}\n\n{"o": 2}'


@pytest.mark.parametrize("body", [b'{"o": "x"}', b'[{"o": "x"}]', b"\xff\xfe", b"[1,", b""])
def test_where_nothing_else_is_in_it_nothing_is_kept(body: bytes) -> None:
    """A single event, a list of one, and what is no list."""
    assert without_events(body, "application/json", lambda _: True) is None


def test_an_event_is_known_by_all_that_it_names() -> None:
    """Valid or not; a number as an order id is the text of it."""
    raw = {
        "event_id": "e",
        "source": "s",
        "order_id": 12,
        "click_ids": {"push": "t", "odd": 1},
        "lead_id": "l",
        "conversion_event_id": "c",
    }
    assert set(named_by(raw)) == {
        ("event", "s\0e"),
        ("order", "12"),
        ("click", "t"),
        ("lead", "l"),
        ("event_id", "c"),
    }
    assert list(named_by("no event")) == []


def test_tombstones_differ_by_key_kind_and_value() -> None:
    """And from the pseudonym of the same."""
    made = [
        digest(key, kind, value)
        for key in (b"a", b"b")
        for kind in ("order", "click")
        for value in ("x", "y")
    ]
    assert len(set(made)) == 8
    assert made[0].hex()[:32] not in pseudonym(b"a", "order", "x")


def test_what_is_left_of_a_hop_can_be_read_as_one() -> None:
    """A request line, a status line, the network's host; nothing that was said."""
    row = {"url": "https://a.example/p?c=1", "method": "POST", "request_head": b"x", "request_body": b"y", "response_head": b"z",
           "body": b"", "body_error": None, "failure": "timeout: no answer to /p?c=1", "status_code": 302}  # fmt: skip
    assert bare_row("hops", row) == {
        "url": "https://a.example/erased", "request_head": b"POST /erased HTTP/1.1\r\n", "request_body": b"[erased]",
        "response_head": b"HTTP/1.1 302\r\n", "body": b"", "body_sha256": None, "body_error": None,
        "failure": "timeout: [erased]",
    }  # fmt: skip
