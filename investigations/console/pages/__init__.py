"""The pages. A module here has ``routes`` and, for the menu, ``menu``; it is listed below, and that is all."""

from __future__ import annotations

from types import ModuleType

from investigations.console.pages import (
    account,
    by_hand,
    comparison,
    conversion,
    health,
    login,
    overview,
)

MODULES: tuple[ModuleType, ...] = (
    health,
    login,
    account,
    overview,
    conversion,
    comparison,
    by_hand,
)
