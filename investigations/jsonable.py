"""Records as JSON values, with field names that stay: instants in RFC 3339, money as strings, ids as people write them."""

from __future__ import annotations

from base64 import b64encode
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

from infra.store.ledger import Ledger
from infra.store.records import (
    AttemptRecord,
    CheckRecord,
    ConversionRecord,
    Dispute,
    FoundPostback,
    Life,
    Outcome,
    PostbackRecord,
    RejectRecord,
    SignalRecord,
)
from investigations.bodies import readable
from investigations.next_step import next_step
from investigations.trail import click_id_of, moments
from investigations.words import sha256
from schemas.click_mask import is_masked
from schemas.event import wire
from schemas.exchange import Hop
from schemas.ids import show
from schemas.money import plain

Json = dict[str, Any]


def instant(value: datetime | None) -> str | None:
    return None if value is None else value.astimezone(UTC).isoformat().replace("+00:00", "Z")


def amount(value: Decimal | None) -> str | None:
    return None if value is None else plain(value)


def life_json(life: Life) -> Json:
    """One conversion's whole life; ``moments`` is the timeline."""
    event = life.conversion.event
    return {
        **conversion_json(life.conversion),
        "as_of": instant(life.now),
        "signals": [signal_json(signal) for signal in life.signals],
        "postbacks": [_postback(postback, life) for postback in life.postbacks],
        "repeats": [reject_json(reject) for reject in life.repeats],
        "moments": [
            {
                "at": instant(moment.at),
                "since_event_s": (moment.at - event.occurred_at).total_seconds(),
                "subject": moment.subject,
                "kind": moment.kind,
                "text": moment.text,
            }
            for moment in moments(life)
        ],
    }


def conversion_json(conversion: ConversionRecord) -> Json:
    return {
        "id": show("cv", conversion.id),
        "event": wire(conversion.event),
        "received_at": instant(conversion.received_at),
        "net_value": amount(conversion.net_value),
        "routed": conversion.routed,
        "outcomes": list(conversion.outcomes),
        "unrouted_reason": conversion.unrouted_reason,
        "erased_at": instant(conversion.erased_at),
        "erased_by": conversion.erased_by,
        "refusals": dict(conversion.refusals),
        "matches": [
            {
                "at": instant(match.at),
                "destination": match.destination,
                "network": match.network,
                "key": match.key,
                "key_value": match.key_value,
                "click": match.click,
                "click_id": match.click_id,
                "clicked_at": instant(match.clicked_at),
            }
            for match in conversion.matches
        ],
    }


def signal_json(signal: SignalRecord) -> Json:
    return {
        "id": show("sg", signal.id),
        "event": wire(signal.event),
        "received_at": instant(signal.received_at),
        "status": signal.status,
        "outcome": signal.outcome,
    }


def reject_json(reject: RejectRecord) -> Json:
    return {
        "id": reject.id,
        "received_at": instant(reject.received_at),
        "code": reject.code,
        "problems": [
            {"code": p.code, "field": p.field, "reason": p.reason, "remedy": p.remedy}
            for p in reject.problems
        ],
        "source": reject.source,
        "event_id": reject.event_id,
        "raw": reject.raw,
    }


def _postback(postback: PostbackRecord, life: Life) -> Json:
    contract = postback.version.contract
    hold, retry = contract.destination.hold_for(life.conversion.event), contract.retry
    duplicate_of = postback.duplicate_of
    return {
        "id": show("pb", postback.id),
        "destination": contract.name,
        "network": contract.network.slug,
        "contract_version": postback.version.number,
        "state": postback.state.value,
        "next": next_step(life, postback),
        "click_id": click_id_of(postback, life.conversion.attributed),
        "hold": hold.model_dump(mode="json", exclude_none=True),
        "retry_attempts": retry.attempts,
        "release_at": instant(postback.release_at),
        "due_at": instant(postback.due_at),
        "first_attempt_at": instant(postback.first_attempt_at),
        "expires_at": instant(postback.expires_at),
        "settled_at": instant(postback.settled_at),
        "void_reason": postback.void_reason,
        "reason": postback.reason,
        "duplicate_of": None if duplicate_of is None else show("pb", duplicate_of),
        "replay_run": None if postback.run_id is None else show("rn", postback.run_id),
        "attempts_before_replay": postback.budget_from,
        "falls_back": None if postback.falls_back is None else postback.falls_back.value,
        "settled_by": postback.settled_by,
        "counted_by": None if postback.counted_by is None else show("rp", postback.counted_by),
        "counted_at": instant(postback.counted_at),
        "dispute": None if postback.dispute is None else _dispute(postback.dispute),
        **_correction(postback),
        "attempts": [attempt_json(attempt) for attempt in postback.attempts],
        "checks": [check_json(check) for check in postback.checks],
        "unreadable": list(postback.unreadable),
    }


def _dispute(found: Dispute) -> Json:
    return {
        "report": show("rp", found.report_id),
        "at": instant(found.at),
        "bucket": found.bucket.value,
        "cause": found.cause.value,
        "explanation": found.explanation,
    }


def attempt_json(attempt: AttemptRecord) -> Json:
    """One attempt with every hop. Without an outcome, everything that belongs to one is null."""
    return {
        "id": show("at", attempt.id),
        "postback": show("pb", attempt.postback_id),
        "number": attempt.number,
        "intent_at": instant(attempt.intent_at),
        "worker": attempt.worker,
        "intended_url": attempt.intended_url,
        **(dict.fromkeys(OUTCOME_FIELDS) if attempt.outcome is None else _outcome(attempt.outcome)),
        "answered_late": attempt.answered_late,
        "archive": attempt.archive,
        "hops": [_hop(hop) for hop in attempt.hops],
    }


def check_json(check: CheckRecord) -> Json:
    """One question before release with every hop."""
    return {
        "id": show("ck", check.id),
        "postback": show("pb", check.postback_id),
        "number": check.number,
        "intent_at": instant(check.intent_at),
        "ended_at": instant(check.ended_at),
        "worker": check.worker,
        "worker_version": check.worker_version,
        "verdict": check.verdict,
        "rule": check.rule,
        "stale": check.stale,
        "status_code": check.status_code,
        "error_class": check.error_class,
        "error_message": check.error_message,
        "asks_again_at": instant(check.asks_again_at),
        "archive": check.archive,
        "hops": [_hop(hop) for hop in check.hops],
    }


OUTCOME_FIELDS = (
    "ended_at", "trigger", "worker_version", "verdict", "rule", "state", "status_code", "error_class",
    "error_message", "next_attempt_at", "delay_s", "click_id", "click_id_length", "click_id_sha256", "notes",
)  # fmt: skip


def _outcome(outcome: Outcome) -> Json:
    token = outcome.click_id
    # Of a masked one the mask says what may be said.
    clear = None if token is None or is_masked(token) else token
    values = (
        instant(outcome.ended_at), outcome.trigger, outcome.worker_version, outcome.verdict.value, outcome.rule,
        outcome.state.value, outcome.status_code, outcome.error_class, outcome.error_message,
        instant(outcome.next_attempt_at), outcome.delay_s, token, None if clear is None else len(clear),
        None if clear is None else sha256(clear), list(outcome.notes),
    )  # fmt: skip
    return dict(zip(OUTCOME_FIELDS, values, strict=True))


def _hop(hop: Hop) -> Json:
    """Heads are Latin-1 text, which gives every byte one character; bodies are base64 and, where legible, text."""
    failure = hop.failure
    return {
        "number": hop.number,
        "method": hop.method,
        "url": hop.url,
        "started_at": instant(hop.started_at),
        "request_head": hop.request_head.decode("latin-1"),
        "request_body_base64": b64encode(hop.request_body).decode(),
        "addresses": list(hop.addresses),
        "peer": hop.peer,
        "local": hop.local,
        "tls_version": hop.tls_version,
        "reused": hop.reused,
        "dns_ms": hop.dns_ms,
        "connect_ms": hop.connect_ms,
        "first_byte_ms": hop.first_byte_ms,
        "total_ms": hop.total_ms,
        "status_code": hop.status_code,
        "response_head": hop.response_head.decode("latin-1"),
        "body_base64": b64encode(hop.body).decode(),
        "body_text": readable(hop.response_head, hop.body).text if hop.body else None,
        "body_length": hop.body_length,
        "body_sha256": hop.body_sha256,
        "body_truncated": hop.truncated,
        "body_error": hop.body_error,
        "failure": None
        if failure is None
        else {"kind": failure.kind.value, "sent": failure.sent, "message": failure.message},
    }


def found_json(found: FoundPostback) -> Json:
    return {
        "id": show("pb", found.postback_id),
        "conversion": show("cv", found.conversion_id),
        "destination": found.destination,
        "network": found.network,
        "state": found.state.value,
        "source": found.source,
        "event_id": found.event_id,
        "name": found.name,
        "order_id": found.order_id,
        "value": amount(found.value),
        "net_value": amount(found.net_value),
        "currency": found.currency,
        "click_ids": dict(found.click_ids),
        "occurred_at": instant(found.occurred_at),
        "received_at": instant(found.received_at),
        "release_at": instant(found.release_at),
        "due_at": instant(found.due_at),
        "attempts": found.attempts_made,
        "status_code": found.status_code,
        "verdict": None if found.verdict is None else found.verdict.value,
        "reason": found.reason,
        "outcomes": list(found.outcomes),
        **_correction(found),
    }


def _correction(of: PostbackRecord | FoundPostback) -> Json:
    return {
        "adjustment": of.adjustment,
        "adjusts": None if of.adjusts is None else show("pb", of.adjusts),
        "reported": amount(of.reported),
        "retracted_at": instant(of.retracted_at),
        "lost": amount(of.lost),
        "lost_at": instant(of.lost_at),
    }


def ledger_json(ledger: Ledger) -> Json:
    return {
        "as_of": instant(ledger.at),
        "balances": ledger.balances,
        "entries": [
            {
                "key": entry.key,
                "says": entry.says,
                "left": {"label": entry.left.label, "count": entry.left.count},
                "right": [{"label": term.label, "count": term.count} for term in entry.right],
                "difference": entry.difference,
                "balances": entry.balances,
            }
            for entry in ledger.entries
        ],
        "states": {state.value: count for state, count in ledger.states},
        "amounts": [
            {
                "currency": each.currency,
                "state": each.state.value,
                "postbacks": each.postbacks,
                "value": amount(each.value),
                "net_value": amount(each.net),
            }
            for each in ledger.amounts
        ],
        "adjustments": [
            {"adjustment": each.kind, "state": each.state.value, "postbacks": each.postbacks}
            for each in ledger.adjustments
        ],
        "losses": [
            {
                "currency": each.currency,
                "postbacks": each.postbacks,
                "too_much": None if each.currency is None else plain(each.too_much),
                "too_little": None if each.currency is None else plain(each.too_little),
            }
            for each in ledger.losses
        ],
    }
