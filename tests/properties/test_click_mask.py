"""Where click ids are masked none is left, in whatever writing; and what is no click id stays as it is."""

from __future__ import annotations

import base64
import html
import json
from urllib.parse import quote, quote_plus

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.click_mask import ClickMask, is_masked, mask_click_id

TOKEN = "nym1CJjYiJ3oq6LkMxACGIHey7vM0vGDRyIJMTAuMS4xMi42KAE."
ids = st.text(st.characters(min_codepoint=0x21, max_codepoint=0x7E), min_size=8, max_size=60)
WRITINGS = {
    "as it is": str,
    "percent-encoded": lambda text: quote(text, safe=""),
    "in lower-case digits": lambda text: quote(text, safe="").lower() if text == text.lower() else text,
    "encoded twice": lambda text: quote(quote(text, safe=""), safe=""),
    "as a form": quote_plus,
    "as JSON": lambda text: json.dumps(text)[1:-1],
    "as JSON in digits": lambda text: "".join(f"\\u{ord(char):04x}" for char in text),
    "as HTML": html.escape,
    "as HTML in digits": lambda text: "".join(f"&#{ord(char)};" for char in text),
    "in lower case": str.lower,
    "in upper case": str.upper,
    "in hexadecimal": lambda text: text.encode().hex(),
}


def parts(text: str, length: int) -> set[str]:
    return {text[at : at + length] for at in range(len(text) - length + 1)}


@pytest.mark.parametrize("writing", WRITINGS)
@given(click_id=ids, before=st.text(max_size=10), after=st.text(max_size=10))
def test_no_writing_of_a_click_id_is_left(writing: str, click_id: str, before: str, after: str) -> None:
    """Whatever stands around it."""
    written = WRITINGS[writing](click_id)
    shown = ClickMask([click_id]).in_text(f"{before}{written}{after}")
    assert written not in shown.replace(mask_click_id(click_id), "")


@pytest.mark.parametrize("padding", ["", "x", "xy"])
def test_base64_of_a_click_id_is_masked_at_each_place_it_can_have(padding: str) -> None:
    coded = base64.b64encode(f"{padding}{TOKEN}{padding}".encode()).decode()
    assert not parts(coded, 32) & parts(ClickMask([TOKEN]).in_text(f"<{coded}>"), 32)


@pytest.mark.parametrize("coding", ["utf-16-le", "utf-16-be"])
def test_a_click_id_in_wide_characters_is_masked(coding: str) -> None:
    assert TOKEN.encode(coding) not in ClickMask([TOKEN]).in_bytes(b"x" + TOKEN.encode(coding))


@pytest.mark.parametrize("cut", range(1, len(TOKEN) // 2))
def test_what_is_left_of_a_cut_click_id_is_masked(cut: int) -> None:
    """A network that lost the period, or the rest, still echoes enough of it."""
    shown = ClickMask([TOKEN]).in_text(f"unknown id {TOKEN[:-cut]}, sorry")
    assert shown == f"unknown id {mask_click_id(TOKEN)}, sorry"


@pytest.mark.parametrize("length", range(8, len(TOKEN)))
def test_a_click_id_at_the_end_of_a_cut_body_is_masked(length: int) -> None:
    assert (
        ClickMask([TOKEN]).in_bytes(b"got " + TOKEN[:length].encode()).endswith(mask_click_id(TOKEN).encode())
    )


def test_a_short_click_id_is_masked_where_it_stands_alone() -> None:
    """Found by chance in any word, so words are left alone."""
    shown = ClickMask(["ab1."]).in_text("/p?c=ab1.&d=cab1.x ab1.")
    assert shown == f"/p?c={mask_click_id('ab1.')}&d=cab1.x {mask_click_id('ab1.')}"


@given(text=st.text(st.sampled_from('abcdefgh \n{}"<&'), max_size=200))
def test_what_is_no_click_id_is_left_alone(text: str) -> None:
    assert ClickMask([TOKEN]).in_text(text) == text


@given(click_id=ids, others=st.lists(ids, max_size=3))
def test_masking_twice_is_masking_once(click_id: str, others: list[str]) -> None:
    mask = ClickMask([click_id, *others])
    once = mask.in_text(f"a {click_id} b {' '.join(others)}")
    assert ClickMask([mask_click_id(click_id)]).in_text(once) == once


def test_two_click_ids_can_be_told_apart_and_a_lost_character_is_seen() -> None:
    assert len({mask_click_id(TOKEN), mask_click_id(TOKEN[:-1]), mask_click_id(TOKEN.lower())}) == 3
    assert is_masked(mask_click_id(TOKEN))
    assert not is_masked(TOKEN)


def test_nothing_to_mask_masks_nothing() -> None:
    assert not ClickMask([])
    assert ClickMask([""]).in_text(TOKEN) == TOKEN
