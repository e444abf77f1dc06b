"""The pages. A module here has ``routes`` and, for the menu, ``menu``; it is listed below, and that is all."""

from __future__ import annotations

from types import ModuleType

from investigations.console.pages import account, health, login, overview

MODULES: tuple[ModuleType, ...] = (
    health,
    login,
    account,
    overview,
)
