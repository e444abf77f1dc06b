"""Asking before release: from a prepared postback to the question, and from the answer to what becomes of it."""

from __future__ import annotations

import zlib
from contextlib import suppress
from datetime import datetime

import structlog

from infra.logging import attempt_log
from schemas.check import Asked, ReleaseCheck, decide_check, judge_check
from schemas.conversion import event_values
from schemas.exchange import Hop, header_fields
from schemas.ids import show
from schemas.lifecycle import State, came_from
from schemas.macros import RenderError, Template, render
from schemas.postback import Asking, Prepared, SettledCheck, Stopped
from workers.rendering import NOT_NOW_RETRY_S, Account, auth_headers, request_of
from workers.settling import masked, redactor_for, retry_after
from workers.wire import AnsweredCheck

log = structlog.get_logger()

_DECODED_CAP = 1_048_576


def ask_first(prepared: Prepared, account: Account) -> Prepared | Asking | Stopped:
    """The question to put before this postback may be fired, or the postback itself where there is none to put.

    A correction of what was delivered is never asked about, nor what a person released by hand: that is the answer.
    Never raises: others share its transaction.
    """
    gated = prepared.gated
    if gated.correction is not None or gated.let_go:
        return prepared
    try:
        found = account.version.contract.destination.check_for(gated.event)
        if found is None or found[1].holds(gated.confirmed_at, gated.now):
            return prepared
        return _question(prepared, account, *found)
    except RenderError as error:
        reason = account.redactor.in_text(f"its service cannot be asked: {error}", prepared.click_id)
        return Stopped(gated, State.REJECTED, reason)
    except Exception as error:
        # Not foreseen, so not the postback's fault: it waits. The error's own text may quote a secret.
        said = f"its service cannot be asked ({type(error).__name__})"
        log.error("check.not_prepared", postback=show("pb", gated.postback_id), error=type(error).__name__)
        return Stopped(gated, came_from(gated.number - 1), said, delay_s=NOT_NOW_RETRY_S)


def _question(prepared: Prepared, account: Account, place: str, check: ReleaseCheck) -> Asking:
    gated = prepared.gated
    values = event_values(
        account.version.contract, gated.event, show("pb", gated.postback_id), gated.net_value
    )
    rendered = render(Template("GET", check.url, headers=tuple(check.headers.items())), values)
    auth = auth_headers(check.auth, f"{place}.auth", account.secrets)
    return Asking(
        gated=gated,
        version=account.version,
        check=check,
        place=place,
        request=request_of(rendered, auth),
        shown_url=account.redactor.in_text(rendered.url, prepared.click_id),
        click_id=prepared.click_id,
    )


def settle_check(answered: AnsweredCheck, worker: str, now: datetime, draw: float) -> SettledCheck:
    """What becomes of a postback whose service was asked, with the evidence masked."""
    asking, gated, answer = answered.asking, answered.asking.gated, answered.answer
    last, failure = answer.last, answer.failure
    verdict = judge_check(asking.check, answer, None if last is None else whole_body(last))
    asked = Asked(
        number=gated.asked + 1,
        asked_since=gated.asked_since or gated.now,
        first_attempt_at=gated.first_attempt_at,
        retry_horizon=asking.version.contract.retry.horizon,
        retry_after=retry_after(answer, now),
    )
    redactor = redactor_for(answered.account, answered.secrets)
    return SettledCheck(
        postback_id=gated.postback_id,
        token=gated.token,
        attempt_id=gated.attempt_id,
        version_id=gated.version_id,
        worker=worker,
        intent_at=gated.now,
        ended_at=now,
        verdict=verdict,
        decision=decide_check(asking.check, asked, verdict, now, draw),
        status_code=None if last is None else last.status_code,
        error_class=failure.error_class if failure else None,
        error_message=redactor.in_text(failure.message, asking.click_id) if failure else None,
        hops=tuple(masked(hop, redactor, asking.click_id) for hop in answer.hops),
    )


def whole_body(hop: Hop) -> str | None:
    """The body as text; None where a part of it was not seen or cannot be read: a rule might have matched there."""
    if hop.truncated or hop.body_error is not None:
        return None
    body = _unpacked(hop)
    # UTF-16 and its like: an expression over characters would pass it by.
    return None if body is None or b"\0" in body else body.decode("utf-8", "replace")


def _unpacked(hop: Hop) -> bytes | None:
    codings = [
        value for name, value in header_fields(hop.response_head) if name.lower() == b"content-encoding"
    ]
    coding = b",".join(codings).strip().lower()
    if coding in (b"", b"identity") or not hop.body:
        return hop.body
    if coding not in (b"gzip", b"x-gzip", b"deflate"):
        return None
    # 32 + 15: gzip or zlib, told apart by their header.
    decompressor = zlib.decompressobj(32 + zlib.MAX_WBITS)
    try:
        body = decompressor.decompress(hop.body, _DECODED_CAP)
    except zlib.error:
        return None
    return body if decompressor.eof else None


def log_check(check: SettledCheck, number: int | None, state: State | None) -> None:
    """The canonical line of a question, as ``postback.attempted`` is of an attempt."""
    last = check.hops[-1] if check.hops else None
    delay = check.decision.delay
    with suppress(OSError, ValueError):  # a log that cannot be written must not end the thread that settles
        attempt_log().info(
            "postback.asked",
            check=show("ck", check.attempt_id),
            postback=show("pb", check.postback_id),
            number=number,
            verdict=check.verdict.kind,
            rule=check.verdict.rule,
            state=state,
            stale=state is None,
            status_code=check.status_code,
            delay_s=delay and delay.total_seconds(),
            hops=len(check.hops),
            total_ms=last and last.total_ms,
            peer=last and last.peer,
            url=last.url if last else None,
            error=check.error_message,
        )
