"""Amounts of money: decimals in a currency of ISO 4217, strings on every wire, never floats."""

from __future__ import annotations

from decimal import Decimal

from iso4217 import Currency

MINOR_DIGITS: dict[str, int] = {
    currency.code: currency.exponent for currency in Currency if currency.exponent is not None
}
"""Decimal places of each active currency (ISO 4217 table A.1); metals and test codes have none and are absent."""

MAX_INTEGER_DIGITS = 15
"""Enough for any order in any currency; an amount above it is a mistake of units."""


def precision(amount: Decimal) -> int:
    """Decimal places that carry value: ``49.900`` has 1, ``5.00`` has 0."""
    exponent = amount.normalize().as_tuple().exponent
    return max(0, -exponent) if isinstance(exponent, int) else 0


def plain(amount: Decimal) -> str:
    """The amount as a bare number with the places it was given with: never an exponent, ``12.50`` stays ``12.50``."""
    return format(amount, "f")
