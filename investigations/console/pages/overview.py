"""How every destination is doing."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import Response

from investigations.console.frame import Link, render
from investigations.console.routing import page


def _page(request: Request) -> Response:
    return render(request, "overview.html")


routes = [page("/", _page)]
menu = [Link(10, "/", "Overview")]
