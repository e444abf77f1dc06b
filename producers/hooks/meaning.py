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

from producers.hooks import attribution
from producers.hooks.attribution import attributes, texts_of
from producers.hooks.fields import amount, at, text
from producers.hooks.hook import Envelope, Mapped, MappingError, Options
from schemas.event import (
    UNREPLACED_MACRO,
    CancelSignal,
    ChargebackSignal,
    ConversionEvent,
    CreditCheckSignal,
    RefundSignal,
)
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
    "click_ids": f"a table: network = where its click id stands, as a dotted path; else {attribution.PREFIX}NETWORK",
    "partner_id": "where the partner id stands, as a dotted path",
    "params": "paths whose values go with the conversion as params, each under its last name",
    "currency": "the currency of amounts that come without one",
    "lead_id": "where a key to the register of clicks stands, as a dotted path",
    "customer_id": "as lead_id",
    "device_id": "as lead_id",
}
"""The options that every hook of this kind has."""

KEYS: Final = ("lead_id", "customer_id", "device_id")
"""By which the register of clicks may know who a conversion is of."""


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


def check(options: Options, *texts: str) -> list[Problem]:
    """What is wrong with the options of a source. ``texts``: those of its own that are texts."""
    problems = [*attribution.check(options), *attribution.text_only(options, *KEYS, *texts)]
    for key in ("events", "signals"):
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


def whose(
    payload: object, options: Options, places: Sequence[object] = (), keys: Mapping[str, str] | None = None
) -> dict[str, Any]:
    """The fields of a conversion that say whose it is, from where the source's table says they stand.

    Without ``click_ids`` in the table, click ids are the values of ``click_id_NETWORK`` in any of the ``places``, the
    objects in which a sender keeps what its account added. ``keys``: where keys to the register of clicks stand
    (``customer_id`` and the like), unless the table says otherwise.
    """
    paths = [path for path in options.table("click_ids").values() if isinstance(path, str)]
    paths += [options.text("partner_id", ""), *options.texts("params")]
    pairs = {name: value for place in places for name, value in texts_of(place).items()}
    pairs |= {path: value for path in paths if path and (value := text(payload, path))}
    found = attributes(pairs, options)
    if "params" in found:
        found["params"] = {path.rpartition(".")[2]: value for path, value in found["params"].items()}
    for key in KEYS:
        path = options.text(key, (keys or {}).get(key, ""))
        if path and (value := filled(payload, path)):
            found[key] = value
    return found


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


_FIELDS: Final[dict[Kind, set[str]]] = {
    "conversion": set(ConversionEvent.model_fields),
    "refund": set(RefundSignal.model_fields),
    "cancel": set(CancelSignal.model_fields),
    "chargeback": set(ChargebackSignal.model_fields),
    "credit_check": set(CreditCheckSignal.model_fields),
}
