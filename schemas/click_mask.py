"""Masking click ids for those who may not see them: every writing of them, wherever it stands. Pure.

By default evidence shows click ids, for they are what is argued about. Where a policy says otherwise they are shown as
``[click:9f86d081,53]``: the head of the SHA-256 and the number of characters, so that two can still be told apart and a
lost character is seen. Masked are also what is left of one: without the period at its end, in another case, cut.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache

from schemas.redaction import Span, merge, spellings, writings_of

SHORTEST_PART = 8
"""Characters. Of a longer click id at least half, and so many, are masked too where it was cut."""
_MASKED = re.compile(r"\[click:[0-9a-f]{8},[0-9]+\]")
_HEAD = 8


def mask_click_id(click_id: str) -> str:
    """How a click id is shown: ``[click:``, 8 hexadecimal digits of its SHA-256, its length in characters, ``]``."""
    return (
        f"[click:{hashlib.sha256(click_id.encode('utf-8', 'surrogatepass')).hexdigest()[:8]},{len(click_id)}]"
    )


def is_masked(text: str) -> bool:
    """Whether this is what ``mask_click_id`` makes."""
    return _MASKED.fullmatch(text) is not None


class ClickMask:
    """Masks a fixed set of click ids. Bodies must be given decoded: inside compressed bytes nothing can be seen."""

    def __init__(self, click_ids: Iterable[str]) -> None:
        given = sorted(
            {each for each in click_ids if each and not is_masked(each)}, key=lambda each: (-len(each), each)
        )
        self._searches = [search for click_id in given for search in _searches(click_id)]

    def __bool__(self) -> bool:
        return bool(self._searches)

    def in_text(self, text: str) -> str:
        """``text`` with every click id masked."""
        if not self:
            return text
        return self.in_bytes(text.encode("utf-8", "surrogatepass")).decode("utf-8", "surrogatepass")

    def in_bytes(self, data: bytes) -> bytes:
        """``data`` with every click id masked."""
        spans = sorted(
            (start, end, shown) for search in self._searches for start, end, shown in search.found(data)
        )
        out, end = [], 0
        for start, stop, shown in merge(spans):
            out += [data[end:start], shown]
            end = stop
        return b"".join([*out, data[end:]])


@dataclass(frozen=True, slots=True)
class _Search:
    """For one spelling of one click id, however its characters are written, and for its beginning where it was cut."""

    start: re.Pattern[bytes]
    text: str
    least: int
    """Characters of ``text`` that give it away."""
    shown: bytes

    def found(self, data: bytes) -> Iterator[Span]:
        for match in self.start.finditer(data):
            end = _reach(data, match.start(), self.text, self.least)
            if end:
                yield match.start(), end, self.shown


@dataclass(frozen=True, slots=True)
class _Verbatim:
    """For these bytes, as they are."""

    raw: bytes
    shown: bytes

    def found(self, data: bytes) -> Iterator[Span]:
        for match in re.finditer(re.escape(self.raw), data):
            yield match.start(), match.end(), self.shown


@lru_cache(maxsize=1024)
def _searches(click_id: str) -> tuple[_Search | _Verbatim, ...]:
    shown = mask_click_id(click_id).encode()
    bare = click_id.rstrip(".-_~=")
    if len(click_id) < SHORTEST_PART:
        # Found by chance in any text, so only where it stands alone.
        return (_Search(_start(click_id, alone=True), click_id, len(click_id), shown),)
    least = max(SHORTEST_PART, (len(bare) + 1) // 2) if len(bare) >= SHORTEST_PART else len(click_id)
    plain = dict.fromkeys((click_id, click_id.lower(), click_id.upper()))
    coded = [text for text in spellings(click_id) if text != click_id]
    return (
        *(_Search(_start(text[:_HEAD]), text, least, shown) for text in plain),
        *(_Search(_start(text[:_HEAD]), text, min(len(text), 2 * least), shown) for text in coded),
        *(_Verbatim(click_id.encode(coding), shown) for coding in ("utf-16-le", "utf-16-be")),
    )


def _start(text: str, *, alone: bool = False) -> re.Pattern[bytes]:
    characters = []
    for char in text:
        raw = char.encode()
        forms = (
            re.escape(form) if form == raw else b"(?i:%b)" % re.escape(form) for form in writings_of(char)
        )
        characters.append(b"(?:%b)" % b"|".join(forms))
    before, after = (rb"(?<![A-Za-z0-9])", rb"(?![A-Za-z0-9])") if alone else (b"", b"")
    # Looked for, not consumed: one occurrence may begin inside another.
    return re.compile(b"%b(?=%b%b)" % (before, b"".join(characters), after))


def _reach(data: bytes, start: int, text: str, least: int) -> int:
    """Where the writing of ``text`` that begins at ``start`` ends, or stops being one; 0 if under ``least`` characters.

    Where the data ends inside it, what is there is enough.
    """
    places, furthest = {start}, 0
    for count, char in enumerate(text, 1):
        raw = char.encode()
        reached = set()
        for place in places:
            for form in writings_of(char):
                piece = data[place : place + len(form)]
                if form == (piece if form == raw else piece.lower()):
                    reached.add(place + len(form))
        if not reached:
            break
        places = reached
        if count >= least:
            furthest = max(furthest, *places)
    return furthest or (len(data) if len(data) in places else 0)
