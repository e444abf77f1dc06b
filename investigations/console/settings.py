"""What one console process knows: its databases, its policy, and how it is reached."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import Engine
from starlette.requests import Request

from schemas.accounts import ConsolePolicy

PAGE_TIMEOUT_S = 10.0
"""A statement for a page ends after so long: nobody waits longer, and vacuum must not either."""
THREADS = 12
"""Pages rendered at a time, and so connections to the database."""


@dataclass(frozen=True, slots=True)
class ConsoleSettings:
    """``secure``: browsers reach it by https, directly or through a proxy. ``hosts``: names it answers to; none: all.

    ``long_engine`` is for what takes as long as it takes, such as a download; by default it is ``engine``.
    """

    engine: Engine
    policy: ConsolePolicy = field(default_factory=ConsolePolicy)
    secure: bool = False
    hosts: tuple[str, ...] = ()
    long_engine: Engine | None = None
    data_dir: Any = None
    """Where the key that signs bundles is kept; a path, or None where nothing is signed."""
    config: Any = None
    """The ``holdfire.toml``; a path, or None."""

    @property
    def cookie(self) -> str:
        """The session cookie's name. The prefix has browsers refuse one set without https or for other hosts (RFC 6265bis)."""
        return "__Host-holdfire" if self.secure else "holdfire"


def settings_of(request: Request) -> ConsoleSettings:
    found: ConsoleSettings = request.app.state.console
    return found


def engine_of(request: Request) -> Engine:
    """The database for pages: short statements only."""
    return settings_of(request).engine


def long_engine_of(request: Request) -> Engine:
    """The database for downloads and other long work."""
    settings = settings_of(request)
    return settings.long_engine or settings.engine
