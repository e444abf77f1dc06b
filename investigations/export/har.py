"""Evidence as HAR 1.2: a page an attempt, an entry a hop, so that DevTools draws what happened. Pure.

A HAR has fewer places than the evidence: what does not fit stands in fields that begin with an underscore, as the format
allows, and in comments. Where the format's field has to be a URI and what was sent was none, ``_url`` has it verbatim.
"""

from __future__ import annotations

import re
from base64 import b64encode
from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime
from typing import Any
from urllib.parse import urlsplit

from infra.store.records import AttemptRecord, Life, PostbackRecord
from infra.version import VERSION
from investigations.bodies import field, unpacked
from investigations.export.curl import PLACEHOLDER
from investigations.export.inert import inert_json
from investigations.words import clock, visible
from schemas.exchange import Hop, header_fields
from schemas.ids import show

Json = dict[str, Any]

_NOT_IN_A_URI = re.compile(r"%(?![0-9A-Fa-f]{2})|[^A-Za-z0-9\-._~:/?#@!$&'()*+,;=%]")
_BRACKETED_HOST = re.compile(r"https?://\[[0-9A-Fa-f:.]+\]")
_STATUS_LINE = re.compile(rb"(HTTP/[0-9.]+) +[0-9]{3} ?([^\r\n]*)")
_FORM = "application/x-www-form-urlencoded"
_TIMINGS_COMMENT = "connect is TCP and TLS together; send is part of wait: neither was measured apart"


def har(life: Life, attempts: Iterable[AttemptRecord]) -> Json:
    """A whole HAR of some attempts of one conversion."""
    chosen = {attempt.id: attempt for attempt in attempts}
    pages, entries = [], []
    for postback in life.postbacks:
        for attempt in postback.attempts:
            if attempt.id in chosen:
                pages.append(har_page(life, postback, chosen[attempt.id]))
                entries += har_entries(postback, chosen[attempt.id])
    return {"log": _head() | {"pages": pages, "entries": entries}}


def har_text(pages: Iterable[str], entries: Iterable[str]) -> Iterator[str]:
    """The same as text in pieces, from pages and entries that were written out one by one: nothing is held at once."""
    yield '{"log":' + inert_json(_head()).removesuffix("}")
    for name, values in (("pages", pages), ("entries", entries)):
        yield f',"{name}":['
        for number, value in enumerate(values):
            yield ("," if number else "") + "\n" + value
        yield "\n]"
    yield "}}\n"


def _head() -> Json:
    return {
        "version": "1.2",
        "creator": {"name": "Holdfire", "version": VERSION},
        "comment": "Postbacks as they were sent and answered: a page is an attempt, an entry one of its exchanges.",
    }


def har_page(life: Life, postback: PostbackRecord, attempt: AttemptRecord) -> Json:
    """An attempt; what it came to stands in its comment."""
    event, outcome = life.conversion.event, attempt.outcome
    order = f", order {visible(event.order_id)}" if event.order_id else ""
    name = f"attempt {attempt.number} of {show('pb', postback.id)} to {postback.version.contract.name}"
    page: Json = {
        "startedDateTime": _instant(attempt.intent_at),
        "id": show("at", attempt.id),
        "title": f"{show('at', attempt.id)}: {name}{order}",
        "pageTimings": {},
        "comment": verdict_words(attempt),
        "_conversion": show("cv", life.conversion.id),
        "_postback": show("pb", postback.id),
        "_destination": postback.version.contract.name,
        "_network": postback.version.contract.network.slug,
        "_intendedUrl": attempt.intended_url,
    }
    if outcome is not None:
        page |= {
            "_verdict": outcome.verdict.value,
            "_rule": outcome.rule,
            "_state": outcome.state.value,
            "_trigger": outcome.trigger,
            "_endedDateTime": _instant(outcome.ended_at),
            "_clickId": outcome.click_id,
        }
    return page


def verdict_words(attempt: AttemptRecord) -> str:
    """What the attempt came to, in a line."""
    outcome = attempt.outcome
    if outcome is None:
        return "no outcome has been recorded"
    error = f"; {visible(outcome.error_message)}" if outcome.error_message else ""
    late = "; the answer came late and settled nothing" if attempt.answered_late else ""
    return f"verdict {outcome.verdict}: {visible(outcome.rule)}{error}{late}"


def har_entries(postback: PostbackRecord, attempt: AttemptRecord) -> list[Json]:
    """An entry for each hop: a followed redirect makes another one."""
    return [_entry(postback, attempt, hop) for hop in attempt.hops]


def _entry(postback: PostbackRecord, attempt: AttemptRecord, hop: Hop) -> Json:
    timings, time = _timings(hop)
    entry: Json = {
        "pageref": show("at", attempt.id),
        "startedDateTime": _instant(hop.started_at),
        "time": time,
        "request": _request(hop),
        "response": _response(hop),
        "cache": {},
        "timings": timings,
        "comment": "; ".join(_remarks(postback, attempt, hop)),
        "_attempt": show("at", attempt.id),
        "_postback": show("pb", postback.id),
        "_hop": hop.number,
        "_addresses": list(hop.addresses),
        "_peer": hop.peer,
        "_local": hop.local,
        "_tlsVersion": hop.tls_version,
        "_reused": hop.reused,
        "_resourceType": "fetch",
    }
    if hop.peer is not None:
        address, _, port = hop.peer.rpartition(":")
        entry |= {"serverIPAddress": address.strip("[]"), "connection": port}
        entry["_connectionId"] = f"{hop.local}-{hop.peer}"
    return entry


def _remarks(postback: PostbackRecord, attempt: AttemptRecord, hop: Hop) -> Iterator[str]:
    last = hop is attempt.hops[-1]
    yield f"hop {hop.number} of {len(attempt.hops)} of attempt {attempt.number} of {show('pb', postback.id)}"
    yield verdict_words(attempt) if last else "followed as a redirect"
    if hop.failure is not None:
        taken = "the request had been written: whether it was taken is not known"
        yield f"{hop.failure.kind}: {visible(hop.failure.message)}"
        yield taken if hop.failure.sent else "no byte of the request had left"
    if hop.truncated:
        yield f"body truncated: the first {len(hop.body)} of at least {hop.body_length} bytes are kept"
    if hop.body_error:
        yield f"body: {visible(hop.body_error)}"
    if PLACEHOLDER.search(hop.request_head.decode("latin-1")):
        yield "secrets are masked, so the size of the request's head is not known"


def _timings(hop: Hop) -> tuple[Json, float]:
    """In milliseconds, and their sum. What was not reached, or not measured apart, is -1, but for the three that must be."""
    dns, connect = _microseconds(hop.dns_ms), _microseconds(hop.connect_ms)
    before = (dns or 0) + (connect or 0)
    total = max(_microseconds(hop.total_ms) or 0, before)
    first = _microseconds(hop.first_byte_ms)
    answered = total if first is None else min(max(first, before), total)
    sent = bool(hop.request_head)
    parts = {
        # Time that went by with nothing sent was no waiting for an answer.
        "blocked": None if sent or total == before else total - before,
        "dns": dns,
        "connect": connect,
        "ssl": None,
        "send": 0,
        "wait": answered - before if sent else 0,
        "receive": total - answered if sent else 0,
    }
    shown: Json = {name: -1 if part is None else part / 1000 for name, part in parts.items()}
    shown |= {"comment": _TIMINGS_COMMENT, "_totalMs": hop.total_ms, "_firstByteMs": hop.first_byte_ms}
    return shown, sum(part or 0 for part in parts.values()) / 1000


def _microseconds(milliseconds: float | None) -> int | None:
    return None if milliseconds is None else max(0, round(milliseconds * 1000))


def _request(hop: Hop) -> Json:
    fields = header_fields(hop.request_head)
    request: Json = {
        "method": hop.method,
        "url": _uri(hop.url),
        "httpVersion": "HTTP/1.1",
        "cookies": _cookies(fields, b"cookie"),
        "headers": _headers(fields),
        "queryString": _query(hop.url),
        "headersSize": _head_size(hop.request_head),
        "bodySize": _sent_size(hop),
    }
    if request["url"] != hop.url:
        request["_url"] = hop.url
    if hop.request_body:
        request["postData"] = _post_data(hop)
    return request


def _post_data(hop: Hop) -> Json:
    mime = field(hop.request_head, b"content-type") or "application/octet-stream"
    text, coded = _text(hop.request_body)
    posted: Json = {"mimeType": mime, "text": text}
    if coded:
        posted |= {"comment": "base64: the body is no text", "_encoding": "base64"}
    elif mime.partition(";")[0].strip().lower() == _FORM:
        posted["params"] = [_pair(piece) for piece in text.split("&")]
    return posted


def _response(hop: Hop) -> Json:
    line = _STATUS_LINE.match(hop.response_head)
    fields = header_fields(hop.response_head)
    response: Json = {
        "status": hop.status_code or 0,
        "statusText": line[2].decode("latin-1") if line else "",
        "httpVersion": line[1].decode("latin-1") if line else "",
        "cookies": _cookies(fields, b"set-cookie"),
        "headers": _headers(fields),
        "content": _content(hop),
        "redirectURL": field(hop.response_head, b"location"),
        "headersSize": _head_size(hop.response_head) if hop.status_code is not None else -1,
        "bodySize": hop.body_length if hop.status_code is not None else -1,
        "_bodySha256": hop.body_sha256,
        "_truncated": hop.truncated,
    }
    if hop.failure is not None:
        response["_error"] = f"{hop.failure.kind}: {hop.failure.message}"
    elif hop.body_error:
        response["_error"] = hop.body_error
    return response


def _content(hop: Hop) -> Json:
    body, unpacking = unpacked(hop.response_head, hop.body)
    content: Json = {
        "size": len(body) if unpacking or not hop.truncated else hop.body_length,
        "mimeType": field(hop.response_head, b"content-type") or "x-unknown",
    }
    remarks = [unpacking] if unpacking else []
    if body is not hop.body and not hop.truncated:
        content["compression"] = len(body) - len(hop.body)
    if body:
        text, coded = _text(body)
        content |= {"text": text, "encoding": "base64"} if coded else {"text": text}
    if hop.truncated:
        remarks.append(f"truncated: the first {len(hop.body)} of at least {hop.body_length} bytes are kept")
    if remarks:
        content["comment"] = "; ".join(remarks)
    return content


def _text(raw: bytes) -> tuple[str, bool]:
    """The bytes as text, or in base64 where they are none: text must give the same bytes back."""
    try:
        if b"\0" not in raw:
            return raw.decode(), False
    except UnicodeDecodeError:
        pass
    return b64encode(raw).decode(), True


def _uri(url: str) -> str:
    """The URL with what no URI can have percent-encoded; mostly the brackets of masked secrets."""
    host = _BRACKETED_HOST.match(url)
    front = host[0] if host else ""
    return front + _NOT_IN_A_URI.sub(
        lambda found: "".join(f"%{byte:02X}" for byte in found[0].encode()), url.removeprefix(front)
    )


def _query(url: str) -> list[Json]:
    try:
        query = urlsplit(url).query
    except ValueError:
        query = url.partition("#")[0].partition("?")[2]
    return [_pair(piece) for piece in query.split("&")] if query else []


def _pair(text: str) -> Json:
    """As it was sent, nothing decoded."""
    name, _, value = text.partition("=")
    return {"name": name, "value": value}


def _headers(fields: Sequence[tuple[bytes, bytes]]) -> list[Json]:
    return [{"name": name.decode("latin-1"), "value": value.decode("latin-1")} for name, value in fields]


def _cookies(fields: Sequence[tuple[bytes, bytes]], header: bytes) -> list[Json]:
    """Names and values; of ``Set-Cookie`` its first pair, whose attributes stand in the header."""
    cookies = []
    for name, value in fields:
        if name.lower() == header:
            pieces = value.split(b";") if header == b"cookie" else [value.partition(b";")[0]]
            cookies += [_pair(piece.strip().decode("latin-1")) for piece in pieces if piece.strip()]
    return cookies


def _head_size(head: bytes) -> int:
    """Bytes from the first line to the blank one; -1 where that is not known: a mask has another length."""
    return -1 if not head or PLACEHOLDER.search(head.decode("latin-1")) else len(head) + 2


def _sent_size(hop: Hop) -> int:
    if not hop.request_head:
        return -1
    said = field(hop.request_head, b"content-length")
    return int(said) if said.isdecimal() else len(hop.request_body)


def _instant(value: datetime) -> str:
    return clock(value.astimezone(UTC)).replace(" ", "T") + "Z"
