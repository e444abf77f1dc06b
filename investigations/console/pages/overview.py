"""How every destination is doing, and stopping one by hand."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime

from pydantic_core import PydanticCustomError
from starlette.requests import Request
from starlette.responses import Response

from infra.filters import iso_instant
from infra.store.overview import DestinationOverview, Overview, read_overview
from infra.store.stopping import stopping
from investigations.console import asked, drawing
from investigations.console.charts import Chart, attempts_chart
from investigations.console.deciding import read_reason
from investigations.console.errors import BadRequestError
from investigations.console.frame import (
    Link,
    NotFoundError,
    engine_of,
    form_of,
    redirect,
    render,
    who_of,
)
from investigations.console.routing import act, page
from schemas.durations import parse as parse_duration
from schemas.lifecycle import State

RANGES = {"1h": 1, "24h": 24, "7d": 24 * 7}
LATE_S = 60.0
"""What is overdue for longer than this is worth a look; a release pass comes every second."""


@dataclass(frozen=True, slots=True)
class Remark:
    """Something that a person should look at, and where."""

    destination: str
    words: str
    path: str


def _page(request: Request) -> Response:
    given = asked.field(request, "range") or "24h"
    if given not in RANGES:
        raise BadRequestError(f"range: {given!r} is none; use one of {', '.join(RANGES)}")
    overview = read_overview(engine_of(request), hours=RANGES[given])
    return render(
        request,
        "overview.html",
        overview=overview,
        charts={each.destination: _chart(each, overview) for each in overview.destinations},
        remarks=[remark for each in overview.destinations for remark in remarks(each)],
        range=given,
        ranges=list(RANGES),
        total=_total(overview),
    )


def _chart(each: DestinationOverview, overview: Overview) -> Chart:
    return attempts_chart([(bucket.at, bucket.attempts) for bucket in each.buckets], overview.bucket_s)


def _total(overview: Overview) -> dict[str, int]:
    """Sums over every destination."""
    return {
        "attempts": sum(sum(each.attempts.values()) for each in overview.destinations),
        "overdue": sum(each.overdue for each in overview.destinations),
        "retries": sum(each.retries_due for each in overview.destinations),
        "held": sum(each.states.get(State.HELD, 0) for each in overview.destinations),
        "stopped": sum(each.stop is not None for each in overview.destinations),
    }


def remarks(each: DestinationOverview) -> list[Remark]:
    """What of a destination a person should look at."""
    name = each.destination

    def find(terms: str) -> str:
        return f"/search{drawing.query({'q': f'{terms} destination:{name}'})}"

    found = []
    if each.stop is not None:
        words = {"paused": "is paused", "open": "has an open breaker", "half_open": "is being tried again"}
        found.append(Remark(name, words[each.stop.kind], f"/#{name}"))
    if each.oldest_overdue_s is not None and each.oldest_overdue_s > LATE_S:
        late = f"has {each.overdue:,} overdue, the oldest for {drawing.span(each.oldest_overdue_s)}"
        found.append(Remark(name, late, find("state:held,retrying") + "&sort=due"))
    for state, said in ((State.IN_DOUBT, "in doubt, for a person to settle"), (State.DEAD, "dead")):
        if count := each.states.get(state, 0):
            found.append(Remark(name, f"has {count:,} {said}", find(f"state:{state}")))
    return found


def _pause(request: Request) -> Response:
    form, name = form_of(request), request.path_params["name"]
    until = _until(str(form.get("until", "")).strip())
    reason = read_reason(str(form.get("reason", "")))
    try:
        stopping.pause(engine_of(request), name, who_of(request), reason, until)
    except KeyError:
        raise NotFoundError(f"There is no destination {name}.") from None
    end = f" until {drawing.clock(until)} UTC" if until else "; resume it when it may go on"
    return redirect(request, _back(request), f"{name} is paused{end}.")


def _resume(request: Request) -> Response:
    name = request.path_params["name"]
    try:
        ended = stopping.resume(
            engine_of(request), name, who_of(request), str(form_of(request).get("reason", ""))
        )
    except KeyError:
        raise NotFoundError(f"There is no destination {name}.") from None
    if ended is None:
        return redirect(request, _back(request), f"{name} was not stopped.", kind="failed")
    return redirect(request, _back(request), f"{name} goes on; what is due there goes oldest first.")


def _back(request: Request) -> str:
    given = str(form_of(request).get("range", ""))
    return f"/?range={given}" if given in RANGES else "/"


def _until(text: str) -> datetime | None:
    """``2h`` from now, or an instant; without one the pause has no end. Raises BadRequestError."""
    if not text:
        return None
    now = datetime.now(UTC)
    try:
        end = now + parse_duration(text)
    except PydanticCustomError:
        try:
            end = iso_instant(text)
        except ValueError:
            raise BadRequestError(
                f"until: {text!r} is neither a duration nor an instant; write 2h, or 2026-12-24T10:00:00Z"
            ) from None
    if end <= now:
        raise BadRequestError(f"until: {text} has passed")
    return end


routes = [
    page("/", _page),
    act("/destinations/{name}/pause", _pause),
    act("/destinations/{name}/resume", _resume),
]
menu = [Link(10, "/", "Overview")]
