"""A conversion, from the request that brought it to its last hop, and an attempt of it with its exchange."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from infra.store.arrivals import brought_by
from infra.store.searching import search
from investigations.console.exchange import attempt_row, unfold
from investigations.console.frame import NotFoundError, engine_of, note_evidence, render, signed_in
from investigations.console.life_view import life_view, newest
from investigations.console.reading import attempt_of, life_of, marker_of, number_of
from investigations.console.routing import page
from schemas.accounts import Role
from schemas.by_hand import Act
from schemas.ids import show

LEGEND = (
    ("click", "plain", "ad clicked"),
    ("event", "plain", "event"),
    ("request", "plain", "came in"),
    ("receipt", "plain", "received"),
    ("match", "plain", "click found"),
    ("signal", "signal", "signal"),
    ("repeat", "faint", "came again"),
    ("window", "", "window"),
    ("after", "", "window to come"),
    ("missed", "", "window not waited out"),
    ("released", "plain", "due"),
    ("check", "plain", "service asked"),
    ("wire", "", "on the wire"),
    ("wait", "", "wait before a retry"),
    ("delivered", "good", "delivered"),
    ("retry", "warn", "to be retried"),
    ("rejected", "bad", "refused"),
    ("unknown", "warn", "outcome unknown"),
    ("open", "plain", "no outcome yet"),
    ("void", "bad", "ended without firing"),
    ("counted", "good", "counted by a report"),
    ("replayed", "act", "fired again by a person"),
    ("act", "act", "by hand"),
    ("expiry", "bad", "age limit"),
    ("lost", "bad", "cannot be told"),
)


def _conversion(request: Request) -> Response:
    life = life_of(request, number_of(request.path_params["id"], "cv"), newest)
    marker = marker_of(request, life)
    note_evidence(request, show("cv", life.conversion.id))
    return render(
        request,
        "conversion.html",
        life=life_view(life, marker, brought_by(engine_of(request), life.conversion)),
        seen=marker.plain,
        legend=LEGEND,
        networks=sorted({each.version.contract.network.slug for each in life.postbacks if each.attempts}),
        act_urls={
            "settle": "/settle",
            "replay": "/replays/new",
            **{each: f"/by-hand/{each}" for each in Act},
        },
        operator=signed_in(request).role is Role.OPERATOR,
    )


def _postback(request: Request) -> Response:
    number = number_of(request.path_params["id"], "pb")
    return _to_conversion(search.conversion_of_postback(engine_of(request), number), show("pb", number))


def _check(request: Request) -> Response:
    number = number_of(request.path_params["id"], "ck")
    postback_id = search.postback_of_check(engine_of(request), number)
    found = None if postback_id is None else search.conversion_of_postback(engine_of(request), postback_id)
    return _to_conversion(found, show("ck", number))


def _to_conversion(number: int | None, anchor: str) -> Response:
    if number is None:
        raise NotFoundError(f"There is no {anchor}.")
    return RedirectResponse(f"/conversions/{show('cv', number)}#{anchor}", 303)


def _attempt(request: Request) -> Response:
    found = attempt_of(request, request.path_params["id"])
    marker = marker_of(request, found.life)
    before, after = found.neighbours
    note_evidence(request, show("at", found.attempt.id))
    return render(
        request,
        "attempt.html",
        row=attempt_row(found.life, found.postback, found.attempt, marker),
        view=unfold(found.life, found.postback, found.attempt, marker),
        conversion=show("cv", found.life.conversion.id),
        postback=show("pb", found.postback.id),
        destination=found.postback.version.contract.name,
        made=len(found.postback.attempts),
        before=before,
        after=after,
        seen=marker.plain,
    )


routes = [
    page("/conversions/{id}", _conversion),
    page("/postbacks/{id}", _postback),
    page("/checks/{id}", _check),
    page("/attempts/{id}", _attempt),
]
