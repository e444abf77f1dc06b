"""The console's application: its routes, all of them made by ``routing``, inside the headers of every response."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from anyio.to_thread import current_default_thread_limiter
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.routing import BaseRoute

from investigations.console import errors, pages
from investigations.console.frame import Link
from investigations.console.headers import Guarded
from investigations.console.routing import ConsoleRoute
from investigations.console.settings import THREADS, ConsoleSettings
from investigations.console.tail import Tail


class Console(Guarded):
    """The ASGI application. ``app`` is what is inside, with its ``routes`` and ``state``."""

    def __init__(self, settings: ConsoleSettings) -> None:
        routes, menu = collect()
        self.app = Starlette(
            routes=routes,
            lifespan=_lifespan,
            exception_handlers={HTTPException: errors.not_found},
        )
        self.app.state.console = settings
        self.app.state.menu = menu
        self.app.state.tail = Tail(settings.engine)
        super().__init__(self.app, hosts=settings.hosts, secure=settings.secure)

    def end(self) -> None:
        """Let go those who watch, so that the process can end; may be called from a signal's handler."""
        self.app.state.tail.end()


def create_console(engine: Any, **settings: Any) -> Console:
    """The console on a database. It connects at the first request; see ``ConsoleSettings`` for what else may be given."""
    return Console(ConsoleSettings(engine, **settings))


def collect() -> tuple[list[BaseRoute], list[Link]]:
    """The routes and the menu of every page module. Raises TypeError for a route that was not made by ``routing``."""
    routes: list[BaseRoute] = []
    menu: list[Link] = []
    for module in pages.MODULES:
        for route in module.routes:
            if not isinstance(route, ConsoleRoute):
                raise TypeError(
                    f"{module.__name__}: {route!r} would be open to everyone; use page() or act()"
                )
            routes.append(route)
        menu += getattr(module, "menu", ())
    return routes, sorted(menu)


@asynccontextmanager
async def _lifespan(_: Starlette) -> AsyncIterator[None]:
    current_default_thread_limiter().total_tokens = THREADS
    yield
