"""Laws of asking before release: an answer always means something, and nothing is released by accident."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from schemas.check import (
    NO_ANSWER,
    AskAgain,
    Asked,
    CheckBodyRule,
    CheckVerdict,
    ReleaseCheck,
    decide_check,
    judge_check,
)
from schemas.exchange import Answer, Failure, FailureKind, Hop

NOW = datetime(2026, 11, 22, tzinfo=UTC)
STATUSES = st.sampled_from(["2xx", "200", "204", "4xx", "404", "410", "401", "429"])
WORDS = st.sampled_from(["paid", "refunded", "unknown", ""])


@st.composite
def policies(draw: st.DrawFn) -> ReleaseCheck:
    release = draw(st.lists(STATUSES, max_size=3))
    rules = st.builds(
        CheckBodyRule,
        on=st.lists(STATUSES, max_size=2).map(tuple),
        regex=WORDS,
        verdict=st.sampled_from(["release", "void", "again"]),
    )
    try:
        return ReleaseCheck(
            url="https://orders.example/{order_id}",
            release=tuple(release),
            void=tuple(draw(st.lists(STATUSES, max_size=3))),
            body=tuple(draw(st.lists(rules, max_size=3))),
            body_required=draw(st.booleans()),
            again=AskAgain(jitter=draw(st.floats(0, 0.9))),
        )
    except ValidationError:
        return ReleaseCheck(url="https://orders.example/{order_id}")


@st.composite
def answers(draw: st.DrawFn) -> tuple[Answer, str | None]:
    status = draw(st.none() | st.integers(100, 599))
    error = draw(st.none() | st.just("cut off"))
    hop = Hop(1, "https://orders.example/", "GET", NOW, b"", status_code=status, body_error=error)
    failure = draw(st.none() | st.sampled_from(FailureKind).map(lambda kind: Failure(kind, True, "X", "x")))
    hops = draw(st.sampled_from([(), (hop,)]))
    return Answer(hops, failure), draw(st.none() | WORDS)


@given(policies(), answers())
def test_nothing_is_released_unless_a_rule_says_so(
    check: ReleaseCheck, answered: tuple[Answer, str | None]
) -> None:
    """Every answer has a verdict; a release means a whole answer, whose status or body a release rule names."""
    answer, body = answered
    verdict = judge_check(check, answer, body)
    if verdict.kind == "again":
        return
    assert answer.failure is None
    last = answer.last
    assert last is not None
    assert last.status_code is not None
    assert last.body_error is None
    exact = str(last.status_code)
    names = {exact} if exact in NO_ANSWER else {exact, f"{exact[0]}xx"}
    by_body = [
        rule.verdict for rule in check.body if names & set(rule.on) and re.search(rule.regex, body or "")
    ]
    statuses = check.release if verdict.kind == "release" else check.void
    by_status = bool(names & set(statuses)) and not (verdict.kind == "release" and check.body_required)
    assert by_body[:1] == [verdict.kind] or (not by_body and by_status)
    assert exact[0] in "24"


@given(
    policies(),
    st.sampled_from(["release", "void", "again"]),
    st.integers(1, 10_000),
    st.integers(0, 10**6),
    st.none() | st.integers(0, 10**6),
    st.floats(0, 1, exclude_max=True),
)
def test_what_is_asked_again_is_asked_within_its_horizon(  # noqa: PLR0917 — one a drawn value
    check: ReleaseCheck, kind: str, number: int, asked_for: int, attempted: int | None, draw: float
) -> None:
    """Only a release verdict releases, and after silence a postback waits for a while that is not negative, or ends."""
    first = None if attempted is None else NOW - timedelta(seconds=attempted)
    asked = Asked(number, NOW - timedelta(seconds=asked_for), first, timedelta(days=3))
    decision = decide_check(check, asked, CheckVerdict(kind, "status 1"), NOW, draw)  # type: ignore[arg-type]  # drawn from its values
    assert (decision.move == "release") == (kind == "release")
    if decision.move == "again":
        assert decision.delay is not None
        assert timedelta(0) < decision.delay
        assert NOW + decision.delay <= asked.asked_since + check.horizon
    else:
        assert decision.delay is None
