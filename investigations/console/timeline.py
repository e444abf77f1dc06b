"""A conversion's life as a drawing: windows as bars, attempts, signals and acts as marks, on one time axis. Pure.

It shows what ``trail.moments`` tells, with the windows and waits between; the table of moments is its text.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from itertools import zip_longest

from infra.store.records import AttemptRecord, Life, PostbackRecord
from investigations.console.scale import Scale, scale
from investigations.corrections import in_reading_order
from investigations.trail import Moment, moments, window_words
from investigations.words import clock, span
from schemas.ids import show
from schemas.lifecycle import State
from schemas.verdict import VerdictKind

WIDTH = 1120.0
"""Units of the drawing; it is scaled to the page."""
_LEFT, _RIGHT = 190.0, WIDTH - 24.0
_TOP, _LANE = 46.0, 46.0
_LETTER = 6.6
"""Width of a letter of a label, generously."""
_CLOCK_WIDTH = 19 * _LETTER
_OVER = frozenset({State.VOIDED, State.EXPIRED, State.DUPLICATE, State.DELIVERED, State.REJECTED, State.DEAD})


@dataclass(frozen=True, slots=True)
class Mark:
    """Something that happened at one instant. ``kind`` chooses its shape, ``tone`` its colour."""

    x: float
    kind: str
    tone: str
    title: str


@dataclass(frozen=True, slots=True)
class Bar:
    """Something that lasts. ``kind``: ``window``, ``wait``, ```wire`` or ``after`` (what is still to come)."""

    x: float
    width: float
    kind: str
    title: str


@dataclass(frozen=True, slots=True)
class Lane:
    """One line of the drawing: the conversion's own, or a postback's."""

    y: float
    subject: str
    name: str
    bars: tuple[Bar, ...]
    marks: tuple[Mark, ...]


@dataclass(frozen=True, slots=True)
class Label:
    """Text on the axis, centred on ``x``."""

    x: float
    text: str
    anchor: str = "middle"


@dataclass(frozen=True, slots=True)
class Drawing:
    """The whole of it, in units of ``width`` by ``height``."""

    width: float
    height: float
    lanes: tuple[Lane, ...]
    stretches: tuple[Label, ...]
    """How long each stretch of the axis lasts, where there is room to say it."""
    clocks: tuple[Label, ...]
    grid: tuple[float, ...]
    now_x: float
    says: str
    """The drawing in one sentence, for who cannot see it."""

    @property
    def kinds(self) -> frozenset[str]:
        """Of marks and bars that there are, for the legend."""
        marks = {mark.kind for lane in self.lanes for mark in lane.marks}
        return frozenset(marks | {bar.kind for lane in self.lanes for bar in lane.bars})


def draw(life: Life, told: list[Moment] | None = None) -> Drawing:
    """Draw a life. What lies in the future (a window's end, a retry, an age limit) is drawn behind ``now``.

    ``told``: its moments, where there is more to tell than the life has.
    """
    told = moments(life) if told is None else told
    axis = scale(_instants(life, told), _LEFT, _RIGHT)
    lanes = [_conversion(told, axis, _TOP)]
    for number, postback in enumerate(in_reading_order(life), 1):
        lanes.append(_lane(life, postback, told, axis, _TOP + number * _LANE))
    return Drawing(
        width=WIDTH,
        height=_TOP + len(lanes) * _LANE + 26,
        lanes=tuple(lanes),
        stretches=tuple(_stretches(axis)),
        clocks=tuple(_clocks(axis)),
        grid=tuple(dict.fromkeys(round(each, 1) for each in axis.places)),
        now_x=axis.place(life.now),
        says=_says(life, axis),
    )


def _instants(life: Life, told: list[Moment]) -> Iterator[datetime]:
    yield from (moment.at for moment in told)
    yield life.now
    for postback in life.postbacks:
        if _window_shown(life, postback):
            yield postback.release_at
        if _expires(postback):
            assert postback.expires_at is not None
            yield postback.expires_at
        if postback.due_at is not None:
            yield postback.due_at
        for attempt in postback.attempts:
            if attempt.outcome is not None:
                yield attempt.outcome.ended_at


def _expires(postback: PostbackRecord) -> bool:
    """An age limit matters until the postback has come to its end, and where it was its end."""
    return postback.expires_at is not None and (
        postback.state not in _OVER or postback.state is State.EXPIRED
    )


def _window_shown(life: Life, postback: PostbackRecord) -> bool:
    return postback.release_at > life.conversion.received_at


_CONVERSION_MARKS = {
    "request": ("request", "plain"),
    "clicked": ("click", "plain"),
    "occurred": ("event", "plain"),
    "received": ("receipt", "plain"),
    "unrouted": ("receipt", "bad"),
    "matched": ("match", "plain"),
    "signal": ("signal", "signal"),
    "duplicate": ("repeat", "faint"),
    "rejected": ("repeat", "bad"),
}


def _conversion(told: list[Moment], axis: Scale, y: float) -> Lane:
    marks = [
        Mark(axis.place(moment.at), *_CONVERSION_MARKS[moment.kind], _title(moment))
        for moment in told
        if moment.kind in _CONVERSION_MARKS and moment.subject.partition("_")[0] not in {"pb", "at", "ck"}
    ]
    return Lane(y, "conversion", "", (), tuple(marks))


def _title(moment: Moment) -> str:
    return f"{clock(moment.at)} UTC: {moment.text}"


def _lane(life: Life, postback: PostbackRecord, told: list[Moment], axis: Scale, y: float) -> Lane:
    own = {show("pb", postback.id)} | {show("ck", check.id) for check in postback.checks}
    marks = [_own_mark(moment, axis) for moment in told if moment.subject in own]
    marks += [_attempt_mark(attempt, axis) for attempt in postback.attempts]
    if _expires(postback):
        assert postback.expires_at is not None
        title = f"{clock(postback.expires_at)} UTC: the network's age limit"
        marks.append(Mark(axis.place(postback.expires_at), "expiry", "bad", title))
    name = postback.version.contract.name
    return Lane(y, show("pb", postback.id), name, tuple(_bars(life, postback, axis)), tuple(marks))


def _own_mark(moment: Moment, axis: Scale) -> Mark:
    kind, tone = {
        "released": ("released", "plain"),
        "check": ("check", "plain"),
        "voided": ("void", "bad"),
        "voided_by_hand": ("void", "bad"),
        "duplicate": ("void", "faint"),
        "expired": ("void", "bad"),
        "dead": ("void", "bad"),
        "in_doubt": ("unknown", "bad"),
        "lost": ("lost", "bad"),
        "counted": ("counted", "good"),
        "replayed": ("replayed", "act"),
    }.get(moment.kind, ("act", "act"))
    return Mark(axis.place(moment.at), kind, tone, _title(moment))


_VERDICTS = {
    VerdictKind.DELIVERED: ("delivered", "good"),
    VerdictKind.RETRY: ("retry", "warn"),
    VerdictKind.REJECTED: ("rejected", "bad"),
    VerdictKind.DUPLICATE: ("delivered", "faint"),
    VerdictKind.UNKNOWN: ("unknown", "warn"),
    VerdictKind.IN_DOUBT: ("unknown", "bad"),
}


def verdict_look(attempt: AttemptRecord) -> tuple[str, str]:
    """The shape and the colour of an attempt: never the colour alone."""
    return ("open", "plain") if attempt.outcome is None else _VERDICTS[attempt.outcome.verdict]


def _attempt_mark(attempt: AttemptRecord, axis: Scale) -> Mark:
    kind, tone = verdict_look(attempt)
    came_to = "no outcome yet" if attempt.outcome is None else attempt.outcome.verdict.value
    title = f"{clock(attempt.intent_at)} UTC: {show('at', attempt.id)}, attempt {attempt.number}: {came_to}"
    return Mark(axis.place(attempt.intent_at), kind, tone, title)


def _bars(life: Life, postback: PostbackRecord, axis: Scale) -> Iterator[Bar]:
    yield from _window(life, postback, axis)
    for attempt, later in zip_longest(postback.attempts, postback.attempts[1:]):
        outcome = attempt.outcome
        ended_at = life.now if outcome is None else outcome.ended_at
        took = f"{show('at', attempt.id)} was on the wire for {span(ended_at - attempt.intent_at)}"
        yield _bar(axis, attempt.intent_at, ended_at, "wire", took)
        if outcome is not None and outcome.next_attempt_at is not None:
            following = later.intent_at if later else postback.due_at or postback.settled_at
            if following is not None and following > ended_at:
                waits = f"waits {span(outcome.next_attempt_at - ended_at)}, until {clock(outcome.next_attempt_at)} UTC"
                yield _bar(axis, ended_at, following, "wait", waits)


def _window(life: Life, postback: PostbackRecord, axis: Scale) -> Iterator[Bar]:
    """From the receipt to the window's end; what is still to come of it is drawn as such."""
    if not _window_shown(life, postback):
        return
    start, end = life.conversion.received_at, postback.release_at
    closed_at = postback.settled_at if not postback.attempts_made else None
    closed = end if closed_at is None else min(end, closed_at)
    words = f"window: {window_words(postback, life.conversion.event)}; ends {clock(end)} UTC"
    passed = min(closed, life.now)
    if passed > start:
        yield _bar(axis, start, passed, "window", words)
    if closed_at is None and end > life.now:
        yield _bar(axis, life.now, end, "after", words)
    elif closed < end:
        yield _bar(axis, closed, end, "missed", f"{words}; it was {postback.state} before")


def _bar(axis: Scale, since: datetime, until: datetime, kind: str, title: str) -> Bar:
    left = axis.place(since)
    return Bar(left, max(axis.place(until) - left, 2.0), kind, title)


def _stretches(axis: Scale) -> Iterator[Label]:
    for each in axis.stretches:
        words = span(each.until - each.since)
        if each.width >= len(words) * _LETTER + 8:
            yield Label(each.middle, words)


def _clocks(axis: Scale) -> Iterator[Label]:
    """Instants below the axis, as many as there is room for, the first and the last before the others."""
    taken: list[tuple[float, float]] = []
    last = len(axis.instants) - 1
    for number in sorted(range(last + 1), key=lambda each: (each not in {0, last}, each)):
        x = axis.places[number]
        anchor = "start" if number == 0 else "end" if number == last else "middle"
        left = x - {"start": 0.0, "middle": 0.5, "end": 1.0}[anchor] * _CLOCK_WIDTH
        if all(left > high + 10 or left + _CLOCK_WIDTH < low - 10 for low, high in taken):
            taken.append((left, left + _CLOCK_WIDTH))
            yield Label(x, clock(axis.instants[number])[:19], anchor)


def _says(life: Life, axis: Scale) -> str:
    count = sum(len(postback.attempts) for postback in life.postbacks)
    parts = [
        _many(len(life.signals), "signal"),
        _many(len(life.postbacks), "postback"),
        _many(count, "attempt"),
    ]
    since, until = axis.instants[0], axis.instants[-1]
    return (
        f"From {clock(since)[:19]} to {clock(until)[:19]} UTC, {span(until - since)}: {', '.join(parts)}. "
        "The table that follows tells the same in words."
    )


def _many(count: int, noun: str) -> str:
    return f"{count or 'no'} {noun}{'' if count == 1 else 's'}"
