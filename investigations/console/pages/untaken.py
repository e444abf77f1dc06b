"""What became no postback, with the reasons: rejects and unrouted conversions; and the signals."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from infra.store.searching import listings, search
from investigations.console import asked
from investigations.console.frame import (
    Link,
    NotFoundError,
    engine_of,
    masking_of,
    note_evidence,
    render,
)
from investigations.console.leaves import leaves_of_json, without
from investigations.console.routing import page
from schemas.event import wire

SIGNALS = ("refund", "chargeback", "credit_check", "cancel")


def _rejects(request: Request) -> Response:
    before = asked.before(request)
    found = listings.rejects(engine_of(request), asked.sifted(request), before=before, limit=asked.PAGE + 1)
    return _show(request, "rejects.html", found, before, hidden=masking_of(request).on, seen=_seen(request))


def _reject(request: Request) -> Response:
    number = request.path_params["number"]
    found = listings.reject(engine_of(request), number)
    if found is None:
        raise NotFoundError(f"There is no reject {number}.")
    note_evidence(request, f"reject {number}")
    return render(request, "reject.html", each=found, hidden=masking_of(request).on, seen=_seen(request))


def _seen(request: Request) -> Callable[[str, str], str]:
    """How the reasons of a reject are shown: to who sees click ids masked, without anything that came in it."""
    on = masking_of(request).on
    return lambda text, raw: without(text, leaves_of_json(raw)) if on else text


def _unrouted(request: Request) -> Response:
    before = asked.before(request, "cv")
    found = listings.unrouted(engine_of(request), asked.sifted(request), before=before, limit=asked.PAGE + 1)
    return _show(request, "unrouted.html", found, before)


def _signals(request: Request) -> Response:
    before = asked.before(request, "sg")
    found = listings.signals(engine_of(request), asked.sifted(request), before=before, limit=asked.PAGE + 1)
    return _show(request, "signals.html", found, before, kinds=SIGNALS)


def _signal(request: Request) -> Response:
    number = asked.number(request, "sg")
    found = listings.signal(engine_of(request), number)
    if found is None:
        raise NotFoundError(f"There is no signal sg_{number}.")
    conversions = search.conversions_of_signal(engine_of(request), number)
    return render(request, "signal.html", each=found, conversions=conversions, event=wire(found.event))


def _show(request: Request, template: str, found: list[Any], before: int | None, **context: Any) -> Response:
    return render(
        request,
        template,
        rows=found[: asked.PAGE],
        more=len(found) > asked.PAGE,
        before=before,
        asked=asked.asked(request),
        **context,
    )


routes = [
    page("/rejects", _rejects),
    page("/rejects/{number:int}", _reject),
    page("/unrouted", _unrouted),
    page("/signals", _signals),
    page("/signals/{id}", _signal),
]
menu = [
    Link(60, "/rejects", "Rejects"),
    Link(61, "/unrouted", "Unrouted"),
    Link(62, "/signals", "Signals"),
]
