"""``holdfire serve console``: one process of its own, on a port of its own."""

from __future__ import annotations

import ipaddress
import signal
import sys
from pathlib import Path
from types import FrameType
from typing import Annotated, Any

import structlog
import typer
import uvicorn
from sqlalchemy import Engine
from sqlalchemy.exc import SQLAlchemyError

from infra.catalogue import load_config
from infra.db.engine import open_engine
from infra.embedded.connect import resolve_urls
from infra.logging import configure_logging
from infra.settings import Settings, load_settings
from infra.store.console import accounts
from infra.supervised import end_with_supervisor
from investigations.console.app import Console
from investigations.console.headers import LOOPBACK
from investigations.console.settings import PAGE_TIMEOUT_S, THREADS, ConsoleSettings
from schemas.accounts import ConsolePolicy

log = structlog.get_logger()


class InTheClearError(ValueError):
    """Passwords would travel where others can read them."""

    def __init__(self, host: str) -> None:
        super().__init__(
            f"serve console: {host} can be reached from other machines, and passwords would travel in the clear. Give "
            "--tls-cert and --tls-key, or --behind ADDRESS of a proxy that speaks https, or listen on 127.0.0.1"
        )


class HalfTlsError(ValueError):
    """A certificate without its key, or a key without its certificate."""


def register(app: typer.Typer) -> None:
    """Add ``serve console``; the front door joins it to the other rooms' ``serve`` commands."""
    serve = typer.Typer(no_args_is_help=True)
    serve.callback()(lambda: None)  # without it, Typer makes a group of one command that command
    serve.command("console")(console)
    app.add_typer(serve, name="serve")


def console(
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port to listen on.", min=0, max=65535)] = 8081,
    behind: Annotated[
        str | None,
        typer.Option(
            metavar="ADDRESS",
            help="A proxy that speaks https stands before it: what this address says of the client is believed. "
            "Several with commas.",
        ),
    ] = None,
    tls_cert: Annotated[
        Path | None,
        typer.Option(help="Certificate chain, to speak https itself.", exists=True, dir_okay=False),
    ] = None,
    tls_key: Annotated[
        Path | None, typer.Option(help="The certificate's private key.", exists=True, dir_okay=False)
    ] = None,
) -> None:
    """Serve the console: search, timelines, evidence, reports and replays in a browser.

    It asks for an account: holdfire users add NAME --role viewer|operator.
    """
    if (tls_cert is None) != (tls_key is None):
        raise HalfTlsError("serve console: --tls-cert and --tls-key go together; give both")
    secure = behind is not None or tls_cert is not None
    if not secure and not _is_loopback(host):
        raise InTheClearError(host)
    end_with_supervisor()
    # Once it has ended well, uvicorn lets the signal do what it did before: it must not cut off what is left to close.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    settings = load_settings()
    configure_logging(settings.log_format, settings.log_level)
    policy = _policy(settings)
    with resolve_urls(settings) as urls:
        application = _application(settings, urls.database_url, policy, secure=secure)
        log.info("console.serving", host=host, port=port, https=secure)
        server = _Server(
            application,
            host=host,
            port=port,
            loop="uvloop",
            http="httptools",
            log_config=None,
            access_log=False,
            server_header=False,
            proxy_headers=behind is not None,
            forwarded_allow_ips=behind or "",
            ssl_certfile=tls_cert,
            ssl_keyfile=tls_key,
            timeout_graceful_shutdown=10,
        )
        server.run()
    if not server.started:
        raise typer.Exit(3)  # the log says why: most often the port is taken


class _Server(uvicorn.Server):
    """Tells the application that it ends before it waits for the connections: streams would hold it up."""

    def __init__(self, application: Console, **config: Any) -> None:
        super().__init__(uvicorn.Config(application, **config))
        self._application = application

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        self._application.end()
        super().handle_exit(sig, frame)


def _application(settings: Settings, database_url: str, policy: ConsolePolicy, *, secure: bool) -> Console:
    engine = open_engine(database_url, pool_size=THREADS, statement_timeout_ms=round(PAGE_TIMEOUT_S * 1000))
    _say_how_to_begin(engine)
    # Whoever only listens on this machine is asked by its own names; another name would be a page elsewhere that had its
    # own name point here.
    hosts = policy.hosts or (() if secure else LOOPBACK)
    return Console(
        ConsoleSettings(
            engine,
            policy,
            secure=secure,
            hosts=hosts,
            long_engine=open_engine(database_url, pool_size=2),
            data_dir=settings.data_dir,
            config=settings.config,
        )
    )


def _policy(settings: Settings) -> ConsolePolicy:
    """What ``holdfire.toml`` says. Raises ConfigError for a file at fault: a policy must not be left out unsaid."""
    if settings.config.exists():
        return load_config(settings.config).console
    log.warning(
        "console.no_config", path=str(settings.config), policy="default: click ids are shown to everybody"
    )
    return ConsolePolicy()


def _say_how_to_begin(engine: Engine) -> None:
    try:
        anybody = accounts.any_there(engine)
    except SQLAlchemyError:
        return  # the pages say what is wrong with the database
    if not anybody:
        typer.echo("No account yet: holdfire users add NAME --role operator makes the first.", err=True)


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
