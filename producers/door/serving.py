"""Serving the door: uvicorn, one or more processes on one port."""

from __future__ import annotations

import ipaddress
import os
import signal
import sys
from typing import Annotated

import typer
import uvicorn

from infra.db.engine import open_engine
from infra.embedded.connect import resolve_urls
from infra.logging import configure_logging
from infra.settings import load_settings
from infra.supervised import end_with_supervisor
from producers.door.app import Door
from producers.door.callers import Anyone, Gatekeeper
from producers.door.gatekeeping import KeyRing
from producers.hooks.sources import open_sources

_DATABASE, _BROKER = "HOLDFIRE_DOOR_DATABASE_URL", "HOLDFIRE_DOOR_BROKER_URL"
_OPEN = "HOLDFIRE_DOOR_OPEN"


class NotLoopbackError(ValueError):
    """A door that anyone could use would be reachable from elsewhere."""

    def __init__(self, host: str) -> None:
        super().__init__(
            f"serve door: --open lets everyone in, and {host} can be reached from other machines, whose events would "
            "be paid for. Leave --open out and make a key with `holdfire keys create`, or listen on 127.0.0.1"
        )


def register(app: typer.Typer) -> None:
    """Add ``serve door``; the front door joins other rooms' ``serve`` commands to it."""
    serve = typer.Typer(help="Serve the HTTP door, or the console.", no_args_is_help=True)
    serve.callback()(lambda: None)  # without it, Typer makes a group of one command that command
    serve.command("door")(door)
    app.add_typer(serve, name="serve")


def door(
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port to listen on.", min=0, max=65535)] = 8080,
    processes: Annotated[int, typer.Option(help="Processes that share the port.", min=1, max=64)] = 1,
    everyone: Annotated[
        bool, typer.Option("--open", help="Let everyone in without a key; on a loopback address only.")
    ] = False,
) -> None:
    """Serve the HTTP door: POST /v1/events and the hooks of holdfire.toml, with its OpenAPI document at /openapi.json.

    Callers need a key: holdfire keys create NAME.
    """
    if everyone and not _is_loopback(host):
        raise NotLoopbackError(host)
    end_with_supervisor()
    # Once it has ended well, uvicorn lets the signal do what it did before: it must not cut off what is left to close.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    settings = load_settings()
    configure_logging(settings.log_format, settings.log_level)
    open_sources(settings.config)  # what is wrong with the file is said here, and not by every process
    with resolve_urls(settings) as urls:
        # A child process starts from the factory alone, and finds here what was resolved once.
        os.environ |= {
            _DATABASE: urls.database_url,
            _BROKER: urls.broker_url,
            _OPEN: "yes" if everyone else "no",
        }
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
    database_url = os.environ[_DATABASE]
    gatekeeper: Gatekeeper = (
        Anyone() if os.environ[_OPEN] == "yes" else KeyRing(open_engine(database_url, pool_size=1))
    )
    return Door(database_url, os.environ[_BROKER], gatekeeper, sources=open_sources(settings.config))


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
