"""Laws of firing again: total, true to the table, and deaf to force where a void stands."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from hypothesis import assume, given, settings
from hypothesis import strategies as st

from schemas.lifecycle import TABLE, Move, State
from schemas.replaying import Again, Postback, Refused, Rival, decide
from schemas.signals import VoidReason
from schemas.verdict import Dedupe

NOW = datetime(2026, 11, 22, 10, tzinfo=UTC)
quick = settings(max_examples=400, deadline=None)
instants = st.timedeltas(timedelta(days=-30), timedelta(days=30)).map(lambda since: NOW + since)
postbacks = st.builds(
    Postback,
    state=st.sampled_from(State),
    attempts=st.integers(0, 20),
    release_at=instants,
    dedupe=st.sampled_from(Dedupe),
    expires_at=st.none() | instants,
    had_unknown=st.booleans(),
    called_duplicate=st.booleans(),
    void_reason=st.none() | st.sampled_from([reason.value for reason in VoidReason]),
    taken_back=st.none() | st.sampled_from(VoidReason),
    retracted=st.booleans(),
    corrections=st.integers(0, 2),
    rival=st.none() | st.builds(Rival, st.just(9), st.sampled_from(State)),
    unrenderable=st.none() | st.just("cannot be rendered: x"),
    retired=st.booleans(),
    adjustment=st.booleans(),
    stands=st.booleans(),
)


@quick
@given(postbacks, st.booleans())
def test_every_postback_has_a_decision_that_the_table_knows(postback: Postback, force: bool) -> None:
    """Total over all there is; what fires again goes where the table lets it, what does not has a reason."""
    if postback.state in {State.DELIVERED, State.IN_DOUBT, State.DEAD}:
        assume(postback.attempts)  # none of these was never attempted
    decision = decide(postback, NOW, force=force)
    if isinstance(decision, Refused):
        assert decision.why
        assert not (force and decision.forceable)
        return
    assert decision.state in TABLE[postback.state][Move.REPLAY]
    assert force or not decision.warnings


@quick
@given(postbacks)
def test_force_adds_and_never_takes_away(postback: Postback) -> None:
    """What fires unforced fires forced alike; what only force fires was forceable, and nothing else was."""
    plain, forced = decide(postback, NOW, force=False), decide(postback, NOW, force=True)
    if isinstance(plain, Again):
        assert forced == plain
    else:
        assert plain.forceable == isinstance(forced, Again)


@quick
@given(postbacks, st.booleans())
def test_what_is_voided_or_taken_back_never_fires(postback: Postback, force: bool) -> None:
    """Forced or not: promise 2. Of a correction, what was taken back is what it tells."""
    again = isinstance(decide(postback, NOW, force=force), Again)
    voided = postback.state is State.VOIDED or postback.void_reason in {"by_hand", "unconfirmed", "withdrawn"}
    taken_back = not postback.adjustment and (postback.taken_back is not None or postback.retracted)
    assert not (again and (voided or taken_back))


@quick
@given(postbacks)
def test_what_may_count_twice_is_never_fired_unforced(postback: Postback) -> None:
    """Delivered, in another's place, or without an answer at a network that counts a repeat."""
    if not isinstance(decide(postback, NOW, force=False), Again):
        return
    assert postback.state is not State.DELIVERED
    assert postback.rival is None
    unknown = postback.had_unknown or postback.state is State.IN_DOUBT
    assert not (unknown and postback.dedupe is Dedupe.COUNTED_TWICE)
