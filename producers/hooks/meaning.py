"""What a sender's topic means as an event, by the hook's own defaults and the source's table; and the event itself.

Two tables of a source say it for every sender that is mapped here: ``events`` gives a topic the name of a conversion,
``signals`` gives it a signal. An empty text takes a default away.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import ROUND_HALF_UP, Decimal
from typing import Any, Final, Literal

from producers.hooks.fields import amount, at, text
from producers.hooks.hook import Envelope, Mapped, MappingError, Options
from schemas.event import UNREPLACED_MACRO
from schemas.money import MAX_INTEGER_DIGITS, MINOR_DIGITS, plain
from schemas.problem import Problem

Kind = Literal["conversion", "refund", "cancel", "chargeback", "credit_check"]

SIGNALS: Final[dict[str, tuple[Kind, str]]] = {
    "refund": ("refund", ""),
    "cancel": ("cancel", ""),
    "chargeback.opened": ("chargeback", "opened"),
    "chargeback.won": ("chargeback", "won"),
    "chargeback.lost": ("chargeback", "lost"),
    "credit_check.approved": ("credit_check", "approved"),
    "credit_check.declined": ("credit_check", "declined"),
    "credit_check.review": ("credit_check", "review"),
}

TABLES: Final[dict[str, str]] = {
    "events": "a table: the sender's topic = the event's name; an empty name takes a default away",
    "signals": f"a table: the sender's topic = one of {', '.join(SIGNALS)}",
    "click_ids": "a table: network = where its click id stands in the payload, as a dotted path",
    "currency": "the currency of amounts that come without one",
}
"""The options that every hook of this kind has."""


@dataclass(frozen=True, slots=True)
class Meaning:
    """What a topic means. ``name`` is of a conversion, ``outcome`` of a chargeback or a credit check."""

    topic: str
    kind: Kind
    name: str = ""
    outcome: str = ""


def meaning(
    options: Options,
    topics: Sequence[str],
    events: Mapping[str, str] | None = None,
    signals: Mapping[str, str] | None = None,
) -> Meaning | None:
    """What the first topic that is known means; the most specific comes first. None if none is known.

    What the source's table says of a topic comes before the defaults, whichever of the two tables says it.
    """
    said = (options.table("events"), options.table("signals"))
    for topic in topics:
        for names, words in (said, (events or {}, signals or {})):
            if topic not in names and topic not in words:
                continue
            if name := _text(names.get(topic)):
                return Meaning(topic, "conversion", name=name)
            if word := _text(words.get(topic)):
                return _signal(topic, word)
            return None
    return None


def _text(value: object) -> str:
    return value if isinstance(value, str) else ""


def _signal(topic: str, word: str) -> Meaning:
    if word not in SIGNALS:
        raise MappingError(f"signals.{topic}", f"{word!r} is no signal", f"Use one of {', '.join(SIGNALS)}")
    kind, outcome = SIGNALS[word]
    return Meaning(topic, kind, outcome=outcome)


def check(options: Options) -> list[Problem]:
    """What is wrong with the tables of a source."""
    problems = []
    for key in ("events", "signals", "click_ids"):
        value = options.values.get(key, {})
        if not isinstance(value, Mapping) or not all(isinstance(each, str) for each in value.values()):
            problems.append(Problem("hook_option", key, "is no table of texts", f"It is {TABLES[key]}"))
    for topic, word in options.table("signals").items():
        if isinstance(word, str) and word and word not in SIGNALS:
            remedy = f"Use one of {', '.join(SIGNALS)}"
            problems.append(Problem("hook_option", f"signals.{topic}", f"{word!r} is no signal", remedy))
    code = options.values.get("currency")
    if code is not None and code not in MINOR_DIGITS:
        remedy = "Use an upper-case three-letter code such as EUR"
        problems.append(Problem("hook_option", "currency", f"{code!r} is no ISO 4217 currency", remedy))
    return problems


def ignored(what: str, remedy: str = "") -> Mapped:
    return Mapped(ignored=f"{what}. {remedy}" if remedy else what)


def unasked(topic: str) -> Mapped:
    """A topic that means nothing to this source."""
    return ignored(f"{topic} is not mapped", f'To take it, add "{topic}" to the source\'s events or signals')


def currency_of(payload: object, paths: Sequence[str], options: Options) -> str:
    """The currency at the first path that has one, else the source's own. Raises MappingError if there is none."""
    for path in paths:
        if code := filled(payload, path):
            if code.upper() not in MINOR_DIGITS:
                raise MappingError(
                    path, f"{code[:20]!r} is no ISO 4217 currency", "Send its three-letter code"
                )
            return code.upper()
    if code := options.text("currency", ""):
        return code
    raise MappingError(paths[0], "is missing", "Send it, or add currency to the source's table")


def money(value: object, code: str, field: str) -> str:
    """An amount in the currency itself, with the places of the currency, rounded half up where it had more.

    Senders that calculate in floats write 49.900000000000006; what they wrote is kept with the delivery.
    """
    # The shortest decimal that is this float: what a person would write, not what the processor holds.
    number = Decimal(amount(repr(value) if isinstance(value, float) else value, field))
    digits = MINOR_DIGITS.get(code)
    if digits is None:
        raise MappingError("currency", f"{code[:20]!r} is no ISO 4217 currency", "Use a code such as EUR")
    if number.adjusted() >= MAX_INTEGER_DIGITS:
        raise MappingError(field, "has more than 15 digits before the point", "Check its unit")
    return plain(number.quantize(Decimal(1).scaleb(-digits), ROUND_HALF_UP))


def taken(value: str) -> str:
    """An amount that was taken, which some senders write with a minus."""
    return value.removeprefix("-")


def filled(payload: object, path: str) -> str | None:
    """A text, None too where the sender left its own placeholder unfilled."""
    value = text(payload, path)
    return None if value is None or UNREPLACED_MACRO.match(value) else value


def first(payload: object, paths: Sequence[str]) -> str | None:
    """The text at the first path that has one."""
    return next((value for path in paths if (value := filled(payload, path))), None)


def stands(payload: object, path: str) -> bool:
    """Whether there is a value at all: not missing, null or empty."""
    return at(payload, path) not in (None, "")


def click_ids(payload: object, options: Options) -> dict[str, str]:
    """Click ids by network, from where the source's table says they stand. What is not there is left out."""
    found = {
        network: text(payload, path)
        for network, path in options.table("click_ids").items()
        if isinstance(path, str)
    }
    return {network: token for network, token in found.items() if token}


def instant(value: str, field: str) -> str:
    """ISO 8601 as RFC 3339 in UTC; without an offset it is UTC."""
    try:
        read = datetime.fromisoformat(value)
        return (read.replace(tzinfo=UTC) if read.tzinfo is None else read.astimezone(UTC)).isoformat()
    except (ValueError, OverflowError):
        raise MappingError(
            field, f"{value[:40]!r} is no instant", "Send it like 2026-11-22T10:00:00Z"
        ) from None


def event(
    meant: Meaning,
    event_id: str,
    occurred_at: str,
    order_id: str | None,
    **fields: Any,
) -> Envelope:
    """The event that a topic means. ``fields`` are of both kinds: those that its kind does not have are left out."""
    body: Envelope = {"event_id": event_id, "occurred_at": occurred_at, "order_id": order_id, **fields}
    allowed = _FIELDS[meant.kind]
    if meant.kind == "conversion":
        body["name"] = meant.name
    else:
        if order_id is None:
            raise MappingError(
                "order_id", "is missing, and a signal must name its order", "Send it, or check its path"
            )
        body["outcome"] = meant.outcome
        body["amount"] = fields.get("value")
    kept = {key: value for key, value in body.items() if key in allowed and value not in (None, {}, "")}
    if "amount" in kept:
        kept["amount"] = taken(kept["amount"])
    if "amount" not in kept and "value" not in kept:
        kept.pop("currency", None)
        kept.pop("amount_is", None)
    return {"type": meant.kind, **kept}


_COMMON: Final = {"event_id", "occurred_at", "order_id", "sequence"}
_FIELDS: Final[dict[Kind, set[str]]] = {
    "conversion": _COMMON | {"name", "value", "currency", "click_ids", "params"},
    "refund": _COMMON | {"amount", "amount_is", "currency", "reason"},
    "cancel": _COMMON | {"reason"},
    "chargeback": _COMMON | {"outcome", "amount", "currency", "reason"},
    "credit_check": _COMMON | {"outcome", "reason"},
}
