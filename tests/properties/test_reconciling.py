"""Laws of reconciling: it is total, it names what was done to a click id, and it finds the network's clock."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from urllib.parse import quote
from zoneinfo import ZoneInfo

from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from schemas.lifecycle import State
from schemas.reconciling.days import OurDay, Sum, counts_under, judge_day, shift_of_sums
from schemas.reconciling.facts import Elsewhere, Evidence, Ours, RefusedEvent, Terms, Theirs
from schemas.reconciling.findings import CAUSES, Bucket, Cause, Finding, Side
from schemas.reconciling.pairs import judge_pair, judge_repeat
from schemas.reconciling.rows import RowReader, Writing
from schemas.reconciling.shares import NORMAL_BELOW, STRUCTURAL_ABOVE, Standing, share, standing
from schemas.reconciling.shifts import shift_of_days
from schemas.reconciling.summary import Tally, read_summary, summarise, wire_summary
from schemas.reconciling.tokens import Shape, damage, odd_shape
from schemas.reconciling.uncounted import judge_ours
from schemas.reconciling.untold import judge_theirs

INSTANTS = st.datetimes(datetime(2026, 1, 1), datetime(2026, 12, 31), timezones=st.just(UTC))  # noqa: DTZ001 — the bounds are drawn with a zone
TOKENS = st.text("abcdefXYZ0123456789-_~+%.", min_size=12, max_size=40)
AMOUNTS = st.none() | st.decimals(0, 10_000, places=2)
EVIDENCE = st.builds(
    Evidence,
    attempt_id=st.none() | st.integers(1, 9),
    number=st.none() | st.integers(1, 9),
    rule=st.sampled_from(["", "status 200", "status 200, body ~ no", "status 302"]),
    status_code=st.none() | st.sampled_from([200, 302, 404, 503]),
    hops=st.integers(0, 3),
    last_status=st.none() | st.sampled_from([200, 302, 404]),
    failure=st.none()
    | st.sampled_from(["refused_by_guard: private", "timeout: 10 s", "redirect_loop: seen"]),
    body=st.sampled_from(["", "OK", '{"success": false}', "click not found"]),
    delivered=st.integers(0, 2),
    unknown=st.integers(0, 2),
)
OURS = st.builds(
    Ours,
    postback_id=st.integers(1, 99),
    conversion_id=st.integers(1, 99),
    state=st.sampled_from(State),
    attempts=st.integers(0, 3),
    click_id=st.none() | TOKENS,
    order_id=st.none() | st.just("order-secret"),
    value=AMOUNTS,
    currency=st.sampled_from(["EUR", "USD", "JPY", None]),
    at=st.none() | INSTANTS,
    day=st.none() | st.dates(date(2026, 1, 1), date(2026, 12, 31)),
    in_period=st.booleans(),
    retracted=st.booleans(),
    first_value=AMOUNTS,
    delivered_at=st.none() | INSTANTS,
    event_at=st.none() | INSTANTS,
    clicked_at=st.none() | INSTANTS,
    evidence=EVIDENCE,
)
THEIRS = st.builds(
    Theirs,
    line=st.integers(2, 99),
    click_id=st.none() | TOKENS,
    order_id=st.none() | st.just("order-secret"),
    value=AMOUNTS,
    currency=st.sampled_from(["EUR", "USD", None]),
    day=st.none() | st.dates(date(2026, 1, 1), date(2026, 12, 31)),
    counted=st.booleans(),
)
TERMS = st.builds(
    Terms,
    first=st.none(),
    last=st.none(),
    zone=st.sampled_from([ZoneInfo("UTC"), ZoneInfo("Asia/Kolkata")]),
    shift=st.none() | st.integers(-12, 14).map(lambda hours: timedelta(hours=hours)),
    ratio=st.none() | st.decimals("0.1", 2, places=3),
    window=st.none() | st.integers(1, 60).map(lambda days: timedelta(days=days)),
    tells_value=st.booleans(),
    delivered_means=st.sampled_from(["answered", "tried"]),
    shape=st.builds(
        Shape,
        st.integers(0, 50),
        st.integers(0, 50),
        st.integers(0, 50),
        st.integers(0, 50),
        st.integers(0, 50),
    ),
    counted_until=st.none() | INSTANTS,
)


def check(found: Finding, *ids: str | None) -> None:
    """What holds of every finding."""
    assert found.cause is None or found.cause in CAUSES
    assert found.explanation
    assert found.stake is None or found.stake >= 0
    for each in ids:
        # Short ones may stand in a word by chance.
        assert not each or len(each) < 12 or each not in found.explanation


@given(OURS, THEIRS, TERMS)
def test_every_pair_has_a_finding(ours: Ours, theirs: Theirs, terms: Terms) -> None:
    """Whatever the states and values; and no explanation names a click id or an order."""
    found = judge_pair(ours, theirs, terms)
    check(found, ours.click_id, theirs.click_id, ours.order_id)
    if found.bucket is Bucket.MATCHED:
        assert ours.told
        assert theirs.counted
    check(judge_repeat(theirs, ours), ours.click_id, theirs.click_id, ours.order_id)


@given(OURS, TERMS, st.none() | THEIRS)
def test_every_postback_without_a_row_has_a_cause(ours: Ours, terms: Terms, near: Theirs | None) -> None:
    """Total over every state, and always in the one bucket."""
    found = judge_ours(ours, terms, near)
    check(found, ours.click_id, ours.order_id, near.click_id if near else None)
    assert found.bucket is Bucket.OURS_ONLY
    assert found.cause is not None


ELSEWHERE = st.builds(Elsewhere, conversion_id=st.integers(1, 9), postback_id=st.none() | st.integers(1, 9),
                      same_destination=st.booleans(), same_click=st.booleans(), at=st.none() | INSTANTS)  # fmt: skip


@given(
    THEIRS,
    st.none() | OURS,
    st.none() | ELSEWHERE,
    st.none() | st.builds(RefusedEvent, st.integers(1, 9), st.just("x")),
)
def test_every_row_without_a_postback_has_a_cause(
    theirs: Theirs, near: Ours | None, elsewhere: Elsewhere | None, refused: RefusedEvent | None
) -> None:
    """Whatever else is known of its ids."""
    found = judge_theirs(theirs, near=near, elsewhere=elsewhere, refused=refused)
    check(found, theirs.click_id, theirs.order_id, near.click_id if near else None)
    assert found.bucket is Bucket.THEIRS_ONLY


@given(OURS.map(lambda ours: replace(ours, state=State.DELIVERED, attempts=1, retracted=False)), TERMS)
def test_a_row_that_says_the_same_is_matched(ours: Ours, terms: Terms) -> None:
    """A delivered postback and a row with its value and day agree under any terms."""
    theirs = Theirs(2, ours.click_id, ours.order_id, ours.value, ours.currency, ours.at, ours.day)
    found = judge_pair(ours, theirs, terms)
    assert (found.bucket, found.cause) == (Bucket.MATCHED, None)


@given(st.text("abcdefXYZ0123456789-_~", min_size=12, max_size=40).filter(lambda text: text != text.lower()))
def test_what_was_done_to_a_click_id_is_named(token: str) -> None:
    """Each damage by its name, and none where there is none."""
    whole = f"{token}a."
    assert damage(whole, whole) is None
    assert damage(whole, whole[:-1]) is Cause.PERIOD_LOST
    assert damage(whole, whole.lower()) is Cause.CASE_FOLDED
    assert damage(whole, whole[:10]) is Cause.TRUNCATED
    assert damage(f"{whole}+/=", quote(f"{whole}+/=", safe="")) is Cause.REENCODED
    assert damage(whole, whole[::-1].replace(".", "!")) is None


@given(TOKENS, st.integers(0, 19))
def test_too_few_click_ids_have_no_shape(token: str, counted: int) -> None:
    """From less than twenty nothing is concluded."""
    assert odd_shape(token, Shape(counted, counted, counted, 0, 99)) is None


@settings(suppress_health_check=[HealthCheck.too_slow])  # a busy box draws slowly
@given(
    st.lists(INSTANTS, min_size=30, max_size=60),
    st.integers(-12, 14).filter(bool).map(lambda hours: timedelta(hours=hours)),
)
def test_the_clock_of_a_report_of_days_is_found(instants: list[datetime], offset: timedelta) -> None:
    """Whatever is found puts at least four in five of the differing pairs on their day, and breaks no other balance."""
    days = [(at + offset).date() for at in instants]
    gaps: dict[int, int] = {}
    for at, day in zip(instants, days, strict=True):
        midnight = datetime.combine(day, datetime.min.time(), UTC)
        gap = -((at - midnight) // timedelta(seconds=900))
        gaps[gap] = gaps.get(gap, 0) + 1
    differing = sum(at.date() != day for at, day in zip(instants, days, strict=True))
    found = shift_of_days(gaps, differing)
    if differing < 5:
        assert found is None
        return
    assert found is not None
    same = sum((at + found).date() == day for at, day in zip(instants, days, strict=True))
    assert same == len(instants)


@settings(suppress_health_check=[HealthCheck.too_slow])  # a busy box draws slowly
@given(
    st.dictionaries(st.integers(0, 3000), st.integers(1, 9), min_size=20), st.integers(-12, 14).filter(bool)
)
def test_the_clock_of_a_report_of_sums_is_found(quarters: dict[int, int], hours: int) -> None:
    """The report of a clock that is off by hours agrees once that is known."""
    theirs = counts_under(quarters, timedelta(hours=hours))
    found = shift_of_sums(quarters, theirs)
    if found is not None:
        ours, now = counts_under(quarters, found), counts_under(quarters, timedelta())
        off = sum(abs(count - ours.get(day, 0)) for day, count in theirs.items())
        assert off < sum(abs(count - now.get(day, 0)) for day, count in theirs.items())


@given(st.integers(0, 50), st.integers(0, 50), st.none() | st.integers(0, 50))
def test_a_day_of_sums_is_told_to_the_last_conversion(theirs: int, ours: int, shifted: int | None) -> None:
    """What the findings of a day count is exactly by how much it differs."""
    found = list(judge_day(Sum(theirs), OurDay(Sum(ours), {}, shifted), "EUR"))
    assert sum(times for _, times in found) == abs(theirs - ours) or shifted is not None
    assert all(times > 0 for finding, times in found if finding.bucket is not Bucket.DAY_SHIFT)


@given(
    st.decimals("0", "1", places=4),
    st.decimals("0", "1", places=4),
    st.lists(st.decimals("0", "1", places=4), max_size=3),
)
def test_a_larger_share_never_stands_better(one: Decimal, other: Decimal, earlier: list[Decimal]) -> None:
    """And the borders are the rule's: 2 % and 5 %."""
    order = [Standing.NORMAL, Standing.NOTICEABLE, Standing.HIGH, Standing.STRUCTURAL]
    low, high = sorted((one, other))
    assert order.index(standing(low, earlier)) <= order.index(standing(high, earlier))
    assert (standing(one, earlier) is Standing.NORMAL) == (one < NORMAL_BELOW)
    assert (standing(one, earlier) in order[2:]) == (one > STRUCTURAL_ABOVE)


@given(st.integers(0, 1000), st.integers(0, 1000))
def test_a_share_is_a_share(part: int, whole: int) -> None:
    assume(part <= whole or whole == 0)
    assert 0 <= share(part, whole) <= 1


CURRENCIES = st.sampled_from(["EUR", "USD", None])
FINDINGS = st.lists(
    st.tuples(st.sampled_from(Bucket), st.sampled_from(Cause), st.sampled_from(Side), AMOUNTS, CURRENCIES),
    max_size=30,
)


@given(FINDINGS, st.integers(0, 50), st.integers(0, 50))
def test_a_summary_balances_and_is_read_back(
    found: list[tuple[Bucket, Cause, Side, Decimal | None, str | None]], told: int, listed: int
) -> None:
    """Buckets count what their causes count; shares stay shares; and what is written is what is read."""
    tally = Tally()
    for number, (bucket, cause, side, stake, currency) in enumerate(found):
        tally.add(Finding(bucket, cause, side, "because", stake, currency), number, number)
    summary = summarise(tally, told=told, listed=listed, earlier={})
    for each in summary.buckets:
        of_it = [cause for cause in summary.causes if cause.bucket is each.bucket]
        assert each.count == sum(cause.count for cause in of_it)
        assert 0 <= each.disputed_share <= 1
        assert 0 <= each.share <= 1
        for currency, amount in each.amounts.items():
            assert amount == sum(cause.amounts.get(currency, Decimal(0)) for cause in of_it)
    assert read_summary(wire_summary(summary)) == summary


@given(
    st.decimals(-9_999_999, 9_999_999, places=2),
    st.sampled_from([(".", ","), (",", "."), (",", " "), (".", "'"), (".", None), (",", None)]),
    st.sampled_from(["{}", "{} EUR", "€{}", "EUR {}", "€ {}"]),
)
def test_amounts_are_read_however_they_are_written(
    amount: Decimal, signs: tuple[str, str | None], around: str
) -> None:
    """Any separators, with or without the currency beside them."""
    decimal, thousands = signs
    written = f"{amount:,.2f}".replace(",", "T").replace(".", decimal).replace("T", thousands or "")
    reader = RowReader({"click_id": 0, "value": 1}, Writing(ZoneInfo("UTC"), decimal, thousands))
    row = reader.read(2, ["c", around.format(written)], "")
    assert row.problem is None
    assert row.value is not None
    assert Decimal(row.value) == amount
    assert row.currency in {None, "EUR"}


@given(st.lists(st.text(max_size=30), min_size=3, max_size=3), st.booleans())
def test_no_row_breaks_the_reader(cells: list[str], aggregated: bool) -> None:
    """Whatever stands in it: it is read, or its problem names the field, the reason and the remedy."""
    places = (
        {"occurred_at": 0, "conversions": 1, "value": 2}
        if aggregated
        else {"click_id": 0, "value": 1, "occurred_at": 2}
    )
    row = RowReader(places, Writing(ZoneInfo("Europe/Berlin"), aggregated=aggregated)).read(2, cells, "raw")
    if row.problem is not None:
        assert ": " in row.problem
    elif row.value is not None:
        Decimal(row.value)
