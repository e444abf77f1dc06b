"""The workers' commands: ``work`` runs one worker process, ``clock`` one beat; and one release pass."""

from __future__ import annotations

import contextlib
import ctypes
import gc
import os
import socket
import warnings
from typing import Annotated, Any

import typer
from celery import signals
from celery.platforms import SecurityWarning
from sqlalchemy import Engine

from infra import broker
from infra.catalogue import load_config
from infra.db.engine import open_engine
from infra.embedded.connect import Urls, resolve_urls
from infra.logging import configure_logging
from infra.settings import Settings, load_settings
from infra.store import destinations
from infra.store.keeping import keeping
from infra.supervised import end_with_supervisor
from workers.app import create_app
from workers.runtime import LEASE_S, Runtime
from workers.ticking import Clock, Ticker
from workers.up import Supervisor, children

GC_EVERY = 25_000
M_ARENA_MAX = -8
"""mallopt's number for it, as in glibc's malloc.h."""
THREADS = 4
"""Tasks a worker runs at a time. They only hand over: what is slow, the wire, is one event loop behind them."""


def register(app: typer.Typer) -> None:
    app.command("work")(work)
    app.command("clock")(clock)
    app.command("up")(up)


def work(
    queues: Annotated[str, typer.Option(help="Queues to serve, comma-separated.")] = ",".join(broker.QUEUES),
    lease: Annotated[float, typer.Option(help="Seconds a claim lasts without a sign of life.")] = LEASE_S,
    threads: Annotated[int, typer.Option(help="Tasks at a time.")] = THREADS,
) -> None:
    """Run one worker process: intake, release passes and firing. Run as many as there are cores."""
    _spare_memory()
    settings, urls = _open()
    app, runtime = create_app(urls.database_url, urls.broker_url, lease_s=lease)
    _log_through_us(settings)
    # Celery warns root of unpickling; nothing here is ever pickled.
    warnings.filterwarnings("ignore", message=".*superuser privileges", category=SecurityWarning)
    worker = app.Worker(
        hostname=f"holdfire-{os.getpid()}@{socket.gethostname()}",
        pool="threads",
        concurrency=threads,
        queues=queues.split(","),
        loglevel=settings.log_level,
        without_gossip=True,
        without_mingle=True,
        without_heartbeat=True,
        optimization="fair",
        quiet=True,
    )
    _collect_rarely()
    try:
        worker.start()
    finally:
        _close(runtime, urls)
    raise typer.Exit(worker.exitcode or 0)


def clock() -> None:
    """Run one clock: ticks for releasing, rescuing and housekeeping. Any number may run."""
    settings, urls = _open()
    app, _ = create_app(urls.database_url, urls.broker_url)
    _log_through_us(settings)
    beat = Clock(app=app, scheduler=Ticker, max_interval=1, loglevel=settings.log_level, quiet=True)
    try:
        beat.run()
    finally:
        urls.release()


def release_pass(*, due: bool, destination: str | None, dry_run: bool) -> None:
    """Release all that is due now; with ``due`` first let go what waits for it, of ``destination`` or of all.

    First takes back what dead workers held. Safe side by side. Exits 1 if something stays due because no worker takes it.
    """
    from workers.releasing import release_all  # noqa: PLC0415 — the commands start fast
    from workers.rescuing import rescue  # noqa: PLC0415 — the commands start fast
    from workers.tasks import hint  # noqa: PLC0415 — the commands start fast

    _, urls = _open()
    app, runtime = create_app(urls.database_url, urls.broker_url)
    try:
        if destination is not None:
            _check_destination(runtime, destination)
        if dry_run:
            _say_what_is_due(runtime.engine, destination, by_hand=due)
            return
        rescue(runtime.engine, runtime.renderer)
        if due:
            typer.echo(f"Let go {_let_go_all(runtime.engine, destination)}.")
        released = release_all(
            runtime.engine,
            hints_waiting=lambda: broker.depth(app, broker.FIRE),
            hint=lambda lease: hint(app, lease),
            lease_s=runtime.lease_s,
        )
    finally:
        _close(runtime, urls)
    typer.echo(f"Released {released.count}.")
    if released.left:
        typer.echo(f"Still due: {released.left}; nobody takes the hints. Start `holdfire work`.", err=True)
        raise typer.Exit(1)


def _say_what_is_due(engine: Engine, destination: str | None, *, by_hand: bool) -> None:
    from infra.store.releasing import backlog, waiting_for_release  # noqa: PLC0415 — the commands start fast

    found = backlog(engine)
    oldest = f", the oldest for {found.oldest_s:.0f} s" if found.due else ""
    waiting = f" Waiting to be let go: {waiting_for_release(engine, destination)}." if by_hand else ""
    typer.echo(f"Due: {found.due}{oldest}.{waiting} Nothing was released.")


def _check_destination(runtime: Runtime, name: str) -> None:
    known = destinations.names(runtime.engine)
    if name not in known:
        raise typer.BadParameter(f"{name!r} was never applied. Known: {', '.join(known) or 'none'}")


def _let_go_all(engine: Engine, destination: str | None) -> int:
    """Let go in batches: no lock is held for long, and another process may do so at the same time."""
    from infra.store.releasing import let_go  # noqa: PLC0415 — the commands start fast

    total = 0
    while batch := let_go(engine, destination):
        total += batch
    return total


def up(
    workers: Annotated[int, typer.Option(min=1, max=64, help="Worker processes.")] = 2,
    lease: Annotated[float, typer.Option(help="Seconds a claim lasts without a sign of life.")] = LEASE_S,
    door: Annotated[
        int | None, typer.Option(metavar="PORT", min=1, max=65535, help="Serve the HTTP door here as well.")
    ] = None,
    console: Annotated[
        int | None, typer.Option(metavar="PORT", min=1, max=65535, help="Serve the console here as well.")
    ] = None,
) -> None:
    """Run everything and stay up: engines, tables, destinations, the clock and the workers. Ctrl-C ends it."""
    from infra.db.migrate import migrate  # noqa: PLC0415 — 12 MB that no worker needs

    settings = load_settings()
    configure_logging(settings.log_format, settings.log_level)
    with resolve_urls(settings) as urls:
        engine = open_engine(urls.database_url)
        migrate(engine)
        _apply_config(settings, engine)
        engine.dispose()
        where = "" if urls.engines is None else f" Its data is in {settings.data_dir}."
        served = (
            ""
            if door is None
            else f" The door is at http://127.0.0.1:{door}, keys are made by `holdfire keys`."
        )
        if console is not None:
            served += f" The console is at http://127.0.0.1:{console}, accounts are made by `holdfire users`."
        Supervisor(children(workers, lease, door, console)).run(
            lambda: typer.echo(f"Holdfire is up.{where}{served} Ctrl-C ends it.", err=True)
        )
    typer.echo("Holdfire has ended; what is held goes on when it is up again.", err=True)


def _apply_config(settings: Settings, engine: Engine) -> None:
    if not settings.config.exists():
        typer.echo(
            f"No {settings.config}: only what was applied before is routed to. "
            "Write one as docs/configuration.md shows, then run `holdfire destinations apply`.",
            err=True,
        )
        return
    loaded = load_config(settings.config)
    for warning in loaded.warnings:
        typer.echo(f"warning: {warning}", err=True)
    for change in destinations.apply(engine, loaded.contracts, who="up"):
        if change.kind != "unchanged":
            typer.echo(f"destination {change.name}: {change.kind} {', '.join(change.fields)}", err=True)
    if keeping.apply(engine, loaded.keeping, loaded.contracts, who="up"):
        typer.echo("keeping: changed", err=True)


def _collect_rarely() -> None:
    """Look for reference cycles every so many thousand objects: an attempt leaves none, and looking takes time.

    What is loaded by now stays for ever and is not looked at again; so a whole collection, after each message, is cheap.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(GC_EVERY, 20, 20)


def _spare_memory() -> None:
    """Keep glibc from giving every thread an arena of its own: batches would leave their peak in each of them."""
    with contextlib.suppress(OSError, AttributeError):  # another C library, another allocator
        ctypes.CDLL(None).mallopt(M_ARENA_MAX, 2)


def _open() -> tuple[Settings, Urls]:
    end_with_supervisor()
    settings = load_settings()
    configure_logging(settings.log_format, settings.log_level)
    return settings, resolve_urls(settings)


def _log_through_us(settings: Settings) -> None:
    def keep_ours(**_: Any) -> None:
        configure_logging(settings.log_format, settings.log_level)

    signals.setup_logging.connect(keep_ours, weak=False)


def _close(runtime: Runtime, urls: Urls) -> None:
    runtime.close()
    urls.release()
