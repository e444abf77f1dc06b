"""Whether the process lives, and the two static files."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from investigations.console import static
from investigations.console.frame import NotFoundError
from investigations.console.routing import Access, page


def _healthz(_: Request) -> Response:
    return JSONResponse({"status": "ok"})


def _static(request: Request) -> Response:
    name = request.path_params["name"]
    if name not in static.TYPES:
        raise NotFoundError("There is no such file.")
    kept = "public, max-age=31536000, immutable" if request.query_params.get("v") else "no-cache"
    return Response(static.content(name), media_type=static.TYPES[name], headers={"cache-control": kept})


routes = [
    page("/healthz", _healthz, access=Access.PUBLIC),
    page("/static/{name}", _static, access=Access.PUBLIC),
]
