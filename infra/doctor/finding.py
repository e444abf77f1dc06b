"""What an examination says."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Level = Literal["ok", "warn", "fail"]


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing looked at. ``fail``: Holdfire does not do its work; ``warn``: it does, but somebody should look.

    ``remedy`` is there exactly when the level is not ``ok``.
    """

    about: str
    level: Level
    says: str
    remedy: str | None = None


def ok(about: str, says: str) -> Finding:
    return Finding(about, "ok", says)


def warn(about: str, says: str, remedy: str) -> Finding:
    return Finding(about, "warn", says, remedy)


def fail(about: str, says: str, remedy: str) -> Finding:
    return Finding(about, "fail", says, remedy)
