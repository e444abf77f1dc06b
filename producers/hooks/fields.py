"""Reading fields of a sender's payload: each gives a plain value, or a MappingError that names the field."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from decimal import Decimal, InvalidOperation
from typing import Any

from producers.hooks.hook import MappingError
from schemas.money import MINOR_DIGITS, plain

_LARGEST = 40
"""Digits on either side of the point that are written out at all; the event's own limits are narrower."""


def at(payload: object, path: str) -> Any:
    """What stands at a dotted path, or None. A number in the path is a place in a list."""
    value = payload
    for part in path.split("."):
        if isinstance(value, Mapping):
            value = value.get(part)
        elif isinstance(value, list) and part.isascii() and part.isdigit() and int(part) < len(value):
            value = value[int(part)]
        else:
            return None
    return value


def text(payload: object, path: str) -> str | None:
    """A text, or a whole number as text; None where it is missing, null or empty."""
    value = at(payload, path)
    if value is None or value == "":
        return None
    if isinstance(value, str):
        return value
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    raise MappingError(path, f"is {_kind(value)}, not a text", "Send a text")


def required(payload: object, path: str) -> str:
    """As ``text``, but it must be there."""
    value = text(payload, path)
    if value is None:
        raise MappingError(path, "is missing", "Send it")
    return value


def objects(payload: object, path: str) -> list[Mapping[str, Any]]:
    """A list of objects; empty where it is missing or null."""
    value = at(payload, path)
    if value is None:
        return []
    if not isinstance(value, list) or not all(isinstance(each, Mapping) for each in value):
        raise MappingError(path, "is no list of objects", "Send a list of objects")
    return value


def instant_of_unix(payload: object, path: str, *, per_second: int = 1) -> str:
    """Unix seconds (or 1,000 a second) as RFC 3339 in UTC."""
    value = at(payload, path)
    if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) <= 18:
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int | Decimal):
        raise MappingError(path, "is no unix time", "Send the seconds since 1970 as a number")
    try:
        return datetime.fromtimestamp(float(Decimal(value) / per_second), UTC).isoformat()
    except (OverflowError, ValueError, OSError, InvalidOperation):
        raise MappingError(path, "is no unix time of this age", "Check its unit") from None


def amount(value: object, field: str) -> str:
    """An amount in the currency itself, from a text or a number, as the digits that the event takes."""
    if isinstance(value, bool) or not isinstance(value, str | int | Decimal):
        raise MappingError(field, f"is {_kind(value)}, not an amount", "Send a text such as '49.90'")
    try:
        number = Decimal(value)
    except InvalidOperation:
        raise MappingError(
            field, "is no amount", "Send digits with an optional point, such as '49.90'"
        ) from None
    if not number.is_finite() or not -_LARGEST < number.adjusted() < _LARGEST:
        raise MappingError(field, "is no amount of money", "Send digits such as '49.90'")
    return plain(number)


def amount_of_minor(
    value: object, currency: str, field: str, exceptions: Mapping[str, int] | None = None
) -> str:
    """An amount from the currency's minor units: 4990 EUR is 49.90, 500 JPY is 500, 5124 KWD is 5.124.

    ``exceptions``: decimal places of currencies for which a sender departs from ISO 4217.
    """
    if isinstance(value, bool) or not isinstance(value, int):
        raise MappingError(
            field, f"is {_kind(value)}, not a whole number of minor units", "Send a whole number"
        )
    digits = {**MINOR_DIGITS, **(exceptions or {})}.get(currency)
    if digits is None:
        raise MappingError(
            field, f"is in {currency[:20]!r}, no ISO 4217 currency", "Send its three-letter code"
        )
    if abs(value) >= 10**_LARGEST:
        raise MappingError(field, "is no amount of money", "Check its unit")
    return plain(Decimal(value).scaleb(-digits))


def currency(payload: object, path: str) -> str | None:
    """A currency code in upper case."""
    value = text(payload, path)
    return None if value is None else value.upper()


def _kind(value: object) -> str:
    names = {bool: "true or false", str: "a text", int: "a number", Decimal: "a number", list: "a list"}
    return "nothing" if value is None else names.get(type(value), "an object")
