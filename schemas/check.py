"""Asking before release: a question put to a service of the advertiser's own, and what its answer means.

Nothing is released unless a rule says so: no answer, half an answer and an answer that cannot be read all mean that
the question is put again, until its horizon has passed.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator
from pydantic_core import PydanticCustomError

from schemas.auth import Auth
from schemas.backoff import delay
from schemas.durations import Duration, show
from schemas.exchange import Answer, FetchLimits
from schemas.signals import VoidReason
from schemas.verdict import StatusSet, regular_expression

CheckKind = Literal["release", "void", "again"]
VoidedAs = Literal["refunded", "declined", "cancelled", "charged_back"]

NO_ANSWER = frozenset({"401", "403", "407", "408", "425", "429"})
"""Client errors that say nothing about the order: a key was changed, a limit was hit. A class such as ``4xx`` does not
cover them; who means one of them names it."""


def _says_something(text: str) -> str:
    if text[0] not in "24":
        raise PydanticCustomError(
            "check_status",
            "{text} says nothing about an order: a redirect or a failure always means asking again. Use 2xx or 4xx",
            {"text": text},
        )
    return text


CheckStatus = Annotated[StatusSet, AfterValidator(_says_something)]


class _Config(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class CheckBodyRule(_Config):
    """When the status is in ``on`` and ``regex`` is found in the decoded body, ``verdict`` holds; ``reason`` is what a
    void is then recorded as, instead of ``void_as``."""

    on: tuple[CheckStatus, ...] = ("2xx",)
    regex: Annotated[str, AfterValidator(regular_expression)]
    verdict: CheckKind
    reason: VoidedAs | None = None

    @model_validator(mode="after")
    def _reason_of_a_void(self) -> Self:
        if self.reason is not None and self.verdict != "void":
            raise PydanticCustomError(
                "reason_without_void", 'reason is what a void is recorded as: it goes with verdict = "void"'
            )
        return self


class AskAgain(_Config):
    """The wait before the question is put again: ``base``, multiplied by ``factor`` each time, never above ``cap``,
    spread by ``jitter`` to both sides."""

    base: Annotated[Duration, Field(gt=timedelta(0))] = timedelta(minutes=1)
    factor: Annotated[float, Field(ge=1, le=10)] = 2.0
    cap: Annotated[Duration, Field(gt=timedelta(0))] = timedelta(hours=1)
    jitter: Annotated[float, Field(ge=0, le=0.9)] = 0.2


class ReleaseCheck(_Config):
    """A GET just before a postback fires. ``body`` rules are tried first, then statuses, the exact before its class;
    everything else asks again.

    ``body_required``: a release status counts only when a body rule says so. ``horizon``: how long it is asked without
    an answer, then ``on_horizon`` holds. ``fresh``: how long a confirmation holds: an attempt later than that asks
    anew. ``concurrency``: questions on the wire at a time in each firing process, apart from the network's own.
    """

    url: str
    headers: dict[str, str] = Field(default_factory=dict)
    auth: Auth | None = None
    release: tuple[CheckStatus, ...] = ("2xx",)
    void: tuple[CheckStatus, ...] = ("404", "410")
    body: tuple[CheckBodyRule, ...] = ()
    body_required: bool = False
    void_as: VoidedAs = "cancelled"
    again: AskAgain = AskAgain()
    horizon: Annotated[Duration, Field(gt=timedelta(0), le=timedelta(days=90))] = timedelta(days=3)
    on_horizon: Literal["void", "release"] = "void"
    fresh: Annotated[Duration, Field(ge=timedelta(seconds=10))] = timedelta(minutes=10)
    deadline: Annotated[Duration, Field(gt=timedelta(0), le=timedelta(minutes=2))] = timedelta(seconds=10)
    connect: Annotated[Duration, Field(gt=timedelta(0), le=timedelta(minutes=1))] = timedelta(seconds=5)
    body_cap: Annotated[int, Field(ge=0, le=1_048_576)] = 16_384
    concurrency: Annotated[int, Field(ge=1, le=500)] = 10
    allow_http: bool = False
    allow_private: bool = False

    @model_validator(mode="after")
    def _one_meaning(self) -> Self:
        both = sorted(set(self.release) & set(self.void))
        if both:
            raise PydanticCustomError(
                "check_status_twice",
                "{both} stands in release and in void: leave it in one of them",
                {"both": ", ".join(both)},
            )
        return self

    @model_validator(mode="after")
    def _can_release(self) -> Self:
        by_body = any(rule.verdict == "release" for rule in self.body)
        if not by_body and (self.body_required or not self.release):
            raise PydanticCustomError(
                "check_never_releases",
                "no rule releases anything: "
                'name a status in release, or a body rule with verdict = "release"',
            )
        return self

    @property
    def fetch_limits(self) -> FetchLimits:
        """A redirect is no answer: it is not followed."""
        return FetchLimits(
            deadline_s=self.deadline.total_seconds(),
            connect_s=self.connect.total_seconds(),
            body_cap_bytes=self.body_cap,
            follow_redirects=False,
            allow_private=self.allow_private,
            allow_http=self.allow_http,
        )

    def holds(self, confirmed_at: datetime | None, now: datetime) -> bool:
        """Whether what the service said then still counts now."""
        return confirmed_at is not None and now - confirmed_at <= self.fresh

    def by_status(self, status_code: int) -> CheckKind:
        """The verdict of the most exact set that names the status: ``404`` before ``4xx``."""
        for text in _namings(status_code):
            if text in self.void:
                return "void"
            if text in self.release:
                return "release"
        return "again"


def _namings(status_code: int) -> tuple[str, ...]:
    exact = str(status_code)
    return (exact,) if exact in NO_ANSWER else (exact, f"{exact[0]}xx")


@dataclass(frozen=True, slots=True)
class CheckVerdict:
    """What one answer means. ``rule`` names what gave it, for the log; ``reason`` is what a void is recorded as."""

    kind: CheckKind
    rule: str
    reason: VoidReason | None = None


def judge_check(check: ReleaseCheck, answer: Answer, body: str | None) -> CheckVerdict:
    """Judge what the service answered; total. ``body`` is the answer's whole body decoded, or None where it could not
    be read whole: then a body rule might have matched what nobody saw, so it releases nothing if there are any."""
    last = answer.last
    if answer.failure is not None or last is None or last.status_code is None:
        return CheckVerdict("again", "no answer" if answer.failure is None else str(answer.failure.kind))
    status = f"status {last.status_code}"
    if last.body_error is not None or (check.body and body is None):
        return CheckVerdict("again", f"{status}, but its body cannot be read whole")
    namings = _namings(last.status_code)
    for rule in check.body:
        if any(text in rule.on for text in namings) and re.search(rule.regex, body or ""):
            return _verdict(check, rule.verdict, f"{status}, body ~ {rule.regex}", rule.reason)
    kind = check.by_status(last.status_code)
    if kind == "release" and check.body_required:
        return CheckVerdict("again", f"{status}, but no body rule matches")
    return _verdict(check, kind, status, None)


def _verdict(check: ReleaseCheck, kind: CheckKind, rule: str, reason: VoidedAs | None) -> CheckVerdict:
    if kind == "void":
        return CheckVerdict(kind, rule, VoidReason(reason or check.void_as))
    return CheckVerdict(kind, rule)


@dataclass(frozen=True, slots=True)
class Asked:
    """What ``decide_check`` needs to know of a question that was answered, or was not."""

    number: int
    """How often it has been asked in a row without an answer to go by, this time included."""
    asked_since: datetime
    first_attempt_at: datetime | None
    retry_horizon: timedelta
    retry_after: timedelta | None = None
    """What the service asked for, where it did."""


@dataclass(frozen=True, slots=True)
class CheckDecision:
    """What becomes of the postback. ``delay``: of one that is asked about again."""

    move: CheckKind
    reason: str
    void_reason: VoidReason | None = None
    delay: timedelta | None = None


def decide_check(
    check: ReleaseCheck, asked: Asked, verdict: CheckVerdict, now: datetime, draw: float
) -> CheckDecision:
    """What becomes of a postback that was asked about, total over every verdict. ``draw`` is uniform in [0, 1)."""
    if verdict.kind == "release":
        return CheckDecision("release", f"its service said release: {verdict.rule}")
    if verdict.kind == "void":
        return CheckDecision("void", f"its service said void: {verdict.rule}", verdict.reason)
    end = asked.asked_since + check.horizon
    if asked.first_attempt_at is not None:
        # No attempt starts later than that, so there is nothing to ask for.
        end = min(end, asked.first_attempt_at + asked.retry_horizon)
    if now >= end:
        said = f"its service gave no answer to go by within {show(check.horizon)} (last: {verdict.rule})"
        if check.on_horizon == "release":
            return CheckDecision("release", f"{said}: released, as on_horizon says")
        return CheckDecision("void", said, VoidReason.UNCONFIRMED)
    wait = delay(asked.number, check.again, draw, asked.retry_after)
    # The last question is put when the horizon ends, not up to an hour after it.
    return CheckDecision(
        "again", f"its service gave no answer to go by: {verdict.rule}", delay=min(wait, end - now)
    )
