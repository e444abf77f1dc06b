"""Attempts as they are settled: streamed where scripts run, reloaded where they do not."""

from __future__ import annotations

from collections.abc import AsyncIterator

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response, StreamingResponse

from infra.store import destinations
from infra.store.console import sessions as store
from infra.store.console.tailing import TailedAttempt
from investigations.console import asked, drawing
from investigations.console.errors import BadRequestError
from investigations.console.frame import Link, engine_of, render, session_of, settings_of
from investigations.console.routing import page
from investigations.console.sessions import session_token
from investigations.console.tail import Tail, Wanted
from schemas.verdict import VerdictKind

SHOWN = 100
CHECK_SESSION_EVERY = 30
"""Beats of the tail: a session that has ended must not go on watching."""


def tail_of(request: Request) -> Tail:
    """The one tail of this process."""
    tail: Tail = request.app.state.tail
    return tail


def _wanted(request: Request) -> Wanted:
    verdict = asked.field(request, "verdict")
    if verdict is not None and verdict not in set(VerdictKind):
        raise BadRequestError(f"verdict: {verdict!r} is none; use one of {', '.join(VerdictKind)}")
    return Wanted(asked.field(request, "destination"), None if verdict is None else VerdictKind(verdict))


async def _page(request: Request) -> Response:
    wanted = _wanted(request)
    names = await run_in_threadpool(destinations.names, engine_of(request))
    found, place = await tail_of(request).newest(wanted, SHOWN)
    return await run_in_threadpool(
        render,
        request,
        "live.html",
        rows=list(reversed(found)),
        place=place,
        wanted=wanted,
        destinations=names,
        verdicts=[each.value for each in VerdictKind],
        paused=asked.field(request, "paused") is not None,
        asked=asked.asked(request),
        shown=SHOWN,
    )


async def _stream(request: Request) -> Response:
    wanted = _wanted(request)
    place = request.headers.get("last-event-id") or request.query_params.get("from", "")
    tail = tail_of(request)
    if not tail.has_room:
        return PlainTextResponse("Too many watch already; the page itself still works.", 503)
    return StreamingResponse(
        _events(request, tail, wanted, int(place) if place.isdigit() and len(place) < 19 else None),
        media_type="text/event-stream",
        headers={"cache-control": "no-store", "x-accel-buffering": "no"},
    )


async def _events(request: Request, tail: Tail, wanted: Wanted, place: int | None) -> AsyncIterator[str]:
    """Each batch is one event, its rows as they stand in the page; the id is the place to go on from."""
    beats = 0
    yield "retry: 3000\n\n"
    async for batch in tail.watch(wanted, place):
        beats += 1
        if beats % CHECK_SESSION_EVERY == 0 and not await _still_signed_in(request):
            yield "event: ended\ndata: session\n\n"
            return
        if not batch.attempts and not batch.left_out:
            yield ": still here\n\n"
            continue
        rows = "".join(_row(each) for each in batch.attempts).replace("\n", " ")
        kind = "event: left_out\ndata: 1\n\n" if batch.left_out else ""
        yield f"{kind}id: {batch.place}\ndata: {rows}\n\n"


async def _still_signed_in(request: Request) -> bool:
    token, idle = session_token(request), settings_of(request).policy.session_idle
    if token is None:
        return False
    found = await run_in_threadpool(store.of_token, engine_of(request), token, idle=idle)
    return found is not None and found.id == session_of(request).id


def _row(attempt: TailedAttempt) -> str:
    module = drawing.environment().get_template("live_row.html")
    return module.render(each=attempt)


routes = [page("/live", _page), page("/live/stream", _stream)]
menu = [Link(30, "/live", "Live")]
