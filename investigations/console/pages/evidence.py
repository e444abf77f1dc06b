"""Evidence to take away from a page: transcripts, HAR and JSON for everyone who reads, signed bundles for operators.

Who sees click ids masked gets them masked, in files as on pages.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response

from infra.catalogue import load_catalogue
from infra.settings import load_settings
from infra.store import audit
from infra.store.records import Life
from investigations.console.downloads import zip_response
from investigations.console.frame import NotFoundError, engine_of, long_engine_of, masking_of, who_of
from investigations.console.marking import Marker
from investigations.console.reading import attempt_of, life_of, marker_of, number_of
from investigations.console.routing import Access, page
from investigations.export.bundle import write_bundle
from investigations.export.handing import Handing, for_support
from investigations.export.har import har
from investigations.export.inert import inert_json
from investigations.export.signing import signer_of
from investigations.jsonable import life_json
from investigations.masking import mask_life
from investigations.transcript import check_transcript, transcript
from schemas.ids import show


def _attempt_transcript(request: Request) -> Response:
    found = attempt_of(request, request.path_params["id"])
    marker = marker_of(request, found.life)
    name = show("at", found.attempt.id)
    return _text(request, name, transcript(found.life, found.postback, found.attempt), marker)


def _attempt_har(request: Request) -> Response:
    found = attempt_of(request, request.path_params["id"])
    life = _shown(request, found.life)
    attempts = [
        each for postback in life.postbacks for each in postback.attempts if each.id == found.attempt.id
    ]
    return _json(request, show("at", found.attempt.id), "har", har(life, attempts))


def _shown(request: Request, life: Life) -> Life:
    """The life as its reader may have it: whatever is made of a masked one has no click id to show."""
    return mask_life(life) if masking_of(request).on else life


def _life_transcript(request: Request) -> Response:
    life = life_of(request, number_of(request.path_params["id"], "cv"))
    return _text(request, show("cv", life.conversion.id), _whole(life), marker_of(request, life))


def _whole(life: Life) -> Iterator[str]:
    """Every check and attempt, in the order of their postbacks, two blank lines between them."""
    for number, lines in enumerate(_each(life)):
        yield from ("", "") if number else ()
        yield from lines


def _each(life: Life) -> Iterator[Iterable[str]]:
    for postback in life.postbacks:
        yield from (check_transcript(life, postback, check) for check in postback.checks)
        yield from (transcript(life, postback, attempt) for attempt in postback.attempts)


def _life_har(request: Request) -> Response:
    life = _shown(request, life_of(request, number_of(request.path_params["id"], "cv")))
    attempts = [attempt for postback in life.postbacks for attempt in postback.attempts]
    return _json(request, show("cv", life.conversion.id), "har", har(life, attempts))


def _life_json(request: Request) -> Response:
    life = _shown(request, life_of(request, number_of(request.path_params["id"], "cv")))
    return _json(request, show("cv", life.conversion.id), "json", life_json(life))


def _text(request: Request, name: str, lines: Iterable[str], marker: Marker) -> Response:
    _record(request, name, "txt")
    text = "".join(f"{marker.plain(line)}\n" for line in lines)
    return PlainTextResponse(text, headers=_attached(f"{name}.txt"))


def _json(request: Request, name: str, kind: str, value: object) -> Response:
    _record(request, name, kind)
    media = "application/json"
    return Response(f"{inert_json(value)}\n", media_type=media, headers=_attached(f"{name}.{kind}"))


def _bundle(request: Request) -> Response:
    """Everything of a conversion in a signed zip; with ``network``, in the form that its support asks for."""
    number = number_of(request.path_params["id"], "cv")
    life, name = life_of(request, number, lambda _: ()), show("cv", number)
    order = life.conversion.event.order_id
    about = f"conversion {name}" + (f", order {order}" if order else "")
    handing = Handing(about, who_of(request), selection=name, mask_click_ids=masking_of(request).on)
    slug = request.query_params.get("network")
    if slug is not None:
        network = load_catalogue().get(slug)
        if network is None:
            raise NotFoundError(f"There is no network {slug}.")
        handing, name = for_support(handing, network), f"{name}-{slug}"
    _record(request, name, "bundle")
    return zip_response(
        f"{name}.zip",
        lambda target: write_bundle(
            long_engine_of(request),
            [number],
            target,
            signer=signer_of(load_settings()),
            about=about,
            handing=handing,
        ),
    )


def _record(request: Request, name: str, kind: str) -> None:
    audit.record(engine_of(request), who=who_of(request), action=f"export.{kind}", detail={"subject": name})


def _attached(name: str) -> dict[str, str]:
    return {"content-disposition": f'attachment; filename="{name}"'}


routes = [
    page("/attempts/{id}/transcript.txt", _attempt_transcript),
    page("/attempts/{id}/attempt.har", _attempt_har),
    page("/conversions/{id}/transcript.txt", _life_transcript),
    page("/conversions/{id}/conversion.har", _life_har),
    page("/conversions/{id}/conversion.json", _life_json),
    page("/conversions/{id}/bundle.zip", _bundle, access=Access.OPERATOR),
]
