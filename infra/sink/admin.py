"""The sink's own endpoints under ``/_sink/``: what it counted, and what it is told to do. All JSON, but for its report."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import orjson

from infra.sink.answers import Answer, json_answer
from infra.sink.behaviours import BEHAVIOURS, RESET_ON_CONNECT
from infra.sink.deciding import refusal
from infra.sink.errors import SinkConfigError, require_table
from infra.sink.gate import read_hold
from infra.sink.profiles import PROFILES
from infra.sink.report import listed, report_csv
from infra.sink.wire import Request

if TYPE_CHECKING:
    from infra.sink.server import Sink


def _about(sink: Sink, request: Request) -> object:
    return {
        "url": sink.url,
        "tls_url": sink.tls_url,
        "refused_port": sink.refused_port,
        "reset_port": sink.reset_port,
        "profiles": list(PROFILES),
        "behaviours": {one.name: one.about for one in BEHAVIOURS.values()}
        | {RESET_ON_CONNECT: "rules only: the connection is reset before anything is read"},
    }


def counts(sink: Sink) -> dict[str, Any]:
    """Totals, and per profile what was requested, credited and not, with reasons and duplicates named."""
    return {
        "requests": sink.requests,
        "malformed": sink.malformed,
        "connections": sink.connections,
        "connections_reset": sink.connections_reset,
        "held": len(sink.gate.waiting),
        "profiles": {name: book.counts() for name, book in sink.books.items()},
    }


def _counts(sink: Sink, request: Request) -> object:
    return counts(sink)


def _credits(sink: Sink, request: Request) -> object:
    wanted = _profile(request)
    books = {wanted: sink.books[wanted]} if wanted else sink.books
    return {"credits": [credit for name, book in books.items() for credit in book.credits(name)]}


def _totals(sink: Sink, request: Request) -> object:
    wanted = _profile(request)
    if not wanted:
        raise SinkConfigError("profile", "is missing", f"Use one of: {', '.join(PROFILES)}.")
    totals = sink.books[wanted].totals().items()
    return {"totals": {click_id: None if total is None else str(total) for click_id, total in totals}}


def _report(sink: Sink, request: Request) -> object:
    wanted = _profile(request)
    if not wanted:
        raise SinkConfigError("profile", "is missing", f"Use one of: {', '.join(PROFILES)}.")
    rows = listed(sink.books[wanted], request.first("zone") or "UTC", request.first("currency") or "EUR")
    return Answer(200, report_csv(rows).encode(), content_type="text/csv; charset=utf-8")


def _profile(request: Request) -> str:
    wanted = request.first("profile")
    if wanted and wanted not in PROFILES:
        raise SinkConfigError("profile", f"{wanted!r} is no profile", f"Use one of: {', '.join(PROFILES)}.")
    return wanted


def _requests(sink: Sink, request: Request) -> object:
    since, limit = _whole(request, "since", 0), _whole(request, "limit", 1000)
    found = [entry.as_json() for entry in sink.record.since(since, limit)]
    return {"requests": found, "next_since": found[-1]["number"] if found else since}


def _held(sink: Sink, request: Request) -> object:
    return {
        "held": [
            {
                "number": one.number,
                "profile": one.seen.profile,
                "click_id": one.seen.click_id,
                "order_id": one.seen.order_id,
                "connected": one.connected,
            }
            for one in sink.gate.waiting
        ]
    }


def _plan(sink: Sink, request: Request) -> object:
    table = require_table("plan", _json(request), ("rules",))
    sink.configure({"rules": table.get("rules", [])})
    return {"rules": len(table.get("rules", []))}


def _settings(sink: Sink, request: Request) -> object:
    sink.configure({"profiles": _json(request)})
    return {"profiles": {name: len(book.issued) for name, book in sink.books.items()}}


def _hold(sink: Sink, request: Request) -> object:
    sink.gate.hold(read_hold(_json(request)))
    return {"holding": True}


def _release(sink: Sink, request: Request) -> object:
    table = require_table("release", _json(request), ("click_id",))
    return {"released": sink.gate.release(str(table.get("click_id", "")))}


def _reset(sink: Sink, request: Request) -> object:
    sink.forget()
    return {"reset": True}


_ENDPOINTS = {
    ("GET", "about"): _about,
    ("GET", "counts"): _counts,
    ("GET", "credits"): _credits,
    ("GET", "totals"): _totals,
    ("GET", "report"): _report,
    ("GET", "requests"): _requests,
    ("GET", "held"): _held,
    ("POST", "plan"): _plan,
    ("POST", "settings"): _settings,
    ("POST", "hold"): _hold,
    ("POST", "release"): _release,
    ("POST", "reset"): _reset,
}


def answer(sink: Sink, request: Request) -> Answer:
    """Serve one request to ``/_sink/…``. It is neither counted nor recorded."""
    name = request.path.removeprefix("/_sink/")
    endpoint = _ENDPOINTS.get((request.method, name))
    if endpoint is None:
        known = ", ".join(f"{method} /_sink/{path}" for method, path in _ENDPOINTS)
        return refusal(
            SinkConfigError("path", f"{request.method} {request.path} is unknown", f"Use: {known}."), 404
        )
    try:
        answered = endpoint(sink, request)
        return answered if isinstance(answered, Answer) else json_answer(answered)
    except SinkConfigError as error:
        return refusal(error, 422)


def _json(request: Request) -> Any:
    if not request.body:
        return {}
    try:
        return orjson.loads(request.body)
    except orjson.JSONDecodeError as error:
        raise SinkConfigError("body", f"is no JSON ({error})", "Send a JSON object.") from error


def _whole(request: Request, name: str, default: int) -> int:
    text = request.first(name)
    if not text:
        return default
    if not text.isdigit():
        raise SinkConfigError(name, f"{text!r} is no whole number", f"Write it as in '{name}=100'.")
    return int(text)
