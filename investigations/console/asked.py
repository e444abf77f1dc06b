"""What a listing's query string asks for. Errors name the field, why, and what to write."""

from __future__ import annotations

from datetime import UTC, datetime

from starlette.requests import Request

from infra.filters import read_instant
from infra.store.searching.listings import Sifted
from investigations.console.errors import BadRequestError
from schemas.ids import parse

PAGE = 50
LONGEST = 500
"""Characters of one field."""


def field(request: Request, name: str) -> str | None:
    """A field of the query string, trimmed; None where it is empty or left out."""
    given = request.query_params.get(name, "").strip()
    if len(given) > LONGEST or "\0" in given:
        raise BadRequestError(f"{name}: at most {LONGEST} characters, none of them NUL")
    return given or None


def instant(request: Request, name: str) -> datetime | None:
    """``2h``, ``3d`` (ago) or ISO 8601. Raises AskingError."""
    return read_instant(name, field(request, name), datetime.now(UTC))


def before(request: Request, prefix: str | None = None) -> int | None:
    """The id of the last row of the page before: a plain number, or an id of ours with ``prefix``."""
    given = field(request, "before")
    if given is None:
        return None
    if prefix is not None and (found := parse(given)) is not None and found[0] == prefix:
        return found[1]
    if not given.isascii() or not given.isdigit() or len(given) > 18:
        raise BadRequestError(f"before: {given!r} is no place in this listing; begin it anew without it")
    return int(given)


def number(request: Request, prefix: str) -> int:
    """The number of the id in the path. Raises BadRequestError for one that is not of this kind."""
    given = request.path_params["id"]
    found = parse(given)
    if found is None or found[0] != prefix:
        raise BadRequestError(f"{given!r} is no id of this kind; write it like {prefix}_12")
    return found[1]


def sifted(request: Request) -> Sifted:
    """The fields that the listings share."""
    return Sifted(
        source=field(request, "source"),
        event_id=field(request, "event"),
        order_id=field(request, "order"),
        kind=field(request, "kind"),
        since=instant(request, "since"),
        until=instant(request, "until"),
        failed=field(request, "failed") is not None or None,
    )


class Asked(dict[str, str]):
    """The fields of a query string; one that was not given is empty."""

    def __missing__(self, name: str) -> str:
        return ""


def asked(request: Request) -> Asked:
    """The query string as it is, but for the place in the listing: for the links to other pages of the same."""
    return Asked(
        (name, value) for name, value in request.query_params.items() if name != "before" and value.strip()
    )
