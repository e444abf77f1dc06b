"""What happens to click ids on their way: cut, folded, stripped, encoded again, made a number of, or never filled in."""

from __future__ import annotations

import re
from dataclasses import dataclass
from urllib.parse import unquote

from schemas.event import UNREPLACED_MACRO
from schemas.reconciling.findings import Cause

SHORTEST_PREFIX = 8
"""Fewer characters could begin many a click id by chance."""
TELLING = 20
"""Counted click ids from which the shape of a network's tokens can be told."""
_NUMBER = re.compile(r"[0-9](?:[.,][0-9]+)?E\+?[0-9]+", re.IGNORECASE)


def is_macro(token: str) -> bool:
    """Whether it is still the ad server's placeholder."""
    return UNREPLACED_MACRO.match(token) is not None


def is_spreadsheet_number(token: str) -> bool:
    """Whether a spreadsheet made a number of it: ``1.23457E+15``."""
    return _NUMBER.fullmatch(token) is not None


def damage(whole: str, found: str) -> Cause | None:
    """What turned ``whole`` into ``found``, or None where the two have nothing to do with each other.

    The mildest explanation wins: a token that only lost its period was not truncated.
    """
    if whole == found or not whole or not found:
        return None
    folded, kept = whole.casefold(), found.casefold()
    long_enough = len(found) >= SHORTEST_PREFIX
    signs = (
        (Cause.PERIOD_LOST, whole == f"{found}."),
        (Cause.REENCODED, normal_form(whole) == normal_form(found)),
        (Cause.CASE_FOLDED, folded == kept),
        (Cause.TRUNCATED, long_enough and whole.startswith(found)),
        # Several at once: the worse of them is named.
        (Cause.CASE_FOLDED, folded.rstrip(".") == kept.rstrip(".")),
        (Cause.TRUNCATED, long_enough and folded.startswith(kept)),
    )
    return next((cause for cause, shown in signs if shown), None)


def normal_form(token: str) -> str:
    """What two tokens share that differ by encoding only: percent-decoded as often as it was encoded, and with the
    plus that forms write for a space."""
    for _ in range(3):
        again = unquote(token)
        if again == token:
            break
        token = again
    return token.replace("+", " ")


@dataclass(frozen=True, slots=True)
class Shape:
    """How the click ids look that the network did count: the share of oddities in a token that it did not.

    ``counted`` many of them; how many end in a period, have letters of both cases, and carry a percent sign; and the
    length of the shortest.
    """

    counted: int = 0
    with_period: int = 0
    mixed_case: int = 0
    with_percent: int = 0
    shortest: int = 0


def odd_shape(token: str, shape: Shape) -> tuple[Cause, str] | None:
    """In what a token differs from practically all that were counted (99 of 100), and how that reads."""
    if shape.counted < TELLING:
        return None

    def usual(count: int) -> bool:
        return count * 100 >= shape.counted * 99

    of = f"of the {shape.counted:,} click ids that the network counted"
    if "%" in token and unquote(token) != token and usual(shape.counted - shape.with_percent):
        return Cause.REENCODED, f"it has percent signs as of encoding twice, and hardly any {of} has"
    if len(token) < shape.shortest - 1:
        return (
            Cause.TRUNCATED,
            f"it has {len(token)} characters, and the shortest {of} has {shape.shortest}",
        )
    if not token.endswith(".") and usual(shape.with_period):
        return Cause.PERIOD_LOST, f"it does not end in a period, and {shape.with_period:,} {of} do"
    one_case = token in {token.lower(), token.upper()} and sum(map(str.isalpha, token)) >= SHORTEST_PREFIX
    if one_case and usual(shape.mixed_case):
        return Cause.CASE_FOLDED, f"its letters are all of one case, and {shape.mixed_case:,} {of} mix them"
    return None
