"""Durations as people write them in a policy: ``"5s"``, ``"90m"``, ``"6h"``, ``"14d"``."""

from __future__ import annotations

import re
from datetime import timedelta
from typing import Annotated

from pydantic import BeforeValidator, PlainSerializer
from pydantic_core import PydanticCustomError

_SHAPE = re.compile(r"^(\d+(?:\.\d+)?)(ms|s|m|h|d|w)$")
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
    match = _SHAPE.match(text.strip()) if isinstance(text, str) else None
    if match is None:
        raise PydanticCustomError(
            "duration_shape",
            "{text} is no duration: write a number and a unit: 30s, 15m, 6h, 14d",
            {"text": repr(text)},
        )
    duration = float(match[1]) * _UNITS[match[2]]
    if duration > LONGEST:
        raise PydanticCustomError("duration_size", "{text} is longer than ten years", {"text": repr(text)})
    return duration


def show(duration: timedelta) -> str:
    """The shortest exact writing: ``show(timedelta(hours=36)) == "36h"``; a fraction of a second in ms."""
    milliseconds = round(duration / timedelta(milliseconds=1))
    for unit in ("d", "h", "m", "s", "ms"):
        size = round(_UNITS[unit] / timedelta(milliseconds=1))
        if milliseconds % size == 0 and (milliseconds or unit == "s"):
            return f"{milliseconds // size}{unit}"
    raise AssertionError("every number of milliseconds is a multiple of one")


Duration = Annotated[timedelta, BeforeValidator(parse), PlainSerializer(show, return_type=str)]
