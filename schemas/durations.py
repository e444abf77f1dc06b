"""Durations as people write them in a policy: ``"5s"``, ``"90m"``, ``"6h"``, ``"14d"``."""

from __future__ import annotations

import re
from datetime import timedelta
from decimal import Decimal
from typing import Annotated

from pydantic import BeforeValidator, PlainSerializer
from pydantic_core import PydanticCustomError

_SHAPE = re.compile(r"([0-9]{1,15}(?:\.[0-9]{1,9})?)(ms|s|m|h|d|w)")
_UNITS = {
    "ms": timedelta(milliseconds=1),
    "s": timedelta(seconds=1),
    "m": timedelta(minutes=1),
    "h": timedelta(hours=1),
    "d": timedelta(days=1),
    "w": timedelta(weeks=1),
}
LONGEST = timedelta(days=3650)


def parse(text: object) -> timedelta:
    """Read a duration. Raises ``PydanticCustomError`` (a ``ValueError``) naming the accepted units."""
    if isinstance(text, timedelta):
        return text
    match = _SHAPE.fullmatch(text.strip()) if isinstance(text, str) else None
    if match is None:
        raise PydanticCustomError(
            "duration_shape",
            "{text} is no duration: write a number and a unit: 30s, 15m, 6h, 14d",
            {"text": repr(text)},
        )
    # In whole milliseconds, exactly: a float would read 1.1s as a hair more and could not be shown again.
    milliseconds = Decimal(match[1]) * (_UNITS[match[2]] // timedelta(milliseconds=1))
    if milliseconds != milliseconds.to_integral_value():
        raise PydanticCustomError(
            "duration_fraction", "{text} is finer than a millisecond", {"text": repr(text)}
        )
    if milliseconds > LONGEST // timedelta(milliseconds=1):
        raise PydanticCustomError("duration_size", "{text} is longer than ten years", {"text": repr(text)})
    return timedelta(milliseconds=int(milliseconds))


def show(duration: timedelta) -> str:
    """The shortest exact writing: ``show(timedelta(hours=36)) == "36h"``; a fraction of a second in ms."""
    milliseconds = round(duration / timedelta(milliseconds=1))
    for unit in ("d", "h", "m", "s", "ms"):
        size = round(_UNITS[unit] / timedelta(milliseconds=1))
        if milliseconds % size == 0 and (milliseconds or unit == "s"):
            return f"{milliseconds // size}{unit}"
    raise AssertionError("every number of milliseconds is a multiple of one")


Duration = Annotated[timedelta, BeforeValidator(parse), PlainSerializer(show, return_type=str)]
