"""Identifiers as people see them: ``cv_12`` a conversion, ``pb_34`` a postback, ``at_56`` an attempt, ``ck_57`` a check,
``in_58`` a request that came in, ``rp_3`` a network's report, ``rn_4`` a run of replays.

In tables they are plain integers; the prefix says which table, so that a support ticket, a log line and a
command can never mean different things by the same number.
"""

from __future__ import annotations

import re
from typing import NewType

ConversionId = NewType("ConversionId", int)
PostbackId = NewType("PostbackId", int)
AttemptId = NewType("AttemptId", int)
SignalId = NewType("SignalId", int)
CheckId = NewType("CheckId", int)

PREFIXES = {
    "cv": "conversion",
    "pb": "postback",
    "at": "attempt",
    "sg": "signal",
    "ck": "check",
    "in": "request",
    "rp": "report",
    "rn": "replay run",
}
_SHAPE = re.compile(r"^(cv|pb|at|sg|ck|in|rp|rn)_([1-9][0-9]{0,18})$")


def show(prefix: str, number: int) -> str:
    """``show("pb", 34) == "pb_34"``. Raises ``KeyError`` for a prefix that is not ours."""
    if prefix not in PREFIXES:
        raise KeyError(f"{prefix!r} is no identifier prefix; known: {', '.join(PREFIXES)}")
    return f"{prefix}_{number}"


def parse(text: str) -> tuple[str, int] | None:
    """The prefix and number of an identifier, or None when ``text`` is not one of ours."""
    match = _SHAPE.match(text)
    return (match[1], int(match[2])) if match else None
