"""Laws of the breaker, over whatever it may hear in whatever order."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from schemas.breaker import (
    PROBES,
    Breaker,
    BreakerPolicy,
    BreakerState,
    Heard,
    Tally,
    advance,
    closed,
    cooldown,
    look,
    send_probes,
)

NOW = datetime(2026, 12, 6, 9, tzinfo=UTC)
counts = st.integers(0, 60)
seconds = st.integers(0, 300)
policies = st.builds(
    BreakerPolicy,
    failures=st.integers(2, 50),
    share=st.floats(0.5, 1),
    window=st.integers(1, 120).map(lambda s: timedelta(seconds=s)),
    cooldown=st.integers(2, 60).map(lambda s: timedelta(seconds=s)),
    cap=st.integers(60, 600).map(lambda s: timedelta(seconds=s)),
)
tallies = st.tuples(counts, counts)
steps = st.lists(
    st.tuples(seconds, tallies, st.integers(0, PROBES), st.integers(0, PROBES), st.integers(0, PROBES)),
    max_size=30,
)


def lives(policy: BreakerPolicy, told: list[tuple[int, tuple[int, int], int, int, int]]) -> list[Breaker]:
    """Every breaker of one life: time passes, probes go when it wants some, and outcomes are told."""
    now, breaker = NOW, closed(NOW)
    life = [breaker]
    for passed, (down, up), probes, probes_down, probes_up in told:
        now += timedelta(seconds=passed)
        breaker = look(breaker, now)
        if breaker.wants_probes:
            breaker = send_probes(breaker, probes, now, timedelta(seconds=30))
        life.append(breaker)
        breaker = advance(breaker, Heard((Tally(now, down, up),), probes_down, probes_up), now, policy)
        life.append(breaker)
    return life


@given(policies, steps)
def test_it_is_always_in_one_of_its_states_and_says_until_when(policy: BreakerPolicy, told: list) -> None:
    """Total: open has an end and a reason, closed has neither, and it is never open for longer than the cap."""
    for breaker in lives(policy, told):
        match breaker.state:
            case BreakerState.OPEN:
                assert breaker.until is not None
                assert policy.cooldown <= breaker.until - breaker.since <= policy.cap
                assert breaker.trips >= 1
                assert breaker.says
            case BreakerState.HALF_OPEN:
                assert breaker.trips >= 1
                assert (breaker.until is None) == (breaker.probes == 0)
                assert 0 <= breaker.failed < max(breaker.probes, PROBES + 1)
            case BreakerState.CLOSED:
                assert (breaker.until, breaker.trips, breaker.probes, breaker.says) == (None, 0, 0, "")


@given(policies, st.lists(tallies, max_size=40))
def test_it_opens_only_after_enough_failures_and_never_while_too_many_are_answered(
    policy: BreakerPolicy, told: list[tuple[int, int]]
) -> None:
    """At one instant: the failures told are at least the policy's, and the last batch has its share of them."""
    breaker = closed(NOW)
    failures = 0
    for down, up in told:
        failures += down
        breaker = advance(breaker, Heard((Tally(NOW, down, up),)), NOW, policy)
        if breaker.state is BreakerState.OPEN:
            assert failures >= policy.failures
            # Answers that alone are more than the rest of what counts cannot be outweighed.
            assert up == 0 or down + policy.failures / policy.share >= policy.share * (down + up)
            return


@given(policies, st.lists(counts, max_size=40))
def test_answers_alone_never_open_it(policy: BreakerPolicy, told: list[int]) -> None:
    breaker = closed(NOW)
    for up in told:
        breaker = advance(breaker, Heard((Tally(NOW, 0, up),)), NOW, policy)
    assert breaker == closed(NOW)


@given(policies, st.lists(tallies, max_size=40))
def test_what_it_remembers_is_bounded(policy: BreakerPolicy, told: list[tuple[int, int]]) -> None:
    """Never more batches than outcomes that count; and nothing without a failure among them."""
    breaker = closed(NOW)
    for down, up in told:
        breaker = advance(breaker, Heard((Tally(NOW, down, up),)), NOW, policy)
        assert len(breaker.recent) <= policy.failures / policy.share + 1
        assert not breaker.recent or any(tally.down for tally in breaker.recent)


@given(policies, st.integers(1, 10_000))
def test_cooldowns_never_shrink_and_never_pass_the_cap(policy: BreakerPolicy, trips: int) -> None:
    assert cooldown(trips, policy) <= cooldown(trips + 1, policy) <= policy.cap


@given(policies, steps, st.integers(1, PROBES))
def test_from_wherever_it_is_an_answered_probe_closes_it(
    policy: BreakerPolicy, told: list, probes: int
) -> None:
    """No history keeps a network that answers from being used again, a cap and the probes' patience later."""
    breaker = lives(policy, told)[-1]
    later = NOW + timedelta(days=1)
    half_open = look(breaker, later)
    if half_open.state is BreakerState.CLOSED:
        return
    out = send_probes(half_open, probes, later, timedelta(seconds=30))
    assert advance(out, Heard(probes_up=1), later, policy) == closed(later)
