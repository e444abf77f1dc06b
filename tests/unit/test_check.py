"""What a service's answer means before release, what is done with it, and what a check may say."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from pydantic import ValidationError

from infra.catalogue import load_catalogue
from schemas.check import Asked, CheckVerdict, ReleaseCheck, decide_check, judge_check
from schemas.checking import check as findings
from schemas.destination import Contract, Destination, join
from schemas.exchange import Answer, Failure, FailureKind, Hop
from schemas.signals import VoidReason
from workers.asking import whole_body

NOW = datetime(2026, 11, 22, tzinfo=UTC)
URL = "https://orders.example/orders/{order_id}"
VOIDED = {"regex": "refunded", "verdict": "void", "reason": "refunded"}


def hop(status: int | None = 200, body: bytes = b"", **fields: Any) -> Hop:
    return Hop(
        1,
        "https://orders.example/",
        "GET",
        NOW,
        b"GET / HTTP/1.1\r\n",
        status_code=status,
        body=body,
        **fields,
    )


def judged(given: Hop, **fields: Any) -> tuple[str, str, str | None]:
    verdict = judge_check(ReleaseCheck(url=URL, **fields), Answer((given,)), whole_body(given))
    return verdict.kind, verdict.rule, verdict.reason


def contract(**check: Any) -> Contract:
    hold = {"kind": "refund", "wait": "14d", "check": {"url": URL} | check}
    destination = {"network": "xandr", "settings": {"id": "25619"}, "events": ["purchase"], "hold": hold}
    return join("d", Destination.model_validate(destination), load_catalogue()["xandr"])


@pytest.mark.parametrize(
    ("status", "kind"),
    [(200, "release"), (204, "release"), (404, "void"), (410, "void")]
    + [(status, "again") for status in (302, 400, 401, 403, 418, 429, 500, 503)],
)
def test_statuses_decide_where_no_body_rule_does(status: int, kind: str) -> None:
    """2xx releases, 404 and 410 void, and everything else asks again."""
    assert judged(hop(status))[:2] == (kind, f"status {status}")


@pytest.mark.parametrize(("status", "kind"), [(409, "void"), (401, "again"), (403, "void"), (429, "again")])
def test_a_class_does_not_cover_what_says_nothing_of_the_order(status: int, kind: str) -> None:
    """A refused key must not void every order: who means 403 names it."""
    assert judged(hop(status), void=["4xx", "403"])[0] == kind


def test_the_exact_status_goes_before_its_class() -> None:
    """``void = ["204"]`` is an exception from ``release = ["2xx"]``, and the other way round."""
    assert judged(hop(204), void=["204"])[0] == "void"
    assert judged(hop(404), release=["404"], void=["4xx"])[0] == "release"


def test_body_rules_go_first_in_their_order() -> None:
    """The first that matches holds, and says what a void is recorded as."""
    rules = [VOIDED, {"regex": "paid", "verdict": "release"}, {"regex": "late", "verdict": "again"}]
    assert judged(hop(200, b"paid, refunded"), body=rules) == (
        "void",
        "status 200, body ~ refunded",
        "refunded",
    )
    assert judged(hop(200, b"late"), body=rules)[0] == "again"
    assert judged(hop(404, b"paid"), body=rules) == ("void", "status 404", "cancelled")


def test_a_required_body_that_no_rule_knows_asks_again() -> None:
    """A maintenance page with status 200 releases nothing."""
    rules = [{"regex": "paid", "verdict": "release"}]
    assert judged(hop(200, b"<html>"), body=rules, body_required=True)[0] == "again"
    assert judged(hop(200, b"paid"), body=rules, body_required=True)[0] == "release"


@pytest.mark.parametrize(
    "given",
    [
        hop(200, b"ok", truncated=True),
        hop(200, b"\x1f\x8bnonsense", response_head=b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\n"),
        hop(200, b"ok", response_head=b"HTTP/1.1 200 OK\r\nContent-Encoding: br\r\n"),
        hop(200, "refunded".encode("utf-16")),
        hop(200, b"ok", body_error="ClientPayloadError: cut off"),
    ],
    ids=["truncated", "broken gzip", "unknown coding", "utf-16", "cut off"],
)
def test_a_body_that_was_not_read_whole_releases_nothing_where_it_counts(given: Hop) -> None:
    """A rule might have matched in what nobody saw."""
    assert judged(given, body=[VOIDED])[0] == "again"


def test_a_failure_asks_again() -> None:
    """Nothing that the wire does releases or voids."""
    for kind in FailureKind:
        answer = Answer((hop(200),), Failure(kind, True, "X", "x"))
        assert judge_check(ReleaseCheck(url=URL), answer, "") == CheckVerdict("again", str(kind))
    assert judge_check(ReleaseCheck(url=URL), Answer(()), None).kind == "again"


def decided(check: ReleaseCheck, number: int = 1, since: str = "0s", **fields: Any) -> Any:
    began = NOW - timedelta(seconds=float(since[:-1]))
    asked = Asked(number, began, fields.pop("first_attempt_at", None), timedelta(days=3), **fields)
    return decide_check(check, asked, CheckVerdict("again", "status 503"), NOW, 0.5)


def test_it_is_asked_again_later_each_time_and_never_after_its_horizon() -> None:
    """One minute, two, four, up to the hour; the last question is put when the horizon ends."""
    check = ReleaseCheck(url=URL)
    waits = [decided(check, number).delay for number in (1, 2, 3)]
    assert waits == [timedelta(minutes=1), timedelta(minutes=2), timedelta(minutes=4)]
    assert decided(check, 50, since=f"{3 * 86400 - 90}s").delay == timedelta(seconds=90)
    assert decided(check, retry_after=timedelta(hours=2)).delay >= timedelta(hours=2)


def test_the_end_of_the_horizon_voids_unless_told_otherwise() -> None:
    """Released only where the advertiser chose so."""
    end = f"{3 * 86400}s"
    voided = decided(ReleaseCheck(url=URL), since=end)
    assert (voided.move, voided.void_reason) == ("void", VoidReason.UNCONFIRMED)
    assert voided.reason == "its service gave no answer to go by within 3d (last: status 503)"
    assert decided(ReleaseCheck(url=URL, on_horizon="release"), since=end).move == "release"


def test_what_was_attempted_is_not_asked_about_after_its_retry_horizon() -> None:
    """No attempt starts later than that."""
    assert decided(ReleaseCheck(url=URL), first_attempt_at=NOW - timedelta(days=3)).move == "void"


@pytest.mark.parametrize(
    ("table", "said"),
    [
        ({"release": ["3xx"]}, "a redirect or a failure always means asking again"),
        ({"void": ["503"]}, "a redirect or a failure always means asking again"),
        ({"body": [{**VOIDED, "on": ["5xx"]}]}, "a redirect or a failure always means asking again"),
        ({"release": ["2xx", "404"]}, "404 stands in release and in void"),
        ({"body_required": True}, "no rule releases anything"),
        ({"release": []}, "no rule releases anything"),
        ({"body": [{"regex": "(", "verdict": "void"}]}, "no regular expression"),
        ({"body": [{**VOIDED, "verdict": "again"}]}, 'it goes with verdict = "void"'),
        ({"fresh": "1s"}, "greater than or equal to"),
        ({"when_down": "release"}, "Extra inputs"),
    ],
)
def test_a_check_that_could_release_by_accident_is_refused(table: dict[str, Any], said: str) -> None:
    """Each with its reason."""
    with pytest.raises(ValidationError, match=said.replace("(", r"\(")):
        ReleaseCheck.model_validate({"url": URL, **table})


@pytest.mark.parametrize(
    ("table", "field", "reason"),
    [
        ({"url": "orders.example"}, "url", "is no http(s) URL"),
        ({"url": "http://orders.example/{order_id}"}, "url", "is plain http"),
        ({"url": "https://{params.host}/x"}, "url", "takes its host from the event"),
        ({"url": "https://orders.example/{order}"}, "url", "{order} is no macro of an event"),
        ({"url": "https://orders.example/{settings.id}"}, "url", "{settings.id} is no macro of an event"),
        ({"url": "https://orders.example/[ORDER]"}, "url", "has [ORDER], which nothing here replaces"),
        ({"url": "https://u:p@orders.example/"}, "url", "carries a user or password"),
        ({"headers": {"X-Order": "{orders}"}}, "headers.X-Order", "{orders} is no macro of an event"),
    ],
)
def test_a_question_that_cannot_be_put_is_refused(table: dict[str, Any], field: str, reason: str) -> None:
    """With its key."""
    found = [(problem.field, problem.reason) for problem in findings(contract(**table)).problems]
    assert any(key == f"destinations.d.hold.check.{field}" and reason in said for key, said in found), found


def test_plain_http_to_a_service_of_one_s_own_is_a_warning_where_it_is_allowed() -> None:
    """It is said for the check by itself, and an address inside is nothing to warn of."""
    found = findings(contract(url="http://orders.internal/{order_id}", allow_http=True, allow_private=True))
    assert [warning.field for warning in found.warnings] == ["destinations.d.hold.check.url"]
    assert found.problems == []


def test_the_age_limit_counts_the_horizon_of_the_question() -> None:
    """Wait, horizon of the check and retry horizon together must fit, and the message shows the sum."""
    whole = contract().model_dump(mode="json")
    whole["network"]["age_limit"] = {"wait": "18d", "measured_from": "event"}
    (problem,) = findings(Contract.model_validate(whole)).problems
    assert "wait 14d + check.horizon 3d + retry horizon 3d = 20d" in problem.reason
    assert problem.remedy == "Shorten the wait, check.horizon or retry.horizon"


def test_secrets_of_checks_are_named_by_their_place() -> None:
    """One for each policy that has one."""
    hold = contract().destination.hold.model_dump(mode="json", exclude_none=True)
    key = {"kind": "header", "value": {"env": "KEY"}}
    token = {"kind": "bearer", "token": {"env": "TOKEN"}}
    destination = Destination.model_validate(
        {
            "network": "xandr",
            "events": ["purchase", "lead"],
            "hold": {**hold, "check": {"url": URL, "auth": key}},
            "holds": [{"events": ["lead"], "hold": {**hold, "check": {"url": URL, "auth": token}}}],
        }
    )
    assert {place: ref.env for place, ref in destination.secret_refs().items()} == {
        "hold.check.auth.value": "KEY",
        "holds.0.hold.check.auth.token": "TOKEN",
    }


def test_a_policy_says_whom_it_asks() -> None:
    """In the words that listings and trails use."""
    assert contract().destination.hold.words() == f"refund, 14d from the event, asks {URL} before release"


def test_a_confirmation_holds_for_a_while() -> None:
    """Ten minutes, the end included."""
    check = ReleaseCheck(url=URL)
    assert check.holds(NOW - timedelta(minutes=10), NOW)
    assert not check.holds(NOW - timedelta(minutes=10, microseconds=1), NOW)
    assert not check.holds(None, NOW)


def test_a_contract_with_a_check_is_stored_and_read_back_whole() -> None:
    """What is held keeps the check it was held under."""
    whole = contract(body=[VOIDED], auth={"kind": "bearer", "token": {"file": "/run/secrets/t"}})
    stored = Contract.model_validate_json(whole.model_dump_json())
    assert stored.model_copy(update={"network": whole.network}) == whole
