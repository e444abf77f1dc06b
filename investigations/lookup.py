"""From what a person holds in hand (an id, an order, a click id) to everything known about it."""

from __future__ import annotations

from dataclasses import dataclass, field

from sqlalchemy import Engine

from infra.store.evidence import read_life, read_signals
from infra.store.keeping import tombstones
from infra.store.records import AttemptRecord, CheckRecord, Life, PostbackRecord, RejectRecord, SignalRecord
from infra.store.searching import search
from infra.store.searching.search import Criteria
from schemas.erasing import Kind
from schemas.ids import parse, show


class UnknownIdError(LookupError):
    """Nothing is known by the id that was given, or it means several things where one is wanted."""


@dataclass(slots=True)
class Traces:
    """What is known: signals asked for by their own id, conversions by id, and what belongs to none of these."""

    signals: list[SignalRecord] = field(default_factory=list)
    conversions: list[int] = field(default_factory=list)
    loose_signals: list[SignalRecord] = field(default_factory=list)
    """Named alike, but perhaps part of a conversion's life: to be shown unless they were shown there."""
    rejects: list[RejectRecord] = field(default_factory=list)
    """The same."""

    @property
    def empty(self) -> bool:
        return not (self.signals or self.conversions or self.loose_signals or self.rejects)


def by_id(engine: Engine, text: str) -> Traces:
    """``cv_N``, ``pb_N``, ``at_N``, ``ck_N``, ``sg_N``, or else an event id. Raises UnknownIdError."""
    parsed = parse(text)
    if parsed is None:
        return by_criteria(engine, Criteria(event_id=text))
    prefix, number = parsed
    if prefix == "sg":
        signals = read_signals(engine, [number])
        if not signals:
            raise UnknownIdError(f"there is no signal {text}")
        return Traces(signals=signals, conversions=search.conversions_of_signal(engine, number))
    return Traces(conversions=[conversion_of(engine, prefix, number)])


def by_criteria(engine: Engine, criteria: Criteria) -> Traces:
    """Everything with this event, order or click id. Raises UnknownIdError when there is nothing."""
    traces = Traces(conversions=search.conversions_matching(engine, criteria))
    if criteria.click_id is None:
        for signal in search.find_signals(engine, criteria, None).rows[::-1]:
            own = criteria.event_id is not None and signal.event.event_id == criteria.event_id
            (traces.signals if own else traces.loose_signals).append(signal)
    for signal in traces.signals:
        named = search.conversions_of_signal(engine, signal.id)
        traces.conversions += [number for number in named if number not in traces.conversions]
    if criteria.event_id is not None and criteria.order_id is None and criteria.click_id is None:
        traces.rejects = search.find_rejects(engine, criteria, None).rows[::-1]
    if traces.empty:
        _say_erased(engine, criteria)
        raise UnknownIdError(
            f"nothing is known by {_named(criteria)}; what is still in the queue is not known yet"
        )
    return traces


def _say_erased(engine: Engine, criteria: Criteria) -> None:
    """Raise UnknownIdError saying that it was erased, if it was: a tombstone knows it without telling it."""
    asked: tuple[tuple[Kind, str | None], ...] = (
        ("order", criteria.order_id), ("click", criteria.click_id), ("event_id", criteria.event_id),
    )  # fmt: skip
    for kind, value in asked:
        erasure = None if value is None else tombstones.told(engine, kind, value)
        if erasure is not None:
            raise UnknownIdError(
                f"{_named(criteria)} was erased on {erasure.at:%Y-%m-%d} by {erasure.who}, at a person's request"
            )


def one_attempt(engine: Engine, text: str, number: int | None) -> tuple[Life, PostbackRecord, AttemptRecord]:
    """``at_N``, or attempt ``number`` (the last, if None) of ``pb_N``. Raises UnknownIdError."""
    parsed = parse(text)
    if parsed is None or parsed[0] not in {"at", "pb"}:
        raise UnknownIdError(
            f"{text!r} is no attempt: give at_N or ck_N, or pb_N with --attempt; `holdfire trail` lists them"
        )
    prefix, key = parsed
    life = read_life(engine, conversion_of(engine, prefix, key))
    assert life is not None
    for postback in life.postbacks:
        for attempt in reversed(postback.attempts):
            if (prefix == "at" and attempt.id == key) or (
                prefix == "pb" and postback.id == key and number in {None, attempt.number}
            ):
                return life, postback, attempt
    made = next((each.attempts_made for each in life.postbacks if each.id == key), 0)
    tried = f"it has {made}" if made else "it has not been tried yet"
    raise UnknownIdError(f"there is no attempt {number or 1} of {text}: {tried}")


def one_check(engine: Engine, number: int) -> tuple[Life, PostbackRecord, CheckRecord]:
    """``ck_N``. Raises UnknownIdError."""
    life = read_life(engine, conversion_of(engine, "ck", number))
    assert life is not None
    return next(
        (life, postback, check)
        for postback in life.postbacks
        for check in postback.checks
        if check.id == number
    )


def conversion_of(engine: Engine, prefix: str, number: int) -> int:
    """The conversion that an id of a conversion, postback, attempt or check belongs to. Raises UnknownIdError."""
    wanted: int | None = number
    if prefix == "at":
        wanted = search.postback_of_attempt(engine, number)
    if prefix == "ck":
        wanted = search.postback_of_check(engine, number)
    if prefix in {"at", "ck", "pb"} and wanted is not None:
        wanted = search.conversion_of_postback(engine, wanted)
    if wanted is None or (prefix == "cv" and read_life(engine, wanted) is None):
        raise UnknownIdError(f"there is no {show(prefix, number)}")
    return wanted


def _named(criteria: Criteria) -> str:
    names = {"event_id": "event", "order_id": "order", "click_id": "click id", "source": "source"}
    return ", ".join(
        f"{words} {getattr(criteria, name)!r}"
        for name, words in names.items()
        if getattr(criteria, name) is not None
    )
