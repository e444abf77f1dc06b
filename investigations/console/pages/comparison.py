"""Two attempts side by side."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from investigations.console.comparison import compare
from investigations.console.errors import BadRequestError
from investigations.console.exchange import attempt_row
from investigations.console.frame import note_evidence, render
from investigations.console.marking import Marker
from investigations.console.reading import Found, attempt_of, marker_of
from investigations.console.routing import page
from schemas.ids import show


def _compare(request: Request) -> Response:
    picked = request.query_params.getlist("attempt")
    if picked:
        # From the boxes of a conversion's page: put into an address that says which is which.
        if len(picked) != 2:
            raise BadRequestError(
                f"Two attempts are compared, and {len(picked)} {'is' if len(picked) == 1 else 'are'} picked. "
                "Go back, and pick two."
            )
        left, right = (attempt_of(request, each) for each in picked)
        return RedirectResponse(
            f"/compare?a={show('at', left.attempt.id)}&b={show('at', right.attempt.id)}", 303
        )
    given = [request.query_params.get(name) for name in ("a", "b")]
    if None in given:
        raise BadRequestError(
            "Two attempts are compared: /compare?a=at_2&b=at_3. Pick them on a conversion's page."
        )
    left, right = (attempt_of(request, str(each)) for each in given)
    marker = marker_of(request, left.life, right.life)
    for each in (left, right):
        note_evidence(request, show("at", each.attempt.id))
    sections = compare(left.compared, right.compared, marker.plain)
    return render(
        request,
        "compare.html",
        left=_side(left, marker),
        right=_side(right, marker),
        sections=sections,
        differences=sum(section.differences for section in sections),
        mark=marker,
        earlier=_step(left, right, 0),
        later=_step(left, right, 1),
    )


def _side(found: Found, marker: Marker) -> dict[str, object]:
    return {
        "row": attempt_row(found.life, found.postback, found.attempt, marker),
        "conversion": show("cv", found.life.conversion.id),
        "destination": found.postback.version.contract.name,
    }


def _step(left: Found, right: Found, towards: int) -> str | None:
    """The address of the pair one attempt earlier or later, of two of the same postback."""
    pair = left.neighbours[towards], right.neighbours[towards]
    if left.postback.id != right.postback.id or None in pair:
        return None
    return f"/compare?a={pair[0]}&b={pair[1]}"


routes = [page("/compare", _compare)]
