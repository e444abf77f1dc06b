"""Which postbacks a person means to act on, as an address or a form names them."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from urllib.parse import urlencode

from starlette.requests import Request

from infra.filters import show_options
from infra.store.searching import search
from infra.store.searching.search import Criteria
from infra.store.selection import Selection
from investigations.console.errors import BadRequestError
from investigations.console.frame import NotFoundError, engine_of
from investigations.console.reading import number_of
from investigations.query import read_query, show_query
from schemas.ids import show

MOST = 20_000
"""Postbacks that a page considers one by one before it answers; more are acted on from the command line."""


@dataclass(frozen=True, slots=True)
class Target:
    """What is meant, in words and as the fields that carry it from form to form. ``back`` leads to where it came from."""

    selection: Selection
    named: str
    fields: Mapping[str, str]
    back: str

    @property
    def query(self) -> str:
        return urlencode(self.fields)

    def command(self, act: str, *more: str) -> str | None:
        """What looks at the same postbacks from the command line; None where no options say which these are."""
        if self.selection.cause is not None:
            named = shlex.join([f"--cause={self.selection.cause}"]) if act == "replay" else None
        else:
            ours = self.fields.get("postback") or self.fields.get("conversion")
            named = ours or show_options(self.selection.criteria)
        return (
            None
            if named is None
            else " ".join(["holdfire", act, named, *map(shlex.quote, more), "--dry-run"])
        )

    def too_many(self, count: int, command: str | None) -> str:
        """Why a page does not act on so many, and what does."""
        other = "" if command is None else f", or look at all of them with `{command}`"
        return f"That is {count:,} postbacks, and a page acts on up to {MOST:,}. Narrow it{other}."


def target_of(request: Request, given: Mapping[str, Any]) -> Target:
    """``postback``, ``conversion``, ``cause`` or ``q``: exactly one. Raises BadRequestError, AskingError and NotFoundError."""
    named = {name: str(given.get(name) or "") for name in _READERS}
    asked = [name for name, value in named.items() if value]
    if len(asked) != 1:
        raise BadRequestError(
            "Name what is to be acted on: open a conversion, or a cause, and act from there."
        )
    (name,) = asked
    return _READERS[name](request, named[name])


def _postback(request: Request, text: str) -> Target:
    number = number_of(text, "pb")
    of = search.conversion_of_postback(engine_of(request), number)
    if of is None:
        raise NotFoundError(f"There is no postback {text}.")
    back = f"/conversions/{show('cv', of)}#{text}"
    return Target(Selection(Criteria(postback_id=number)), text, {"postback": text}, back)


def _conversion(_: Request, text: str) -> Target:
    number = number_of(text, "cv")
    selection = Selection(Criteria(conversion_id=number))
    return Target(selection, f"all postbacks of {text}", {"conversion": text}, f"/conversions/{text}")


def _cause(_: Request, text: str) -> Target:
    return Target(Selection(cause=text), f"all that ended of cause {text}", {"cause": text}, "/dead")


def _search(_: Request, text: str) -> Target:
    """All that a search finds. Ages in it become instants, so that each step of a form means the same."""
    query = read_query(text, datetime.now(UTC))
    if query.names is None and not query.criteria.given():
        raise BadRequestError("That would be every postback there is. Narrow the search first.")
    asked = show_query(query.criteria, query.names)
    back = f"/search?{urlencode({'q': asked})}"
    return Target(Selection(query.search), f"all that {asked} finds", {"q": asked}, back)


_READERS = {"postback": _postback, "conversion": _conversion, "cause": _cause, "q": _search}
