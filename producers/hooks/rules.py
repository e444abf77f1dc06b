"""Rules of ``holdfire.toml`` that make events of any JSON: one JMESPath expression a field. https://jmespath.org"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import datetime
from decimal import Decimal
from typing import Any, Final

import jmespath  # type: ignore[import-untyped] # it ships no types
from jmespath.exceptions import JMESPathError  # type: ignore[import-untyped] # it ships no types

from producers.hooks.fields import amount, amount_of_minor, instant_of_unix
from producers.hooks.hook import Delivery, Envelope, Mapped, MappingError, Options

OPTIONS: Final = {
    "rules": "a list of rules; each has when, type, map, and constants such as name or outcome",
    "type": "of a single rule, in place of rules: conversion, refund, chargeback, credit_check or cancel",
    "map": "of a single rule: an expression for each field of the event",
    "when": "of a single rule: an expression that must be true",
    "each": "of a single rule: an expression that gives a list, each entry of which is an event",
    "minor": "of a single rule: true where amounts are in minor units, as cents are",
    "constants": "of a single rule: fields that are always the same",
    "dedupe": "an expression that gives the id under which a delivery is repeated",
}
_AMOUNTS: Final = ("value", "amount")
_INSTANTS: Final = ("occurred_at", "clicked_at")
RULE_KEYS: Final = ("type", "map", "when", "each", "minor", "constants")
_MILLISECONDS_FROM: Final = 10**11
"""Seconds since 1970 reach this in the year 5138, milliseconds reached it in 1973."""

Rule = Mapping[str, Any]


def rules_of(options: Options) -> list[Rule]:
    """The rules of a source, or the single one that its table is."""
    rules = options.values.get("rules")
    if isinstance(rules, list):
        return [rule for rule in rules if isinstance(rule, Mapping)]
    single = {key: options.values[key] for key in RULE_KEYS if key in options.values}
    return [single] if "map" in single else []


def apply_rules(payload: Any, delivery: Delivery, options: Options) -> Mapped:
    """An event of every rule whose condition is true, and of each entry where a rule is about a list."""
    events: list[Envelope] = []
    unmapped: list[MappingError] = []
    matched = False
    for number, rule in enumerate(rules_of(options)):
        where = f"rules.{number}"
        if "when" in rule and not _true(_find(rule["when"], payload, f"{where}.when")):
            continue
        matched = True
        for entry in _entries(rule, payload, where):
            try:
                events.append(_event(rule, entry, delivery.received_at, where))
            except MappingError as error:
                unmapped.append(error)
    return Mapped(events, None if matched else "no rule's condition is true of it", unmapped)


def found_text(expression: str, payload: Any, field: str) -> str | None:
    """What an expression finds, as text; None where it finds nothing."""
    return _text(_find(expression, payload, field), field)


def _entries(rule: Rule, payload: Any, where: str) -> Iterator[Any]:
    if "each" not in rule:
        yield payload
        return
    found = _find(rule["each"], payload, f"{where}.each")
    if not isinstance(found, list):
        raise MappingError(f"{where}.each", "gives no list", "Correct the expression")
    yield from found


def _event(rule: Rule, entry: Any, received_at: datetime, where: str) -> Envelope:
    event: Envelope = {"type": rule["type"], **rule.get("constants", {})}
    raw: dict[str, Any] = {}
    for name, expression in rule.get("map", {}).items():
        if isinstance(expression, Mapping):
            found = {
                key: _text(_find(each, entry, f"{where}.map.{name}.{key}"), f"{where}.map.{name}.{key}")
                for key, each in expression.items()
            }
            event[name] = {
                **event.get(name, {}),
                **{key: each for key, each in found.items() if each is not None},
            }
        else:
            raw[name] = _find(expression, entry, f"{where}.map.{name}")
    if raw.get("currency") is not None:
        event["currency"] = (_text(raw.pop("currency"), f"{where}.map.currency") or "").upper()
    for name, value in raw.items():
        if value is not None and value != "":
            event[name] = _value(name, value, rule, event, f"{where}.map.{name}")
    return (
        {"occurred_at": received_at.isoformat()} | event
        if "occurred_at" not in rule.get("map", {})
        else event
    )


def _value(name: str, value: Any, rule: Rule, event: Envelope, field: str) -> Any:
    if name in _AMOUNTS:
        if rule.get("minor") is not True:
            return amount(value, field)
        digits = value.strip() if isinstance(value, str) else None
        whole = (
            int(digits) if digits and digits.isascii() and digits.isdigit() and len(digits) < 30 else value
        )
        return amount_of_minor(whole, str(event.get("currency", "")), field)
    if name in _INSTANTS:
        return _instant(value, field)
    if name == "sequence":
        told = _text(value, field) or ""
        if not (told.isascii() and told.isdigit() and len(told) < 12):
            raise MappingError(field, "is no whole number", "Map it to one, or leave it out")
        return int(told)
    return _text(value, field)


def _instant(value: Any, field: str) -> str:
    """RFC 3339 text as it is; a number is seconds since 1970, or milliseconds where they would lie ages ahead."""
    if isinstance(value, str) and not (value.isascii() and value.isdigit()):
        return value
    text = _text(value, field) or ""
    number = Decimal(text) if len(text) < 30 else Decimal(0)
    per_second = 1_000 if number >= _MILLISECONDS_FROM else 1
    try:
        return instant_of_unix({"at": number}, "at", per_second=per_second)
    except MappingError as error:
        raise MappingError(field, error.reason, error.remedy) from None


def _text(value: Any, field: str) -> str | None:
    if value is None or isinstance(value, str):
        return value or None
    if isinstance(value, bool) or not isinstance(value, int | Decimal):
        kind = "true or false" if isinstance(value, bool) else "a list or an object"
        raise MappingError(field, f"gives {kind}, not a text", "Correct the expression")
    return amount(value, field) if isinstance(value, Decimal) else str(value)


def _find(expression: Any, payload: Any, field: str) -> Any:
    try:
        found = jmespath.search(expression, payload)
    except JMESPathError as error:
        raise MappingError(field, f"cannot be told ({error})", "Correct the expression") from None
    except (TypeError, ValueError, AttributeError, ArithmeticError, RecursionError) as error:
        # A function of JMESPath that met a value it does not expect.
        raise MappingError(
            field, f"cannot be told ({type(error).__name__})", "Correct the expression"
        ) from None
    return plain_decimal(found)


def plain_decimal(value: Any) -> Any:
    """A float can only come from a function of JMESPath: its shortest writing is what it means."""
    return Decimal(repr(value)) if isinstance(value, float) else value


def _true(value: Any) -> bool:
    """As JMESPath says: false, null and what is empty are not true; 0 is."""
    return value is not None and value is not False and value not in ("", [], {})
