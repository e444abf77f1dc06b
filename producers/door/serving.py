"""Serving the door: uvicorn, one or more processes on one port."""

from __future__ import annotations

import os
from typing import Annotated

import typer
import uvicorn

from infra.embedded.connect import resolve_urls
from infra.logging import configure_logging
from infra.settings import load_settings
from infra.supervised import end_with_supervisor
from producers.door.app import Door
from producers.door.callers import Anyone
from producers.hooks.sources import open_sources

_DATABASE, _BROKER = "HOLDFIRE_DOOR_DATABASE_URL", "HOLDFIRE_DOOR_BROKER_URL"


def register(app: typer.Typer) -> None:
    serve = typer.Typer(help="Serve the HTTP door.", no_args_is_help=True)
    serve.callback()(lambda: None)  # without it, Typer makes a group of one command that command
    serve.command("door")(door)
    app.add_typer(serve, name="serve")


def door(
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port to listen on.", min=0, max=65535)] = 8080,
    processes: Annotated[int, typer.Option(help="Processes that share the port.", min=1, max=64)] = 1,
) -> None:
    """Serve the HTTP door: POST /v1/events and the hooks of holdfire.toml, with its OpenAPI document at /docs."""
    end_with_supervisor()
    settings = load_settings()
    configure_logging(settings.log_format, settings.log_level)
    open_sources(settings.config)  # what is wrong with the file is said here, and not by every process
    with resolve_urls(settings) as urls:
        # A child process starts from the factory alone, and finds here what was resolved once.
        os.environ |= {_DATABASE: urls.database_url, _BROKER: urls.broker_url}
        uvicorn.run(
            "producers.door.serving:application",
            factory=True,
            host=host,
            port=port,
            workers=processes,
            loop="uvloop",
            http="httptools",
            log_config=None,
            access_log=False,
            server_header=False,
            timeout_graceful_shutdown=20,
        )


def application() -> Door:
    """The application of one process."""
    settings = load_settings()
    configure_logging(settings.log_format, settings.log_level)
    return Door(os.environ[_DATABASE], os.environ[_BROKER], Anyone(), sources=open_sources(settings.config))
