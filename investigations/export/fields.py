"""The fields that an attempt is shown by in tables and on the summary page, as text that nobody has made safe yet. Pure.

Their names and meanings are ``schemas.support.FIELDS``. Lines are separated by line feeds.
"""

from __future__ import annotations

import re
from base64 import b64encode
from collections.abc import Callable, Sequence
from datetime import datetime
from zoneinfo import ZoneInfo

from investigations.bodies import field, unpacked
from investigations.export.exhibit import Exhibit
from investigations.trail import click_id_of
from schemas.exchange import Hop
from schemas.ids import show
from schemas.money import plain

LONGEST = 30_000
"""Characters of one field; a spreadsheet's cell ends at 32,767. What is longer is cut, and says so."""


def shown(names: Sequence[str], exhibit: Exhibit, zone: ZoneInfo) -> list[str]:
    """The values of these fields, in this order; empty where there is none. Instants are in ``zone``."""
    return [_cut(_FIELDS[name](exhibit, zone)) for name in names]


def when(instant: datetime | None, zone: ZoneInfo) -> str:
    """``2026-11-22T10:00:00.250+01:00``."""
    return "" if instant is None else instant.astimezone(zone).isoformat(timespec="milliseconds")


def _cut(text: str) -> str:
    if len(text) <= LONGEST:
        return text
    return f"{text[:LONGEST]}\n[cut here: {len(text)} characters in all; the JSON has it whole]"


def _first(exhibit: Exhibit) -> Hop | None:
    return exhibit.attempt.hops[0] if exhibit.attempt.hops else None


def _last(exhibit: Exhibit) -> Hop | None:
    """The hop that answered last, or else the last there was."""
    hops = exhibit.attempt.hops
    return next((hop for hop in reversed(hops) if hop.status_code is not None), hops[-1] if hops else None)


def _of(
    which: Callable[[Exhibit], Hop | None], value: Callable[[Hop], object]
) -> Callable[[Exhibit, ZoneInfo], str]:
    def shown_of(exhibit: Exhibit, _zone: ZoneInfo) -> str:
        hop = which(exhibit)
        found = None if hop is None else value(hop)
        return "" if found is None else str(found)

    return shown_of


def _outcome(name: str) -> Callable[[Exhibit, ZoneInfo], str]:
    def shown_of(exhibit: Exhibit, _zone: ZoneInfo) -> str:
        found = getattr(exhibit.attempt.outcome, name, None)
        return "" if found is None else str(found)

    return shown_of


def _heads(exhibit: Exhibit, which: str) -> str:
    heads = [
        (hop.number, getattr(hop, which).decode("latin-1").removesuffix("\r\n"))
        for hop in exhibit.attempt.hops
    ]
    several = len(heads) > 1
    return "\n\n".join(
        (f"hop {number}: " if several else "") + re.sub(r"\r?\n", "\n", head)
        for number, head in heads
        if head
    )


def _body(head: bytes, raw: bytes) -> str:
    body, _ = unpacked(head, raw)
    try:
        if b"\0" not in body:
            return body.decode()
    except UnicodeDecodeError:
        pass
    return f"base64:{b64encode(body).decode()}"


def _redirects(exhibit: Exhibit, _zone: ZoneInfo) -> str:
    followed = exhibit.attempt.hops[:-1]
    return "\n".join(f"{hop.status_code} to {field(hop.response_head, b'location')}" for hop in followed)


def _url(exhibit: Exhibit, _zone: ZoneInfo) -> str:
    first = _first(exhibit)
    return first.url if first is not None else exhibit.attempt.intended_url or ""


def _time(exhibit: Exhibit, zone: ZoneInfo) -> str:
    first = _first(exhibit)
    return when(exhibit.attempt.intent_at if first is None else first.started_at, zone)


def _error(exhibit: Exhibit, _zone: ZoneInfo) -> str:
    outcome, last = exhibit.attempt.outcome, exhibit.attempt.hops[-1] if exhibit.attempt.hops else None
    said = [f"{outcome.error_class}: {outcome.error_message}"] if outcome and outcome.error_message else []
    if last is not None and last.failure is not None:
        sent = "the request had been written" if last.failure.sent else "no byte had left"
        said.append(f"{last.failure.kind}: {last.failure.message} ({sent})")
    if last is not None and last.body_error:
        said.append(last.body_error)
    return "\n".join(said)


def _value(exhibit: Exhibit, _zone: ZoneInfo) -> str:
    value = exhibit.life.conversion.event.value
    return "" if value is None else plain(value)


def _click_id(exhibit: Exhibit, _zone: ZoneInfo) -> str:
    outcome = exhibit.attempt.outcome
    if outcome is not None and outcome.click_id is not None:
        return outcome.click_id
    return click_id_of(exhibit.postback, exhibit.life.conversion.attributed) or ""


def _total(exhibit: Exhibit, _zone: ZoneInfo) -> str:
    times = [hop.total_ms for hop in exhibit.attempt.hops if hop.total_ms is not None]
    return f"{sum(times):.3f}" if times else ""


_FIELDS: dict[str, Callable[[Exhibit, ZoneInfo], str]] = {
    "attempt": lambda each, _: show("at", each.attempt.id),
    "postback": lambda each, _: show("pb", each.postback.id),
    "conversion": lambda each, _: show("cv", each.life.conversion.id),
    "destination": lambda each, _: each.postback.version.contract.name,
    "number": lambda each, _: str(each.attempt.number),
    "trigger": _outcome("trigger"),
    "time": _time,
    "ended": lambda each, zone: when(each.attempt.outcome.ended_at if each.attempt.outcome else None, zone),
    "method": _of(_first, lambda hop: hop.method),
    "url": _url,
    "request_headers": lambda each, _: _heads(each, "request_head"),
    "request_body": _of(_first, lambda hop: _body(hop.request_head, hop.request_body)),
    "redirects": _redirects,
    "final_url": _of(_last, lambda hop: hop.url),
    "status": _of(_last, lambda hop: hop.status_code),
    "response_headers": lambda each, _: _heads(each, "response_head"),
    "response_body": _of(_last, lambda hop: _body(hop.response_head, hop.body)),
    "body_length": _of(_last, lambda hop: None if hop.status_code is None else hop.body_length),
    "body_sha256": _of(_last, lambda hop: hop.body_sha256),
    "truncated": _of(_last, lambda hop: "yes" if hop.truncated else "no"),
    "verdict": _outcome("verdict"),
    "rule": _outcome("rule"),
    "error": _error,
    "order_id": lambda each, _: each.life.conversion.event.order_id or "",
    "event": lambda each, _: each.life.conversion.event.name,
    "event_id": lambda each, _: each.life.conversion.event.event_id,
    "occurred": lambda each, zone: when(each.life.conversion.event.occurred_at, zone),
    "value": _value,
    "currency": lambda each, _: each.life.conversion.event.currency or "",
    "click_id": _click_id,
    "peer": _of(_last, lambda hop: hop.peer),
    "local": _of(_last, lambda hop: hop.local),
    "tls": _of(_last, lambda hop: hop.tls_version),
    "total_ms": _total,
    "worker": lambda each, _: each.attempt.worker,
}
