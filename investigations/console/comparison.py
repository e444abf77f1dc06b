"""Two attempts side by side: what is the same, what differs, and where in a line. Pure.

Lines are aligned by what they have in common, and two lines that stand against each other field by field, so that a
parameter differs as a whole.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher
from enum import StrEnum
from itertools import zip_longest

from infra.store.records import AttemptRecord, Life, PostbackRecord
from investigations.bodies import readable
from investigations.transcript import connection_lines, ending_lines, head_lines, heading, times_line
from investigations.words import visible_bytes
from schemas.exchange import Hop

MOST_LINES = 2_000
"""Of a section that are aligned; what goes beyond is compared line by line, in place."""
MOST_FIELDS = 500
"""Of a line that are aligned."""
_MASKED = r"\[(?:secret|click):[0-9a-f,]+\]"
"""One field, whatever it stands in."""
_END = r"[\s&?;,/=\"'<>]"
_FIELDS = re.compile(rf"{_MASKED}|{_END}|(?:(?!{_MASKED})[^\s&?;,/=\"'<>])+")


class Kind(StrEnum):
    SAME = "same"
    CHANGED = "changed"
    LEFT = "left"
    """Only the first has it."""
    RIGHT = "right"


@dataclass(frozen=True, slots=True)
class Part:
    text: str
    differs: bool


Side = tuple[Part, ...]
"""A line, in parts that both have and parts that only this one has."""


@dataclass(frozen=True, slots=True)
class Row:
    kind: Kind
    name: str
    """Of a fact; empty for a line."""
    left: Side | None
    right: Side | None


@dataclass(frozen=True, slots=True)
class Section:
    title: str
    rows: tuple[Row, ...]

    @property
    def differences(self) -> int:
        return sum(row.kind is not Kind.SAME for row in self.rows)


@dataclass(frozen=True, slots=True)
class Compared:
    """One attempt with what it belongs to."""

    life: Life
    postback: PostbackRecord
    attempt: AttemptRecord


def compare(left: Compared, right: Compared, seen: Callable[[str], str]) -> tuple[Section, ...]:
    """Everything of two attempts. ``seen`` is a text as its reader may see it: it is applied before anything is compared."""
    sections = [Section("Facts", tuple(_facts(left, right, seen)))]
    for number, pair in enumerate(zip_longest(left.attempt.hops, right.attempt.hops), 1):
        sections += _hops(number, *pair, seen)
    ends = [[seen(line) for line in ending_lines(each.attempt)] for each in (left, right)]
    if any(ends):
        sections.append(Section("Came to", tuple(aligned(*ends))))
    return tuple(sections)


def _facts(left: Compared, right: Compared, seen: Callable[[str], str]) -> Iterator[Row]:
    """Facts stand against each other by their names."""
    first, second = ({name: seen(value) for name, value in _named(each)} for each in (left, right))
    for name in dict.fromkeys([*first, *second]):
        yield _row(first.get(name), second.get(name), name)


def _named(each: Compared) -> Iterator[tuple[str, str]]:
    before = ""
    for name, value in heading(each.life, each.postback, each.attempt):
        # What has no name of its own goes on with the fact above it: of a click id, its length and digest.
        yield name or f"{before}, facts", value
        before = name or before


def _hops(number: int, left: Hop | None, right: Hop | None, seen: Callable[[str], str]) -> Iterator[Section]:
    parts: tuple[tuple[str, Callable[[Hop], list[str]]], ...] = (
        ("request head", lambda hop: [visible_bytes(line) for line in head_lines(hop.request_head)]),
        ("request body", lambda hop: _body(hop.request_head, hop.request_body)),
        ("response head", lambda hop: [visible_bytes(line) for line in head_lines(hop.response_head)]),
        ("response body", lambda hop: _body(hop.response_head, hop.body)),
        ("connection and times", lambda hop: [*connection_lines(hop), times_line(hop)]),
    )
    for title, lines in parts:
        first, second = (
            [seen(line) for line in lines(hop) if line] if hop is not None else [] for hop in (left, right)
        )
        if first or second:
            yield Section(f"Hop {number}, {title}", tuple(aligned(first, second)))


def _body(head: bytes, body: bytes) -> list[str]:
    return list(readable(head, body).lines) if body else []


def aligned(left: Sequence[str], right: Sequence[str]) -> Iterator[Row]:
    """Both texts line by line, common lines against each other."""
    whole = len(left) <= MOST_LINES and len(right) <= MOST_LINES
    if not whole:
        yield from (_row(first, second) for first, second in zip_longest(left, right))
        return
    for _, low, high, other_low, other_high in SequenceMatcher(
        None, left, right, autojunk=False
    ).get_opcodes():
        for first, second in zip_longest(left[low:high], right[other_low:other_high]):
            yield _row(first, second)


def _row(left: str | None, right: str | None, name: str = "") -> Row:
    if left is None or right is None:
        kind = Kind.RIGHT if left is None else Kind.LEFT
        return Row(kind, name, _all(left), _all(right))
    if left == right:
        both = (Part(left, differs=False),)
        return Row(Kind.SAME, name, both, both)
    return Row(Kind.CHANGED, name, *_differing(left, right))


def _all(line: str | None) -> Side | None:
    return None if line is None else (Part(line, differs=True),)


def _differing(left: str, right: str) -> tuple[Side, Side]:
    """Two lines field by field. Of very long ones only what is common at both ends is told from the rest."""
    words, others = _FIELDS.findall(left), _FIELDS.findall(right)
    if max(len(words), len(others)) > MOST_FIELDS:
        start, end = _common(words, others)
        blocks = [("equal", 0, start, 0, start)] if start else []
        blocks.append(("replace", start, len(words) - end, start, len(others) - end))
        blocks += [("equal", len(words) - end, len(words), len(others) - end, len(others))] if end else []
    else:
        blocks = list(SequenceMatcher(None, words, others, autojunk=False).get_opcodes())
    sides: tuple[list[Part], list[Part]] = ([], [])
    for tag, low, high, other_low, other_high in blocks:
        for side, text in zip(
            sides, ("".join(words[low:high]), "".join(others[other_low:other_high])), strict=True
        ):
            if text:
                side.append(Part(text, differs=tag != "equal"))
    return tuple(sides[0]), tuple(sides[1])


def _common(left: Sequence[str], right: Sequence[str]) -> tuple[int, int]:
    """How many fields both begin with, and end with."""
    shortest = min(len(left), len(right))
    start = next((at for at in range(shortest) if left[at] != right[at]), shortest)
    most = shortest - start
    end = next((at for at in range(most) if left[-1 - at] != right[-1 - at]), most)
    return start, end
