"""The door's application: events straight on ASGI, everything else, and the document about all of it, by FastAPI."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from http import HTTPStatus
from typing import Any

import orjson
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response
from sqlalchemy import Engine, text
from sqlalchemy.exc import SQLAlchemyError
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.routing import Match

from infra.broker import celery_app
from infra.db.engine import open_engine
from infra.store import outbox
from infra.version import VERSION
from producers.door import document
from producers.door.callers import Gatekeeper
from producers.door.clicks import Clicks
from producers.door.committing import Committer
from producers.door.events import PATH, Events, Receive, Scope, Send
from producers.door.hooks import Hooks
from producers.door.metrics import MEDIA_TYPE as METRICS_TYPE
from producers.door.metrics import Metrics
from producers.door.problems import RefusedError
from producers.door.sending import Sender
from producers.hooks.sources import Opened
from producers.lines import Lines


class Door:
    """The ASGI application of one process. It starts no thread and connects to nothing before its lifespan begins."""

    def __init__(
        self,
        database_url: str,
        broker_url: str,
        gatekeeper: Gatekeeper,
        *,
        sources: Mapping[str, Opened] | None = None,
    ) -> None:
        self._database_url = database_url
        self._broker_url = broker_url
        self._gatekeeper = gatekeeper
        self._events: Events | None = None
        self._metrics = Metrics()
        self._hooks = Hooks(sources or {})
        self.clicks = Clicks(gatekeeper)
        self._engine: Engine | None = None
        self.api = FastAPI(
            title="Holdfire",
            version=VERSION,
            description="Conversion events and signals over HTTP. 202 means committed.",
            lifespan=self._lifespan,
            # The pages that FastAPI would draw of it load their scripts from a third party.
            docs_url=None,
            redoc_url=None,
        )
        document.describe(self.api)
        self._hooks.mount(self.api)
        self.clicks.mount(self.api)
        self.api.add_api_route("/healthz", self._healthz, methods=["GET"], tags=["health"])
        self.api.add_api_route("/readyz", self._readyz, methods=["GET"], tags=["health"])
        self.api.add_api_route(
            "/metrics", self._metrics_page, methods=["GET"], tags=["health"], **document.METRICS
        )
        self.api.add_exception_handler(RefusedError, _problem)
        self.api.add_exception_handler(HTTPException, _http_problem)
        self.api.add_exception_handler(RequestValidationError, _validation_problem)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            send = self._counted(scope["path"], send)
        if (
            scope["type"] == "http"
            and scope["path"] == PATH
            and scope["method"] == "POST"
            and self._events is not None
        ):
            await self._events(scope, receive, send)
            return
        await self.api(scope, receive, send)  # type: ignore[arg-type] # ASGI's own types are wider

    def _counted(self, path: str, send: Send) -> Send:
        async def counting(message: dict[str, Any]) -> None:
            if message["type"] == "http.response.start":
                self._metrics.answered(path, message["status"])
            await send(message)

        return counting

    @asynccontextmanager
    async def _lifespan(self, _: FastAPI) -> AsyncIterator[None]:
        self._engine = open_engine(self._database_url)
        sender = Sender(self._engine, Lines(celery_app(self._broker_url)))
        committer = Committer(self._engine, sender, self._metrics)
        self._metrics.waiting = lambda: committer.waiting
        self._metrics.depth = self._outbox_depth
        await run_in_threadpool(self._gatekeeper.start)
        self._events = Events(committer, self._gatekeeper)
        self._hooks.committer = committer
        self.clicks.open(committer, self._engine)
        try:
            yield
        finally:
            self._events = self._hooks.committer = None
            self.clicks.close()
            await run_in_threadpool(committer.close)
            await run_in_threadpool(sender.close)
            await run_in_threadpool(self._gatekeeper.close)
            self._engine.dispose()

    @staticmethod
    async def _healthz() -> Response:
        """The process lives."""
        return JSONResponse({"status": "ok"})

    async def _readyz(self) -> Response:
        """It can take events: the database answers. The broker may be away, then events wait in the outbox."""
        if self._engine is None or not await run_in_threadpool(_answers, self._engine):
            refused = RefusedError(503, "unavailable", "the database does not answer")
            return _response(refused)
        return JSONResponse({"status": "ok"})

    async def _metrics_page(self) -> Response:
        """The numbers of this process, for Prometheus."""
        return Response(await run_in_threadpool(self._metrics.exposition), media_type=METRICS_TYPE)

    def _outbox_depth(self) -> int | None:
        try:
            return None if self._engine is None else outbox.depth(self._engine)
        except SQLAlchemyError:
            return None


def _answers(engine: Engine) -> bool:
    try:
        with engine.connect() as connection:
            connection.execute(text("SELECT 1"))
    except SQLAlchemyError:
        return False
    return True


def _response(refused: RefusedError) -> Response:
    headers = {name.decode(): value.decode() for name, value in refused.headers}
    return Response(
        orjson.dumps(refused.body()), refused.status, headers, media_type="application/problem+json"
    )


def _problem(_: Request, error: Exception) -> Response:
    assert isinstance(error, RefusedError)
    return _response(error)


def _http_problem(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    headers = {name.lower(): value for name, value in (error.headers or {}).items()}
    if error.status_code == HTTPStatus.METHOD_NOT_ALLOWED:
        headers["allow"] = _allowed(request)
    code = HTTPStatus(error.status_code).phrase.lower().replace(" ", "_")
    encoded = tuple((name.encode(), value.encode()) for name, value in headers.items())
    return _response(RefusedError(error.status_code, code, str(error.detail), encoded))


def _allowed(request: Request) -> str:
    """Every method of the path. Where each has a route of its own, the framework names one's."""
    routes = [route for route in request.app.routes if route.matches(request.scope)[0] is not Match.NONE]
    return ", ".join(sorted({method for route in routes for method in getattr(route, "methods", None) or ()}))


def _validation_problem(_: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    said = "; ".join(f"{'.'.join(map(str, each['loc']))}: {each['msg']}" for each in error.errors())
    return _response(RefusedError(422, "invalid", said))
