"""Rendering, rule by rule."""

from __future__ import annotations

import pytest

from schemas.macros import Parameter, RenderError, Template, encode, render


def _get(url: str, *parameters: Parameter) -> Template:
    return Template("GET", url, parameters)


def test_a_value_is_encoded_once_by_the_unreserved_rules() -> None:
    """Period, hyphen, underscore and tilde stay literal; a percent sign is text like any other."""
    assert encode("a.b-c_d~e f+g/h=%41é") == "a.b-c_d~e%20f%2Bg%2Fh%3D%2541%C3%A9"


def test_the_text_between_macros_is_never_touched() -> None:
    """What the network or the account wrote goes out as written."""
    url = "https://h.example/%7e/./x?a=%2B+&&b=&c={click_id}"
    assert render(_get(url), {"click_id": "t."}).url == url.replace("{click_id}", "t.")


def test_an_optional_parameter_without_a_value_is_left_out() -> None:
    """Neither its name nor its separator stays."""
    template = _get(
        "https://h.example/p", Parameter("o", "{order_id}", optional=True), Parameter("c", "{click_id}")
    )
    assert render(template, {"click_id": "t"}).url == "https://h.example/p?c=t"


def test_a_parameter_kept_empty_is_sent_without_a_value() -> None:
    """Some networks want to see ``pid=``."""
    template = _get("https://h.example/p", Parameter("pid", "{order_id}", keep_empty=True))
    assert render(template, {}).url == "https://h.example/p?pid="


def test_a_required_value_that_is_missing_names_its_macro_and_the_remedy() -> None:
    """The reader learns which, why and what to do."""
    with pytest.raises(RenderError, match=r"\{value\} has no value. Add it to the event"):
        render(_get("https://h.example/", Parameter("v", "{value}")), {"value": None})
    with pytest.raises(
        RenderError, match=r"\{settings.key\} has no value. Add it to the destination's settings"
    ):
        render(_get("https://h.example/{settings.key}"), {})


def test_a_parameter_name_without_its_setting_is_an_error_even_when_optional() -> None:
    """A name that cannot be written must not drop the click id silently."""
    template = _get("https://h.example/", Parameter("{settings.c}", "{click_id}", optional=True))
    with pytest.raises(RenderError, match=r"\{settings.c\} has no value"):
        render(template, {"click_id": "t"})


def test_a_parameter_that_the_url_carries_is_not_added_again() -> None:
    """The account's URL has its own place for it."""
    template = _get("{settings.url}", Parameter("c", "{click_id}"), Parameter("v", "{value}"))
    values = {"settings.url": "https://h.example/p?x={click_id}", "click_id": "t", "value": "1"}
    assert render(template, values).url == "https://h.example/p?x=t&v=1"


def test_a_last_parameter_that_the_url_carries_is_refused() -> None:
    """What would be appended behind it would make it not the last."""
    template = _get("{settings.url}", Parameter("sspdata", "{click_id}", last=True))
    with pytest.raises(RenderError, match="sspdata must be the last parameter"):
        render(template, {"settings.url": "https://h.example/?sspdata={click_id}", "click_id": "t"})


@pytest.mark.parametrize(
    ("base", "url"),
    [
        ("https://h.example/p", "https://h.example/p?c=t"),
        ("https://h.example/p?", "https://h.example/p?c=t"),
        ("https://h.example/p?a=1", "https://h.example/p?a=1&c=t"),
        ("https://h.example/p?a=1&", "https://h.example/p?a=1&c=t"),
    ],
)
def test_parameters_join_whatever_query_there_is(base: str, url: str) -> None:
    """One separator, neither none nor two."""
    assert render(_get(base, Parameter("c", "{click_id}")), {"click_id": "t"}).url == url


def test_an_optional_value_that_breaks_its_limit_is_left_out_with_a_note() -> None:
    """The conversion still counts, and the evidence says what is missing and why."""
    template = _get("https://h.example/", Parameter("o", "{order_id}", optional=True, max_length=3))
    rendered = render(template, {"order_id": "1234"})
    assert rendered.url == "https://h.example/"
    assert rendered.notes == ("o left out: '1234' has 4 characters, the network takes 3",)


def test_a_required_value_that_breaks_its_limit_is_an_error() -> None:
    """It cannot be sent, and cutting it would send another."""
    template = _get("https://h.example/", Parameter("o", "{order_id}", pattern="[0-9]+"))
    with pytest.raises(RenderError, match="not of the form the network takes"):
        render(template, {"order_id": "A1"})


def test_a_limit_counts_characters_before_encoding() -> None:
    """Twenty spaces are twenty characters, however long they are on the wire."""
    template = _get("https://h.example/", Parameter("o", "{params.o}", max_length=20))
    assert render(template, {"params.o": " " * 20}).url.endswith("%20" * 20)


def test_a_value_that_is_encoded_by_contract_goes_out_verbatim() -> None:
    """It is checked, not encoded a second time."""
    template = _get("https://h.example/", Parameter("c", "{click_id}", encoded=True))
    assert render(template, {"click_id": "a%2Fb."}).url == "https://h.example/?c=a%2Fb."
    for broken in ("a b", "a%2", "a&b=c", "a#b"):
        with pytest.raises(RenderError, match="must be percent-encoded already"):
            render(template, {"click_id": broken})


def test_a_header_cannot_be_split_by_a_value() -> None:
    """A line break in a value would write a header of its own."""
    template = Template("GET", "https://h.example/", headers=(("X-Order", "{params.o}"),))
    assert render(template, {"params.o": "a b"}).headers == (("X-Order", "a b"),)
    for broken in ("a\r\nX-Evil: 1", "a\nb", "a\x00b"):
        with pytest.raises(RenderError, match="X-Order"):
            render(template, {"params.o": broken})


def test_method_and_body_may_be_the_accounts() -> None:
    """The generic endpoint says how it is called and with what."""
    template = Template("{settings.method}", "https://h.example/", body="{settings.body}")
    values = {"settings.method": "PUT", "settings.body": "id={click_id}", "click_id": "t."}
    rendered = render(template, values)
    assert (rendered.method, rendered.body) == ("PUT", "id=t.")


@pytest.mark.parametrize(
    ("content_type", "body"),
    [
        ("application/json", '{"o": "a\\"b&c"}'),
        ("application/vnd.api+json; charset=utf-8", '{"o": "a\\"b&c"}'),
        ("application/x-www-form-urlencoded", '{"o": "a%22b%26c"}'),
        ("text/plain", '{"o": "a"b&c"}'),
    ],
)
def test_a_body_writes_values_as_its_content_type_has_them(content_type: str, body: str) -> None:
    """JSON escapes, forms percent-encode, plain text does neither."""
    headers = (("content-type", content_type),)
    template = Template("POST", "https://h.example/", headers=headers, body='{"o": "{params.o}"}')
    assert render(template, {"params.o": 'a"b&c'}).body == body
