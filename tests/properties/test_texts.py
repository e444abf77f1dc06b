"""Laws of what people write: durations and identifiers come back as they were."""

from __future__ import annotations

from datetime import timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic_core import PydanticCustomError

from schemas import durations, ids

quick = settings(max_examples=300, deadline=None)
milliseconds = st.integers(0, 3650 * 86_400_000).map(lambda count: timedelta(milliseconds=count))


@quick
@given(milliseconds)
def test_a_duration_shown_is_the_duration_read(duration: timedelta) -> None:
    """Showing loses nothing, for any whole number of milliseconds up to ten years."""
    assert durations.parse(durations.show(duration)) == duration


@quick
@given(st.integers(0, 10**6), st.sampled_from(["ms", "s", "m", "h", "d", "w"]))
def test_a_duration_means_its_number_of_units(number: int, unit: str) -> None:
    """5m is five minutes; what is longer than ten years is refused."""
    expected = (
        number * {"ms": 1, "s": 1000, "m": 60_000, "h": 3_600_000, "d": 86_400_000, "w": 604_800_000}[unit]
    )
    meant = timedelta(milliseconds=expected)
    if meant <= durations.LONGEST:
        assert durations.parse(f"{number}{unit}") == meant
    else:
        with pytest.raises(PydanticCustomError, match="longer than ten years"):
            durations.parse(f"{number}{unit}")


@pytest.mark.parametrize("text", ["0.5ms", "1.0001s", "0.00001m"])
def test_what_is_finer_than_a_millisecond_is_refused(text: str) -> None:
    """It could not be shown again, so a stored policy would not be the one that was written."""
    with pytest.raises(PydanticCustomError, match="finer than a millisecond"):
        durations.parse(text)


@quick
@given(st.text(max_size=40) | st.from_regex(r"[0-9.]{1,40}(ms|s|m|h|d|w)?"))
def test_a_text_is_a_duration_or_a_reasoned_refusal(text: str) -> None:
    """Nothing that is written fails in any other way."""
    try:
        duration = durations.parse(text)
    except PydanticCustomError:
        return
    assert durations.parse(durations.show(duration)) == duration


@quick
@given(st.sampled_from(list(ids.PREFIXES)), st.integers(1, 2**63 - 1))
def test_an_identifier_shown_is_the_identifier_read(prefix: str, number: int) -> None:
    """Prefix and number come back, for every number a table can hold."""
    assert ids.parse(ids.show(prefix, number)) == (prefix, number)


@quick
@given(st.text(max_size=24))
def test_a_text_is_an_identifier_only_in_its_one_writing(text: str) -> None:
    """There is no second way to write the same identifier."""
    parsed = ids.parse(text)
    assert parsed is None or ids.show(*parsed) == text
