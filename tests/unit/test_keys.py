"""API keys: their shape, what they may not be called, signatures, and a rate kept as one number."""

from __future__ import annotations

import hashlib
import hmac

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.keys import (
    RANDOM_BYTES,
    SIGNATURE_TOLERANCE_S,
    Grant,
    Signature,
    digest,
    is_signed,
    is_timely,
    parse_signature,
    show_token,
    sign,
    spend,
    token_key_id,
)
from schemas.problem import InvalidInputError

RANDOM = bytes(range(RANDOM_BYTES))
TOKEN = show_token(12, RANDOM)


@given(st.integers(1, 999_999_999), st.binary(min_size=RANDOM_BYTES, max_size=RANDOM_BYTES))
def test_a_key_names_its_id(key_id: int, random: bytes) -> None:
    """Whatever the random part, the id can be read off a leaked key."""
    assert token_key_id(show_token(key_id, random)) == key_id


@given(st.text())
def test_any_text_is_a_key_or_none(text: str) -> None:
    """No text makes it raise, and what it takes for a key is written exactly as a key is."""
    key_id = token_key_id(text)
    assert key_id is None or text == f"hf_{key_id}_{text[-64:]}"


@pytest.mark.parametrize(
    "text",
    ["", "hf_12_", TOKEN[:-1], TOKEN + "0", TOKEN.upper(), TOKEN + "\n", "hf_0_" + "0" * 64, "hf_\u0661_" + "0" * 64],
)  # fmt: skip
def test_what_is_cut_or_changed_is_no_key(text: str) -> None:
    """A key that was not copied whole is told from a wrong one before any hash is taken."""
    assert token_key_id(text) is None


def test_too_little_chance_makes_no_key() -> None:
    """The plain hash is safe for 256 random bits, and for nothing shorter."""
    with pytest.raises(ValueError, match="32 random bytes"):
        show_token(1, b"short")


def test_the_stored_hash_is_plain_sha256() -> None:
    """So that a leaked key can be looked for in the table by anyone with sha256sum."""
    assert digest(TOKEN) == hashlib.sha256(TOKEN.encode()).digest()


def test_a_grant_names_everything_that_is_wrong_with_it() -> None:
    """Every problem at once, each with its option."""
    with pytest.raises(InvalidInputError) as caught:
        Grant("no spaces", frozenset({"-"}), frozenset({"\n"}), 0).check()
    assert [each.field for each in caught.value.problems] == ["NAME", "--source", "--event", "--per-second"]


def test_a_signature_is_hmac_sha256_of_time_and_body() -> None:
    """As any language's HMAC makes it, the whole key being the secret."""
    expected = hmac.new(TOKEN.encode(), b"1700000000." + b'{"a": 1}', hashlib.sha256).hexdigest()
    assert sign(TOKEN, 1_700_000_000, b'{"a": 1}') == expected


@given(st.binary(max_size=200), st.integers(0, 10**11), st.binary(max_size=200))
def test_a_signature_fits_its_own_body_and_time_alone(body: bytes, at_s: int, other: bytes) -> None:
    """Read back from the header it verifies; under another body, time or key it does not."""
    read = parse_signature(f"t={at_s},key=12,v1={sign(TOKEN, at_s, body)}")
    assert read == Signature(at_s, 12, (sign(TOKEN, at_s, body),))
    assert is_signed(read, [show_token(1, RANDOM), TOKEN], body)
    assert not is_signed(read, [show_token(1, RANDOM)], body)
    assert not is_signed(read, [], body)
    assert not is_signed(Signature(at_s + 1, 12, read.values), [TOKEN], body)
    assert is_signed(read, [TOKEN], other) == (other == body)


@given(st.text())
def test_any_header_is_a_signature_or_none(header: str) -> None:
    """No header makes it raise."""
    read = parse_signature(header)
    assert read is None or read.values


@pytest.mark.parametrize(
    "header",
    [
        "",
        f"t=1,v1={'a' * 64}",
        f"key=1,v1={'a' * 64}",
        "t=1,key=1",
        f"t=1,key=1,v1={'a' * 63}",
        f"t=1,key=1,v2={'a' * 64}",
        f"t=1.5,key=1,v1={'a' * 64}",
    ],
)
def test_half_a_signature_is_none(header: str) -> None:
    """Time, key and a value of the known version: all three."""
    assert parse_signature(header) is None


def test_a_signature_is_timely_for_five_minutes_either_way() -> None:
    """The tolerance holds for clocks that are behind as for those that are ahead."""
    signature = Signature(1000, 1, ("",))
    assert is_timely(signature, 1000 + SIGNATURE_TOLERANCE_S)
    assert is_timely(signature, 1000 - SIGNATURE_TOLERANCE_S)
    assert not is_timely(signature, 1001 + SIGNATURE_TOLERANCE_S)
    assert not is_timely(signature, 999 - SIGNATURE_TOLERANCE_S)


@given(
    st.integers(1, 1000),
    st.lists(st.floats(0, 0.5), min_size=1, max_size=300),
)
def test_no_stretch_of_time_takes_more_than_rate_and_burst(per_second: int, gaps: list[float]) -> None:
    """Between any two instants: at most a burst, and the rate times what passed."""
    now, until = 1000.0, 0.0
    taken: list[float] = []
    for gap in gaps:
        now += gap
        until, wait_s = spend(until, now, per_second)
        if wait_s <= 0:
            taken.append(now)
    for first, at in enumerate(taken):
        within = [each for each in taken[first:] if each - at <= 1.0]
        assert len(within) <= max(per_second, 1) + per_second * (within[-1] - at) + 1e-6


@given(st.integers(1, 1000), st.integers(0, 50))
def test_who_waits_as_told_is_let_in(per_second: int, further: int) -> None:
    """A whole second's worth goes at once; the wait that the next one is told is exactly enough."""
    until = 0.0
    for _ in range(per_second):
        until, wait_s = spend(until, 5.0, per_second)
        assert wait_s == 0
    for _ in range(further + 1):
        same, wait_s = spend(until, 5.0, per_second)
        assert (same, wait_s > 0) == (until, True)
    _, wait_s = spend(until, 5.0 + wait_s, per_second)
    assert wait_s == 0
