"""The pages. A module here has ``routes`` and, for the menu, ``menu``; it is listed below, and that is all."""

from __future__ import annotations

from types import ModuleType

from investigations.console.pages import (
    account,
    audit,
    by_hand,
    comparison,
    conversion,
    doubts,
    evidence,
    health,
    inbox,
    live,
    login,
    overview,
    replays,
    reports,
    search,
    untaken,
    upload,
)

MODULES: tuple[ModuleType, ...] = (
    health,
    login,
    account,
    overview,
    search,
    conversion,
    comparison,
    evidence,
    by_hand,
    upload,
    reports,
    replays,
    doubts,
    live,
    inbox,
    untaken,
    audit,
)
