"""Laws of redaction: no secret leaks in any of its writings, and no click id is touched."""

from __future__ import annotations

import base64
import html
import json
import re
from collections.abc import Callable
from urllib.parse import quote, quote_plus

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from schemas.redaction import Redactor, mask

quick = settings(max_examples=60, deadline=None)
thorough = settings(max_examples=300, deadline=None)

characters = st.characters(exclude_categories=["Cs", "Cc"])
secrets = st.text(characters, min_size=8, max_size=40) | st.text(
    st.sampled_from("aB3+/=&%'\"<> !*()~.é€😀\\"), min_size=8, max_size=20
)
surroundings = st.text(characters, max_size=40).map(str.encode)
click_ids = st.text(st.sampled_from("abcXYZ0189-._~=+/"), min_size=1, max_size=80)


def _js(text: str) -> str:
    """As a browser's encodeURIComponent writes it: it leaves !'()* alone."""
    return quote(text, safe="!'()*")


WRITINGS: dict[str, Callable[[str], str]] = {
    "raw": str,
    "percent": lambda text: quote(text, safe=""),
    "percent in lower case": lambda text: re.sub("%..", lambda m: m[0].lower(), quote(text, safe="")),
    "percent, slashes kept": quote,
    "percent as a browser does it": _js,
    "percent of every byte": lambda text: "".join(f"%{byte:02X}" for byte in text.encode()),
    "percent twice": lambda text: quote(quote(text, safe=""), safe=""),
    "form": quote_plus,
    "html": html.escape,
    "html, quotes kept": lambda text: html.escape(text, quote=False),
    "html in numbers": lambda text: "".join(c if c.isalnum() else f"&#{ord(c)};" for c in text),
    "html of percent": lambda text: html.escape(quote(text, safe="'\"&")),
    "json": lambda text: json.dumps(text)[1:-1],
    "json, not ASCII alone": lambda text: json.dumps(text, ensure_ascii=False)[1:-1],
    "json with escaped slashes": lambda text: json.dumps(text)[1:-1].replace("/", "\\/"),
    "json safe for html": lambda text: re.sub(
        "[&<>']", lambda m: f"\\u{ord(m[0]):04x}", json.dumps(text)[1:-1]
    ),
    "json in upper-case escapes": lambda text: re.sub(
        r"\\u....", lambda m: "\\u" + m[0][2:].upper(), json.dumps(text)[1:-1]
    ),
    "hexadecimal": lambda text: text.encode().hex(),
    "base64": lambda text: base64.b64encode(text.encode()).decode(),
    "base64 for URLs": lambda text: base64.urlsafe_b64encode(text.encode()).decode().rstrip("="),
    "base64 inside a query": lambda text: quote(base64.b64encode(text.encode()).decode(), safe=""),
}
names = st.sampled_from(list(WRITINGS))


def _written(name: str, secret: str) -> bytes:
    """The secret in one writing; of base64 only what its own bytes decide, since its end also holds neighbours."""
    written = WRITINGS[name](secret)
    if name.startswith("base64"):
        written = re.sub("(=|%3D)+$", "", written)
        return (written[:-1] if len(secret.encode()) % 3 else written).encode()
    return written.encode()


def _outside_masks(data: bytes, secret: str) -> list[bytes]:
    """What is left of evidence beside the masks."""
    return data.split(mask(secret).encode())


@thorough
@given(names, secrets, surroundings, surroundings)
def test_no_writing_of_a_secret_is_left_anywhere(name: str, secret: str, before: bytes, after: bytes) -> None:
    """Wherever it stands in a request, a header or an echoed body, only the mask is left of it."""
    written = _written(name, secret)
    shown = Redactor((secret,)).in_bytes(before + written + after)
    assert mask(secret).encode() in shown
    assert not any(written in part for part in _outside_masks(shown, secret))


@quick
@given(secrets, surroundings, surroundings, st.integers(0, 2))
def test_base64_hides_no_secret_at_any_alignment(secret: str, before: bytes, after: bytes, lead: int) -> None:
    """Inside a longer encoded whole, as in Basic credentials, no more than the edges of the secret stay."""
    whole = base64.b64encode(b"u" * lead + secret.encode() + b":x")
    shown = Redactor((secret,)).in_bytes(before + b" " + whole + b" " + after)
    assert mask(secret).encode() in shown
    longest = max(
        re.findall(rb"[A-Za-z0-9+/]*", shown.split(mask(secret).encode())[0].rpartition(b" ")[2]), key=len
    )
    assert len(longest) <= 4


@thorough
@given(names, secrets, surroundings, st.data())
def test_a_truncated_body_keeps_no_head_of_a_secret(
    name: str, secret: str, before: bytes, data: st.DataObject
) -> None:
    """Cut anywhere inside a secret, from its fourth byte on, the head is masked with the rest."""
    written = _written(name, secret)
    cut = data.draw(st.integers(4, len(written)))
    shown = Redactor((secret,)).in_bytes(before + written[:cut], truncated=True)
    assert shown.endswith(mask(secret).encode())
    assert not any(written[:cut] in part for part in _outside_masks(shown, secret))


@quick
@given(st.lists(secrets, min_size=2, max_size=3, unique=True), st.lists(surroundings, min_size=4, max_size=4))
def test_several_secrets_are_masked_side_by_side(kept: list[str], between: list[bytes]) -> None:
    """One body may echo all of them, one after the other."""
    assume(not any(a in b for a in kept for b in kept if a != b))
    body = between[0] + b"".join(
        secret.encode() + rest for secret, rest in zip(kept, between[1:], strict=False)
    )
    shown = Redactor(tuple(kept)).in_bytes(body)
    parts = re.split(rb"\[secret:[0-9a-f]{8}\]", shown)
    assert not any(secret.encode() in part for secret in kept for part in parts)


@quick
@given(secrets, click_ids, st.booleans())
@pytest.mark.parametrize("name", ["raw", "percent", "form", "html", "json"])
def test_a_click_id_is_never_altered(name: str, secret: str, click_id: str, truncated: bool) -> None:
    """Beside a secret, and at the end of a truncated body, the click id stays byte for byte."""
    assume(secret not in click_id and click_id not in secret)
    written = WRITINGS[name](click_id).encode()
    body = b"key=" + quote(secret, safe="").encode() + b"&c=" + written
    shown = Redactor((secret,)).in_bytes(body, click_id, truncated=truncated)
    assert shown == b"key=" + mask(secret).encode() + b"&c=" + written


@quick
@given(click_ids.filter(lambda text: len(text) >= 10))
def test_a_secret_that_happens_to_stand_inside_a_click_id_leaves_it_alone(click_id: str) -> None:
    """The click id is the evidence; the same bytes outside of it are masked."""
    secret = click_id[1:9]
    assume(secret not in click_id[2:])
    shown = Redactor((secret,)).in_text(f"c={click_id} key=|{secret}|", click_id)
    assert shown == f"c={click_id} key=|{mask(secret)}|"


@quick
@given(secrets, surroundings)
def test_what_holds_no_secret_is_left_as_it_is(secret: str, data: bytes) -> None:
    """Evidence without a secret in it is not altered by a byte."""
    assume(len(data) < 8)
    assert Redactor((secret,)).in_bytes(data) == data
    assert Redactor().in_bytes(data, truncated=True) == data


@quick
@given(secrets)
def test_masking_twice_changes_nothing(secret: str) -> None:
    """A mask is not itself masked."""
    redactor = Redactor((secret,))
    once = redactor.in_text(f"<{secret}>")
    assert redactor.in_text(once) == once


@pytest.mark.parametrize("short", ["", "a", "1234567"])
def test_a_secret_too_short_to_be_told_from_chance_is_refused(short: str) -> None:
    """Seven characters are too few: masking them would alter evidence."""
    with pytest.raises(ValueError, match="at least 8 characters"):
        Redactor((short,))


def test_masks_can_be_compared_and_do_not_tell() -> None:
    """Equal secrets have equal masks, others have others, and eight hexadecimal digits are all that is shown."""
    assert mask("sk_live_1") == mask("sk_live_1") != mask("sk_live_2")
    assert re.fullmatch(r"\[secret:[0-9a-f]{8}\]", mask("sk_live_1"))
