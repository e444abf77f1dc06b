"""Charts as geometry: nothing is drawn outside, nothing that is there is left out, and words say the same."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from investigations.console.charts import CLASSES, HEIGHT, WIDTH, attempts_chart
from schemas.verdict import VerdictKind

START = datetime(2026, 11, 22, tzinfo=UTC)
counts = st.dictionaries(st.sampled_from(list(VerdictKind)), st.integers(0, 10_000_000))


def test_every_verdict_is_drawn_once() -> None:
    drawn = [kind for kinds in CLASSES.values() for kind in kinds]
    assert sorted(drawn) == sorted(VerdictKind)


@given(st.lists(counts, max_size=90))
def test_a_chart_stays_in_its_frame_and_shows_all_that_is_there(spans: list[dict[VerdictKind, int]]) -> None:
    chart = attempts_chart([(START + timedelta(hours=n), each) for n, each in enumerate(spans)], 3600)
    for bar in chart.bars:
        assert 0 <= bar.x <= bar.x + bar.width <= WIDTH + 0.01
        assert 0 <= bar.y <= HEIGHT
        assert 1 <= bar.height <= HEIGHT
    there = sum(any(each.get(kind) for kind in kinds) for each in spans for kinds in CLASSES.values())
    assert len(chart.bars) == there
    assert sum(column.total for column in chart.columns) == sum(sum(each.values()) for each in spans)


def test_the_highest_column_fills_the_height_and_is_named() -> None:
    spans = [
        (START, {VerdictKind.DELIVERED: 5}),
        (
            START + timedelta(minutes=30),
            {VerdictKind.DELIVERED: 8, VerdictKind.RETRY: 1, VerdictKind.IN_DOUBT: 1},
        ),
    ]
    chart = attempts_chart(spans, 1800)
    second = [bar for bar in chart.bars if bar.x > WIDTH / 2]
    assert [bar.kind for bar in second] == ["good", "again", "bad"]
    assert round(sum(bar.height for bar in second)) == HEIGHT
    assert chart.peak == 10
    assert chart.words == (
        "15 attempts: 13 delivered, 1 to be tried again, 1 rejected or in doubt. "
        "Most, 10, in the 30 minutes from 2026-11-22 00:30 UTC."
    )


def test_nothing_is_said_to_be_nothing() -> None:
    chart = attempts_chart([(START, {}), (START, {VerdictKind.RETRY: 0})], 300)
    assert (chart.bars, chart.peak, chart.words) == ((), 0, "No attempt in this time.")
