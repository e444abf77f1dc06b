"""From an answer to the row: judge, decide, mask. Pure but for the clock and the draw, which are arguments."""

from __future__ import annotations

import re
import zlib
from dataclasses import replace
from datetime import datetime, timedelta
from functools import lru_cache

from schemas.backoff import parse_retry_after
from schemas.breaker import sign_of
from schemas.conversion import click_id_for
from schemas.destination import Contract
from schemas.exchange import Answer, Hop
from schemas.lifecycle import AskAPerson, Decision, Fired, Reschedule, Settle, State, decide
from schemas.postback import LostAttempt, SettledAttempt
from schemas.redaction import Redactor
from schemas.verdict import Verdict, VerdictKind, judge
from workers.rendering import Account
from workers.wire import Answered

_RETRY_AFTER = re.compile(rb"\nretry-after", re.IGNORECASE)
_DECODED_CAP = 65_536


def settle_answer(answered: Answered, worker: str, now: datetime, draw: float) -> SettledAttempt:
    """What becomes of an attempt that came back from the wire, with its evidence masked."""
    prepared, gated, contract = answered.prepared, answered.prepared.gated, answered.account.version.contract
    answer, last = answered.answer, answered.answer.last
    verdict = judge(contract.answer_for(gated.adjustment), answer, _text(last), retry_after(answer, now))
    decision = decide(
        Fired(
            attempt=gated.attempt,
            first_attempt_at=gated.first_attempt_at or gated.now,
            retry=contract.retry,
            dedupe=contract.dedupe_for(gated.adjustment),
            had_unknown=gated.had_unknown,
            expires_at=gated.expires_at,
        ),
        verdict,
        now,
        draw,
    )
    redactor = redactor_for(answered.account, answered.secrets)
    state, reason, next_attempt_at, delay_s = _outcome(decision)
    failure = answer.failure
    click_id = prepared.click_id
    return SettledAttempt(
        postback_id=gated.postback_id,
        token=gated.token,
        attempt_id=gated.attempt_id,
        number=gated.number,
        version_id=gated.version_id,
        trigger=gated.trigger,
        worker=worker,
        intent_at=gated.now,
        ended_at=now,
        verdict=verdict.kind,
        rule=redactor.in_text(verdict.rule, click_id),
        state=state,
        reason=redactor.in_text(reason, click_id),
        next_attempt_at=next_attempt_at,
        delay_s=delay_s,
        status_code=None if last is None else last.status_code,
        error_class=failure.error_class if failure else None,
        error_message=redactor.in_text(failure.message, click_id) if failure else None,
        click_id=click_id,
        notes=prepared.notes,
        hops=tuple(masked(hop, redactor, click_id) for hop in answer.hops) if redactor else answer.hops,
        told=prepared.told,
        adjustment=gated.adjustment,
        sign=sign_of(
            verdict.kind,
            None if last is None else last.status_code,
            told_when=verdict.retry_after is not None,
        ),
    )


def settle_lost(lost: LostAttempt, contract: Contract, draw: float) -> SettledAttempt:
    """What becomes of an attempt whose worker fell silent: its outcome is unknown, and is said to be."""
    verdict = Verdict(VerdictKind.UNKNOWN, "the worker fell silent after the intent was recorded")
    decision = decide(
        Fired(
            attempt=lost.attempt,
            first_attempt_at=lost.first_attempt_at,
            retry=contract.retry,
            dedupe=contract.dedupe_for(lost.adjustment),
            had_unknown=lost.had_unknown,
            expires_at=lost.expires_at,
        ),
        verdict,
        lost.now,
        draw,
    )
    state, reason, next_attempt_at, delay_s = _outcome(decision)
    return SettledAttempt(
        postback_id=lost.postback_id,
        token=lost.token,
        attempt_id=lost.attempt_id,
        number=lost.number,
        version_id=lost.version_id,
        trigger=lost.trigger,
        worker=lost.worker,
        intent_at=lost.intent_at,
        ended_at=lost.now,
        verdict=verdict.kind,
        rule=verdict.rule,
        state=state,
        reason=reason,
        next_attempt_at=next_attempt_at,
        delay_s=delay_s,
        error_class="WorkerLost",
        error_message=f"worker {lost.worker} did not settle this attempt within its lease",
        click_id=click_id_for(contract, lost.event),
        adjustment=lost.adjustment,
    )


def masked(hop: Hop, redactor: Redactor, click_id: str | None) -> Hop:
    """The hop with every secret masked, wherever it stands. A compressed body that echoes one is kept decoded."""
    body = redactor.in_bytes(hop.body, click_id, truncated=hop.truncated)
    note = hop.body_error
    decoded = decode_body(hop)
    if decoded is not None and redactor.in_bytes(decoded, click_id) != decoded:
        body = redactor.in_bytes(decoded, click_id, truncated=True)
        note = "; ".join(filter(None, (note, "kept decoded: it echoed a secret, which is masked")))
    failure = hop.failure and replace(hop.failure, message=redactor.in_text(hop.failure.message, click_id))
    return replace(
        hop,
        url=redactor.in_text(hop.url, click_id),
        request_head=redactor.in_bytes(hop.request_head, click_id),
        request_body=redactor.in_bytes(hop.request_body, click_id),
        response_head=redactor.in_bytes(hop.response_head, click_id),
        body=body,
        body_error=note,
        failure=failure,
    )


def decode_body(hop: Hop) -> bytes | None:
    """The body decompressed as far as it came, bounded; None when it did not come compressed."""
    head = hop.response_head.lower()
    start = head.find(b"\r\ncontent-encoding:")
    if start < 0:
        return None
    coding = head[start + 19 :].split(b"\r\n", 1)[0].strip()
    if coding not in (b"gzip", b"x-gzip", b"deflate"):
        return None
    # 32 + 15: gzip or zlib, told apart by their header. What came before an error is still an answer.
    decompressor = zlib.decompressobj(32 + zlib.MAX_WBITS)
    try:
        return decompressor.decompress(hop.body, _DECODED_CAP)
    except zlib.error:
        return b""


@lru_cache(maxsize=64)
def _token_redactor(secrets: tuple[str, ...]) -> Redactor:
    return Redactor(secrets)


def redactor_for(account: Account, extra: tuple[str, ...]) -> Redactor:
    """The account's own redactor, or one that also knows a token that came into being on the way."""
    return _token_redactor((*account.secrets.values(), *extra)) if extra else account.redactor


def _outcome(decision: Decision) -> tuple[State, str, datetime | None, float | None]:
    match decision:
        case Settle(state, reason):
            return state, reason, None, None
        case Reschedule(next_attempt_at, delay, reason):
            return State.RETRYING, reason, next_attempt_at, delay.total_seconds()
        case AskAPerson(reason):
            return State.IN_DOUBT, reason, None, None


def _text(hop: Hop | None) -> str:
    if hop is None or not hop.body:
        return ""
    decoded = decode_body(hop)
    return (hop.body if decoded is None else decoded).decode("utf-8", "replace")


def retry_after(answer: Answer, now: datetime) -> timedelta | None:
    """How long the answer asks to be left alone, if it does."""
    if not _RETRY_AFTER.search(answer.response_head):
        return None
    for name, value in answer.response_headers:
        if name.lower() == b"retry-after":
            return parse_retry_after(value.decode("latin-1"), now)
    return None
