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

MAX_DECIMAL_PLACES = 6
"""More than any currency has (4). With the limit above, sums of amounts stay exact in 28 digits."""


def precision(amount: Decimal) -> int:
    """Decimal places that carry value: ``49.900`` has 1, ``5.00`` has 0."""
    # Not normalize(): that rounds to the context's 28 digits, and a long tail would pass as no tail at all.
    _, _, places = plain(amount).partition(".")
    return len(places.rstrip("0"))


def plain(amount: Decimal) -> str:
    """The amount as a bare number with the places it was given with: never an exponent, ``12.50`` stays ``12.50``."""
    return format(amount, "f")
