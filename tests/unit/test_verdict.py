"""What an answer means: body rules first, then the most exact status, and silence is never success."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from pydantic import ValidationError

from schemas.exchange import Answer, Failure, FailureKind, Hop
from schemas.verdict import AnswerRules, BodyRule, VerdictKind, judge

DELIVERED, RETRY, REJECTED = VerdictKind.DELIVERED, VerdictKind.RETRY, VerdictKind.REJECTED
DUPLICATE, UNKNOWN, IN_DOUBT = VerdictKind.DUPLICATE, VerdictKind.UNKNOWN, VerdictKind.IN_DOUBT


def _hop(status: int | None, body_error: str | None = None) -> Hop:
    return Hop(
        number=1,
        url="https://network.example/",
        method="GET",
        started_at=datetime(2026, 11, 22, tzinfo=UTC),
        request_head=b"GET / HTTP/1.1\r\n",
        status_code=status,
        body_error=body_error,
    )


def _answered(*statuses: int) -> Answer:
    return Answer(tuple(_hop(status) for status in statuses))


def _failed(kind: FailureKind, *, sent: bool) -> Answer:
    return Answer((), Failure(kind, sent, "SomeError", "it broke"))


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (200, DELIVERED),
        (204, DELIVERED),
        (301, REJECTED),
        (304, REJECTED),
        (400, REJECTED),
        (404, REJECTED),
        (408, RETRY),
        (425, RETRY),
        (429, RETRY),
        (500, RETRY),
        (503, RETRY),
    ],
)
def test_without_rules_of_its_own_a_network_is_read_as_http(status: int, kind: VerdictKind) -> None:
    """Success counts, what the request did wrong is final, what the server did wrong is repeated."""
    assert judge(AnswerRules(), _answered(status), "").kind is kind


def test_the_last_hop_speaks() -> None:
    """A followed redirect is judged by where it led."""
    assert judge(AnswerRules(), _answered(302, 200), "").kind is DELIVERED
    assert judge(AnswerRules(), _answered(302, 404), "").kind is REJECTED


def test_the_most_exact_status_wins() -> None:
    """404 is more exact than 4xx, whatever list it stands in."""
    rules = AnswerRules(retry=("4xx", "5xx"), rejected=("404",), duplicate=("409",))
    kinds = {status: judge(rules, _answered(status), "").kind for status in (400, 404, 409)}
    assert kinds == {400: RETRY, 404: REJECTED, 409: DUPLICATE}


@pytest.mark.parametrize(
    ("status", "kind"), [(204, IN_DOUBT), (302, REJECTED), (418, REJECTED), (500, RETRY)]
)
def test_a_status_that_no_rule_names_is_read_with_care(status: int, kind: VerdictKind) -> None:
    """A success outside the list was answered, so it is never resent by itself."""
    rules = AnswerRules(delivered=("200",), retry=(), rejected=())
    verdict = judge(rules, _answered(status), "")
    assert verdict.kind is kind
    assert "named by no rule" in verdict.rule


def test_a_body_that_reports_an_error_overrules_a_200() -> None:
    """HTTP 200 either way: the body says which."""
    rules = AnswerRules(
        body=(
            BodyRule(regex="success=true", verdict=DELIVERED),
            BodyRule(regex="success=false.*duplicate", verdict=DUPLICATE),
            BodyRule(regex="success=false", verdict=REJECTED),
        )
    )
    assert judge(rules, _answered(200), "success=true;").kind is DELIVERED
    assert judge(rules, _answered(200), "success=false; err_msg=duplicate").kind is DUPLICATE
    refused = judge(rules, _answered(200), "success=false; err_msg=unknown")
    assert refused.kind is REJECTED
    assert refused.rule == "status 200, body ~ success=false"


def test_a_body_rule_holds_only_on_its_statuses() -> None:
    """An error page that quotes the word OK is no success."""
    rules = AnswerRules(body=(BodyRule(regex="OK", verdict=DELIVERED),))
    assert judge(rules, _answered(500), "not OK").kind is RETRY
    exact = AnswerRules(body=(BodyRule(on=("404",), regex="later", verdict=RETRY),))
    assert judge(exact, _answered(404), "try later").kind is RETRY
    assert judge(exact, _answered(400), "try later").kind is REJECTED


def test_a_success_that_needs_its_body_is_in_doubt_without_it() -> None:
    """A 200 whose body no rule knows was answered: neither counted nor resent."""
    rules = AnswerRules(body=(BodyRule(regex="^OK", verdict=DELIVERED),), body_required=True)
    assert judge(rules, _answered(200), "OK").kind is DELIVERED
    assert judge(rules, _answered(200), "<html>login</html>").kind is IN_DOUBT
    unread = Answer((_hop(200, "ClientPayloadError: cut off"),))
    verdict = judge(rules, unread, "")
    assert verdict.kind is IN_DOUBT
    assert "ClientPayloadError" in verdict.rule


def test_a_body_that_could_not_be_read_in_full_is_still_an_answer() -> None:
    """The status counts: the postback is never resent for a broken body."""
    assert judge(AnswerRules(), Answer((_hop(200, "ContentEncodingError: bad gzip"),)), "").kind is DELIVERED


@pytest.mark.parametrize("kind", [FailureKind.DNS, FailureKind.CONNECT, FailureKind.TLS, FailureKind.TIMEOUT])
def test_a_failure_before_the_first_byte_is_simply_repeated(kind: FailureKind) -> None:
    """Nothing left this machine, so nothing was counted."""
    assert judge(AnswerRules(), _failed(kind, sent=False), "").kind is RETRY


@pytest.mark.parametrize(
    "kind", [FailureKind.TIMEOUT, FailureKind.RESET, FailureKind.PROTOCOL, FailureKind.CANCELLED]
)
def test_silence_after_the_request_was_sent_is_unknown(kind: FailureKind) -> None:
    """It may have been counted, and nobody here can tell."""
    verdict = judge(AnswerRules(), _failed(kind, sent=True), "")
    assert verdict.kind is UNKNOWN
    assert kind in verdict.rule


def test_an_answer_without_any_hop_is_unknown() -> None:
    """What cannot be read is not called a success, nor certain to have failed."""
    assert judge(AnswerRules(), Answer(()), "").kind is UNKNOWN
    assert judge(AnswerRules(), Answer((_hop(None),)), "").kind is UNKNOWN


def test_what_the_guard_refused_is_final() -> None:
    """A redirect to a private address will not become public by repeating it."""
    verdict = judge(AnswerRules(), _failed(FailureKind.REFUSED_BY_GUARD, sent=True), "")
    assert verdict.kind is REJECTED
    assert "it broke" in verdict.rule


@pytest.mark.parametrize("kind", [FailureKind.REDIRECT_LOOP, FailureKind.TOO_MANY_REDIRECTS])
def test_a_redirect_that_leads_nowhere_is_repeated(kind: FailureKind) -> None:
    """Every hop was answered with a redirect, so nothing was counted."""
    assert judge(AnswerRules(), _failed(kind, sent=True), "").kind is RETRY


def test_retry_after_comes_along_with_the_verdict() -> None:
    """What the network asked for is handed on."""
    wait = timedelta(seconds=7)
    assert judge(AnswerRules(), _answered(503), "", wait).retry_after == wait


@pytest.mark.parametrize("rules", [{"retry": ["600"]}, {"delivered": ["20x"]}, {"delivered": ["ok"]}])
def test_a_status_that_is_none_is_refused(rules: dict[str, object]) -> None:
    """A slip in a network file is told when it is read."""
    with pytest.raises(ValidationError, match="is no status"):
        AnswerRules.model_validate(rules)


def test_a_pattern_that_does_not_compile_is_refused() -> None:
    """It would otherwise fail on the first answer."""
    with pytest.raises(ValidationError, match="no regular expression"):
        BodyRule.model_validate({"regex": "(", "verdict": "delivered"})
