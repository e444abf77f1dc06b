"""What one attempt's answer means under the network's rules."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum
from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict
from pydantic_core import PydanticCustomError

from schemas.exchange import Answer, FailureKind


class Dedupe(StrEnum):
    """What the network does with a second identical postback."""

    HARMLESS = "harmless"
    """Counted once, answered as if counted."""
    REJECTED = "rejected"
    """Counted once, the second is refused."""
    COUNTED_TWICE = "counted_twice"
    """Counted again: never send what may have arrived."""


class VerdictKind(StrEnum):
    DELIVERED = "delivered"
    """The network answered as its success rule asks."""
    RETRY = "retry"
    """Certainly not taken, and worth repeating."""
    REJECTED = "rejected"
    """Refused for good."""
    DUPLICATE = "duplicate"
    """The network says it has it already."""
    UNKNOWN = "unknown"
    """Sent, but no answer came: whether it was taken is not known."""
    IN_DOUBT = "in_doubt"
    """Answered, but not in a way that can be read; never resent by itself."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """``rule`` names what gave the verdict, for the log: ``status 200``, ``body ^success=false``, ``timeout``…"""

    kind: VerdictKind
    rule: str
    retry_after: timedelta | None = None


def _status_set(text: str) -> str:
    if not re.fullmatch(r"[1-5](xx|[0-9]{2})", text):
        raise PydanticCustomError("status_set", "{text} is no status: write 204 or 5xx", {"text": repr(text)})
    return text


def regular_expression(text: str) -> str:
    """Validator: ``text`` compiles."""
    try:
        re.compile(text)
    except re.error as error:
        raise PydanticCustomError("regex", "no regular expression: {error}", {"error": str(error)}) from None
    return text


StatusSet = Annotated[str, AfterValidator(_status_set)]


class BodyRule(BaseModel):
    """When the status is in ``on`` and ``regex`` is found in the decoded body, ``verdict`` holds."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    on: tuple[StatusSet, ...] = ("2xx",)
    regex: Annotated[str, AfterValidator(regular_expression)]
    verdict: VerdictKind


class AnswerRules(BaseModel):
    """Success rule, refusals and what is worth repeating: body rules first, then statuses, most exact first.

    A status that no rule names is ``in_doubt`` when it says success (it was answered, so it is never resent by
    itself), ``rejected`` when it is a redirect or a client error, since repeating the same request cannot
    help, and ``retry`` when the server failed.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    delivered: tuple[StatusSet, ...] = ("2xx",)
    retry: tuple[StatusSet, ...] = ("408", "425", "429", "5xx")
    rejected: tuple[StatusSet, ...] = ("3xx", "4xx")
    duplicate: tuple[StatusSet, ...] = ()
    body: tuple[BodyRule, ...] = ()
    body_required: bool = False
    """Whether a delivered status counts only when a body rule says so: then a 2xx that no body rule matches
    is ``in_doubt`` (it was answered, so it is never resent by itself)."""

    def by_status(self, status_code: int) -> VerdictKind | None:
        """The verdict of the most exact set that names the status: ``404`` before ``4xx``."""
        for text in (str(status_code), f"{status_code // 100}xx"):
            for kind, statuses in (
                (VerdictKind.DUPLICATE, self.duplicate),
                (VerdictKind.DELIVERED, self.delivered),
                (VerdictKind.RETRY, self.retry),
                (VerdictKind.REJECTED, self.rejected),
            ):
                if text in statuses:
                    return kind
        return None


def judge(rules: AnswerRules, answer: Answer, body: str, retry_after: timedelta | None = None) -> Verdict:
    """Judge one attempt. ``body`` is the last hop's body, decoded as far as it could be read.

    A body that could not be read in full is still an answer: what came is judged, and the status decides.
    """
    failure = answer.failure
    last = answer.last
    if failure is not None:
        # A redirect that was answered counted nothing yet, so it is the last exchange that tells whether
        # anything that could count has left this machine.
        sent = last.failure.sent if last is not None and last.failure is not None else failure.sent
        return _judge_failure(failure.kind, sent=sent, message=failure.message)
    if last is None or last.status_code is None:
        return Verdict(VerdictKind.UNKNOWN, "no answer")
    status = last.status_code
    for rule in rules.body:
        if _covers(rule.on, status) and re.search(rule.regex, body):
            return Verdict(rule.verdict, f"status {status}, body ~ {rule.regex}", retry_after)
    kind = rules.by_status(status)
    if kind is VerdictKind.DELIVERED and rules.body_required:
        unread = f" (body unread: {last.body_error})" if last.body_error else ""
        return Verdict(VerdictKind.IN_DOUBT, f"status {status}, but no body rule matches{unread}")
    if kind is None:
        return Verdict(_unnamed(status), f"status {status}, named by no rule", retry_after)
    return Verdict(kind, f"status {status}", retry_after)


def _unnamed(status: int) -> VerdictKind:
    if status < 300:
        return VerdictKind.IN_DOUBT
    return VerdictKind.REJECTED if status < 500 else VerdictKind.RETRY


def _judge_failure(kind: FailureKind, *, sent: bool, message: str) -> Verdict:
    match kind:
        case FailureKind.REFUSED_BY_GUARD:
            return Verdict(VerdictKind.REJECTED, f"egress refused: {message}")
        case FailureKind.REDIRECT_LOOP | FailureKind.TOO_MANY_REDIRECTS:
            # Every hop was answered with a redirect, so nothing was counted: safe to repeat.
            return Verdict(VerdictKind.RETRY, str(kind))
    if not sent:
        return Verdict(VerdictKind.RETRY, f"{kind} before anything was sent")
    return Verdict(VerdictKind.UNKNOWN, f"{kind} after the request was sent")


def _covers(statuses: Iterable[str], status_code: int) -> bool:
    return str(status_code) in statuses or f"{status_code // 100}xx" in statuses
