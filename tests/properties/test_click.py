"""Laws of the click register: a token comes out of a URL as it went in, and nothing makes the reader stumble."""

from __future__ import annotations

from datetime import UTC, datetime
from urllib.parse import quote, unquote_to_bytes

from hypothesis import given
from hypothesis import strategies as st

from schemas.click import click_ids_in, read_click
from schemas.event import UNREPLACED_MACRO
from schemas.macros import Parameter, Template, render

NOW = datetime(2026, 11, 22, tzinfo=UTC)
PARAMETERS = {"xandr": ("sspdata",), "knorex-xpo": ("kcid",)}
ALPHABET = "ABCabc019-._~+/=:,;!$'()*@%&?# éß漢"
TOKENS = st.text(ALPHABET, min_size=1, max_size=80).filter(lambda token: not UNREPLACED_MACRO.match(token))
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)


@given(TOKENS, TOKENS, st.sampled_from(["", "/", "+=.:", "!$'()*,;:@/?"]))
def test_a_token_comes_out_as_it_went_in(one: str, two: str, safe: str) -> None:
    """However its writer encodes it, and whatever stands beside it."""
    url = f"https://shop.example/land?a=1&sspdata={quote(one, safe)}&kcid={quote(two, safe)}&b=2#kcid=no"
    assert click_ids_in(url, PARAMETERS) == ({"xandr": one, "knorex-xpo": two}, [])


@given(TOKENS)
def test_what_the_landing_page_received_is_what_the_network_gets(token: str) -> None:
    """From the landing page's URL into the postback's: the same bytes once both are decoded."""
    found, _ = click_ids_in(f"https://shop.example/?sspdata={quote(token, '')}", PARAMETERS)
    template = Template("GET", "https://network.example/c", (Parameter("sspdata", "{click_id}"),))
    url = render(template, {"click_id": found["xandr"]}).url
    assert unquote_to_bytes(url.partition("sspdata=")[2]) == token.encode()


@given(st.text(max_size=200))
def test_any_text_is_read(text: str) -> None:
    """Lone surrogates and broken encodings too: a token, nothing, or a problem."""
    found, problems = click_ids_in(f"https://shop.example/?sspdata={text}", PARAMETERS)
    assert all(token and token.isprintable() for token in found.values())
    assert all(problem.reason and problem.remedy for problem in problems)


@given(
    JSON
    | st.fixed_dictionaries({}, optional=dict.fromkeys(("url", "click_ids", "lead_id", "clicked_at"), JSON))
)
def test_any_json_gets_a_click_or_the_reason(raw: object) -> None:
    """Never neither, and never an error."""
    click, problems = read_click(raw, PARAMETERS, NOW)
    assert click is not None or problems
