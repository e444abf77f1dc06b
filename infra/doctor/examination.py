"""The order of an examination: the host, the file, then each engine and what is in it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack

from sqlalchemy import Engine

from infra.catalogue import Config
from infra.db.engine import open_engine
from infra.doctor import database, destinations, host
from infra.doctor.finding import Finding, fail
from infra.doctor.keeping import examine_keeping
from infra.doctor.queue import examine_broker
from infra.embedded.errors import EngineError
from infra.embedded.status import engines_status
from infra.embedded.use import use_engines
from infra.settings import Settings, SettingsError, load_settings


def examine(*, start: bool = True, read_archives: bool = False) -> Iterator[Finding]:
    """Everything, in order, as it is found. ``start``: start embedded engines that do not run, and stop them after."""
    yield host.versions()
    try:
        settings = load_settings()
    except SettingsError as error:
        yield fail("environment", f"{error.variable}: {error.reason}", error.remedy)
        return
    config, findings = destinations.examine_config(settings.config)
    yield from findings
    if settings.database_url is None or settings.broker_url is None:
        yield from host.embedded_engines(settings, start=start)
    with ExitStack() as stack:
        try:
            database_url, broker_url = _urls(settings, stack, start=start)
        except EngineError as error:
            yield fail("engines", error.reason, error.remedy)
            return
        if database_url is not None:
            engine = open_engine(database_url, pool_size=1)
            stack.callback(engine.dispose)
            yield from _database(engine, config, read_archives=read_archives)
        elif config is not None:
            yield from destinations.examine_secrets(config.contracts.values())
        if broker_url is not None:
            yield from examine_broker(broker_url)


def _database(engine: Engine, config: Config | None, *, read_archives: bool) -> Iterator[Finding]:
    answers = database.examine_server(engine)
    yield from answers
    if answers[0].level == "fail":
        return
    tables = database.examine_tables(engine)
    yield tables
    contracts = {} if config is None else config.contracts
    if tables.level == "ok":
        applied, findings = destinations.examine_applied(engine, config)
        yield from findings
        contracts = {contract.name: contract for contract in applied} | contracts
    yield from destinations.examine_secrets(contracts.values())
    if tables.level == "ok":
        yield from database.examine_ledger(engine)
        yield from examine_keeping(engine, read_archives=read_archives)


def _urls(settings: Settings, stack: ExitStack, *, start: bool) -> tuple[str | None, str | None]:
    """Where the engines are; None for an embedded one that does not run and is not to be started."""
    found = engines_status(settings.data_dir)
    postgres = settings.database_url is None and (start or found.postgres.running)
    valkey = settings.broker_url is None and (start or found.valkey.running)
    if not postgres and not valkey:
        return settings.database_url, settings.broker_url
    engines = stack.enter_context(use_engines(settings.data_dir, postgres=postgres, valkey=valkey))
    return (
        engines.database_url if postgres else settings.database_url,
        engines.broker_url if valkey else settings.broker_url,
    )
