"""The language of the one search box: words, and terms such as ``state:dead,in_doubt since:2d value:>100``.

A bare word is the id that somebody has in hand: of an order, a click, an event, a lead, a customer or a device, or one of
ours. Ids may hold colons, dots and slashes, so a word counts as a term only if what stands before its first colon is a
field of ours; in quotes it is always an id. Everything that cannot be read is refused with the term and the remedy.
"""

from __future__ import annotations

import dataclasses
import difflib
import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Engine

from infra.filters import AskingError
from infra.store.searching import search
from infra.store.searching.search import Criteria
from investigations.terms import EXAMPLES, FIELDS, WRITERS, quoted
from schemas.ids import parse, show

LONGEST_QUERY = 4_000
_TERM = re.compile(r"[a-z_]+(?=:)")
_LIKENESS = 0.75


@dataclass(frozen=True, slots=True)
class Query:
    """What was asked: the terms, and the bare word if there was one."""

    criteria: Criteria
    names: str | None = None

    @property
    def search(self) -> Criteria:
        """All of it as one search for postbacks. What is no postback (``sg_7``) has none: ``look_up`` knows it."""
        if self.names is None:
            return self.criteria
        ours = parse(self.names)
        if ours is not None and ours[0] == "cv":
            return dataclasses.replace(self.criteria, conversion_id=ours[1])
        if ours is not None and ours[0] == "pb":
            return dataclasses.replace(self.criteria, postback_id=ours[1])
        return dataclasses.replace(self.criteria, named=self.names)


@dataclass(frozen=True, slots=True)
class Named:
    """What a bare word is the name of. ``ours`` is the prefix and number, if it is an id of ours."""

    conversions: tuple[int, ...]
    """Oldest first."""
    ours: tuple[str, int] | None = None


def read_query(text: str, now: datetime) -> Query:
    """Read what was typed; ages are counted back from ``now``. Raises AskingError."""
    if len(text) > LONGEST_QUERY:
        raise AskingError(f"the search is longer than {LONGEST_QUERY} characters; ask for less at once")
    if (not text.isascii() and text.encode("utf-8", "replace").decode() != text) or "\0" in text:
        raise AskingError(
            "the search holds characters that no text has (NUL, or half of a pair); leave them out"
        )
    asked: dict[str, Any] = {}
    names: str | None = None
    for word in _words(text):
        if word.field is None:
            if names is not None:
                raise AskingError(
                    f"{names!r} and {word.value!r} are two ids at once; give one, put one that has spaces in quotes,"
                    ' or look for words in requests and answers with text:"…"'
                )
            names = word.value
            continue
        for name, value in FIELDS[word.field](word.value, now).items():
            if name in asked:
                raise AskingError(f"{word.field}: is asked for twice; leave one out")
            asked[name] = value
    criteria = Criteria(**asked)
    _check(criteria)
    return Query(criteria, names)


def show_query(criteria: Criteria, names: str | None = None) -> str:
    """The text that ``read_query`` reads as these criteria. Instants are written out, so that a link keeps its meaning."""
    ours = {"cv": criteria.conversion_id, "pb": criteria.postback_id}
    parts = [show(prefix, number) for prefix, number in ours.items() if number is not None]
    parts += [_bare(name) for name in (names, criteria.named) if name is not None]
    parts += [write(getattr(criteria, name)) for name, write in WRITERS.items() if name in criteria.given()]
    return " ".join(parts)


def look_up(engine: Engine, query: Query) -> Named:
    """What the bare word names: a conversion by an id of its own or of ours, by anything that belongs to it, or nothing."""
    if query.names is None:
        return Named(())
    ours = parse(query.names)
    found = tuple(search.conversions_matching(engine, Criteria(named=query.names)))
    if ours is None:
        return Named(found)
    prefix, number = ours
    postback: int | None = number if prefix == "pb" else None
    if prefix == "at":
        postback = search.postback_of_attempt(engine, number)
    if prefix == "ck":
        postback = search.postback_of_check(engine, number)
    if prefix == "sg":
        return Named(tuple(search.conversions_of_signal(engine, number)), ours)
    conversion = number if prefix == "cv" else None
    if postback is not None:
        conversion = search.conversion_of_postback(engine, postback)
    if conversion is None or not search.is_conversion(engine, conversion):
        return Named(found, ours)
    return Named((conversion,), ours)


@dataclass(frozen=True, slots=True)
class _Word:
    field: str | None
    value: str


def _words(text: str) -> Iterator[_Word]:
    place = 0
    while True:
        place += len(text[place:]) - len(text[place:].lstrip())
        if place >= len(text):
            return
        field = None
        match = _TERM.match(text, place)
        if match is not None and match[0] in FIELDS:
            field, place = match[0], match.end() + 1
        start, place = place, _end(text, place)
        value = _unquoted(text[start:place])
        if field is None and text[start] != '"':
            _check_bare(value)
        if not value:
            raise AskingError(
                f"{field}: has nothing behind it; write {EXAMPLES[field]}"
                if field
                else '"" is no id; leave it out'
            )
        yield _Word(field, value)


def _end(text: str, place: int) -> int:
    """Where a word ends: at a space, or behind its closing quote."""
    if text[place : place + 1] != '"':
        while place < len(text) and not text[place].isspace():
            place += 1
        return place
    start = place
    place += 1
    while place < len(text) and text[place] != '"':
        place += 2 if text[place] == "\\" else 1
    if place >= len(text):
        raise AskingError(f'the quote before {text[start + 1 : start + 21]!r} is never closed; end it with "')
    place += 1
    if place < len(text) and not text[place].isspace():
        raise AskingError(
            f"{text[start:place]} is followed by {text[place]!r}; leave a space behind the closing quote"
        )
    return place


def _unquoted(word: str) -> str:
    if not word.startswith('"'):
        return word
    return re.sub(r"\\(.)", r"\1", word[1:-1], flags=re.DOTALL)


def _bare(value: str) -> str:
    """``value`` as a word of its own: in quotes also where it would be taken for a term."""
    match = _TERM.match(value)
    like_a_term = match is not None and (match[0] in FIELDS or _likest(match[0]) is not None)
    written = quoted(value)
    return f'"{value}"' if like_a_term and written == value else written


def _likest(name: str) -> str | None:
    return next(iter(difflib.get_close_matches(name, FIELDS, n=1, cutoff=_LIKENESS)), None)


def _check_bare(value: str) -> None:
    """A word that looks like a mistyped term is more likely that than an id."""
    match = _TERM.match(value)
    if match is not None and (field := _likest(match[0])) is not None:
        raise AskingError(
            f'{match[0]}: is no field; did you mean {field}:? If {value!r} is an id, put it in quotes: "{value}"'
        )


def _check(criteria: Criteria) -> None:
    if criteria.since is not None and criteria.until is not None and criteria.since >= criteria.until:
        raise AskingError("until: lies before since:, so nothing can be between them; exchange the two")
