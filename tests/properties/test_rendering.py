"""Laws of rendering: the click id survives, the last parameter is last, no value breaks out of its place."""

from __future__ import annotations

import json
from urllib.parse import parse_qsl, unquote, unquote_to_bytes, urlsplit

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from infra.catalogue import load_catalogue
from schemas.macros import Parameter, Template, render
from schemas.network import QueryParameter

CATALOGUE = load_catalogue()
PIXELS = ("xandr", "ad-personam")
quick = settings(max_examples=150, deadline=None)

characters = st.characters(exclude_categories=["Cs"])
tokens = st.text(characters, min_size=1, max_size=300).filter(str.isprintable)
printable = st.text(characters, max_size=60).filter(str.isprintable)
# What an account may write as a parameter's text: visible ASCII that does not end the parameter, no macros.
parameter_text = st.text(
    st.characters(min_codepoint=33, max_codepoint=126, exclude_characters="&#{}="), min_size=1
)


@quick
@given(tokens)
@pytest.mark.parametrize("slug", [slug for slug in CATALOGUE if slug != "generic"])
def test_the_click_id_can_be_read_back_from_any_networks_url(slug: str, token: str) -> None:
    """Decoding the click id's parameter, or its segment of the path, once gives the token byte for byte."""
    network = CATALOGUE[slug]
    values: dict[str, str | None] = {f"settings.{n}": s.default for n, s in network.settings.items()}
    values |= {f"settings.{name}": text for name, text in network.examples[0].settings.items()}
    url = render(network.template(), values | {"name": "n", "value": "1", "click_id": token}).url
    path, _, query = url.partition("?")
    pieces = [*path.split("/"), *(pair.partition("=")[2] for pair in query.split("&"))]
    assert token.encode() in map(unquote_to_bytes, pieces)


@quick
@given(tokens)
def test_the_click_id_can_be_read_back_from_a_path(token: str) -> None:
    """A token in the path stays one segment and comes back byte for byte."""
    url = render(Template("GET", "https://host.example/a/{click_id}/z?k=1"), {"click_id": token}).url
    before, segment, after = url.partition("?")[0].rsplit("/", 2)
    assert (before, after) == ("https://host.example/a", "z")
    assert unquote_to_bytes(segment) == token.encode()


@quick
@given(
    st.text(st.characters(min_codepoint=33, max_codepoint=126, exclude_characters="%#&"), min_size=1),
    st.booleans(),
)
def test_unreserved_characters_stay_literal_and_nothing_is_encoded_twice(token: str, period: bool) -> None:
    """What RFC 3986 calls unreserved goes out as it is, the closing period included; a % appears only as an escape."""
    token += "." * period
    sent = render(Template("GET", "https://h.example/?c={click_id}"), {"click_id": token}).url.partition(
        "c="
    )[2]
    assert unquote(sent) == token
    assert all(char in sent for char in token if char.isalnum() or char in "-._~")
    assert "%25" not in sent
    assert sent.endswith(".") == token.endswith(".")


@quick
@given(
    token=tokens,
    order_id=st.none() | printable,
    value=st.none() | st.decimals(0, 10**6, places=2).map(str),
    other=st.none() | printable,
    extra=st.lists(st.tuples(parameter_text, parameter_text, st.booleans()), max_size=4),
)
@pytest.mark.parametrize("slug", PIXELS)
def test_sspdata_is_last_whatever_else_is_set(
    *,
    slug: str,
    token: str,
    order_id: str | None,
    value: str | None,
    other: str | None,
    extra: list[tuple[str, str, bool]],
) -> None:
    """Optional parameters and an account's own, even one that claims to be last, stand before sspdata."""
    own = tuple(QueryParameter(name=name, value=text, last=last) for name, text, last in extra)
    values = {
        "settings.url": "https://sspx-router.adnxs.com/sspx",
        "settings.id": "25619",
        "click_id": token,
        "order_id": order_id,
        "value": value,
        "params.other": other,
    }
    url = render(CATALOGUE[slug].template(own), values).url
    name, _, sent = url.rpartition("&")[2].partition("=")
    assert name == "sspdata"
    assert unquote_to_bytes(sent) == token.encode()
    assert "#" not in url


@quick
@given(st.dictionaries(st.sampled_from("abcdef"), tokens, min_size=1))
def test_no_value_can_add_a_parameter(values: dict[str, str]) -> None:
    """The query has exactly the parameters of the template, each with its own value."""
    template = Template("GET", "https://h.example/p", tuple(Parameter(n, f"{{params.{n}}}") for n in values))
    url = render(template, {f"params.{name}": text for name, text in values.items()}).url
    assert dict(parse_qsl(urlsplit(url).query, strict_parsing=True)) == values


@quick
@given(st.text(characters, max_size=60), st.text(characters, max_size=60))
def test_no_value_can_break_out_of_a_json_body(click_id: str, order_id: str) -> None:
    """The body parses to exactly the values, whatever they hold."""
    template = Template(
        "POST",
        "https://h.example/",
        headers=(("Content-Type", "application/json; charset=utf-8"),),
        body='{"id": "{click_id}", "order": "{order_id}"}',
    )
    body = render(template, {"click_id": click_id, "order_id": order_id}).body
    assert json.loads(body) == {"id": click_id, "order": order_id}


@quick
@given(st.text(st.sampled_from("abc{}click_id.settings"), max_size=40))
def test_a_value_is_never_taken_for_a_template(text: str) -> None:
    """A macro inside a value is text: it is encoded and not replaced."""
    url = render(
        Template("GET", "https://h.example/?v={params.v}"), {"params.v": text, "click_id": "LEAK"}
    ).url
    assert unquote(url.partition("v=")[2]) == text
