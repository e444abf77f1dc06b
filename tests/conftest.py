"""Real engines for every test that wants them: one PostgreSQL and one Valkey a session, a fresh database a module."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis
from hypothesis import settings
from sqlalchemy import Engine, create_engine, make_url, text

from infra.db.engine import open_engine
from infra.db.migrate import migrate
from infra.embedded.use import Engines, use_engines

# A run of the suite must not depend on luck; `pytest --hypothesis-profile=explore` looks where no run has looked.
settings.register_profile("stable", derandomize=True)
settings.register_profile("explore", max_examples=2_000)
settings.load_profile("stable")

TEMPLATE = "holdfire_template"
BROKER_DATABASES = 15
"""Valkey has 16 numbered databases; 0 is left to whoever uses the engines' own URL."""

_module_numbers = itertools.count()


@pytest.fixture(scope="session")
def engines(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engines]:
    """Embedded engines in a folder of this session, stopped at its end."""
    folder: Path = tmp_path_factory.mktemp("engines")
    with use_engines(folder) as running:
        yield running


@pytest.fixture(scope="session")
def migrated_template(engines: Engines) -> str:
    """The name of a migrated, empty database that others are copied from: a copy is quicker than a migration."""
    _statement(engines, f"CREATE DATABASE {TEMPLATE}")
    engine = open_engine(_url(engines, TEMPLATE))
    try:
        migrate(engine)
    finally:
        engine.dispose()  # a template with a connection cannot be copied
    return TEMPLATE


@pytest.fixture(scope="module")
def database_url(engines: Engines, migrated_template: str) -> Iterator[str]:
    """A migrated, empty database of this test module alone, dropped at its end."""
    name = f"holdfire_test_{next(_module_numbers)}"
    _statement(engines, f"CREATE DATABASE {name} TEMPLATE {migrated_template}")
    yield _url(engines, name)
    _statement(engines, f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture(scope="module")
def engine(database_url: str) -> Iterator[Engine]:
    """A SQLAlchemy engine on this module's database."""
    opened = open_engine(database_url)
    yield opened
    opened.dispose()


@pytest.fixture
def database_copy(engines: Engines, database_url: str, engine: Engine) -> Iterator[str]:
    """A copy of this module's database as it stands now, for one test that spoils it."""
    name = f"holdfire_copy_{next(_module_numbers)}"
    engine.dispose()
    _statement(engines, f"CREATE DATABASE {name} TEMPLATE {make_url(database_url).database}")
    yield _url(engines, name)
    _statement(engines, f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture(scope="module")
def broker_url(engines: Engines) -> Iterator[str]:
    """A numbered Valkey database, emptied for this test module."""
    number = 1 + next(_module_numbers) % BROKER_DATABASES
    url = f"{engines.broker_url.rsplit('/', 1)[0]}/{number}"
    with redis.Redis.from_url(url) as client:
        client.flushdb()
        yield url
        client.flushdb()


def _url(engines: Engines, database: str) -> str:
    return make_url(engines.database_url).set(database=database).render_as_string(hide_password=False)


def _statement(engines: Engines, statement: str) -> None:
    """Run what cannot stand in a transaction, beside every database it is about."""
    engine = create_engine(engines.database_url, isolation_level="AUTOCOMMIT")
    try:
        with engine.connect() as connection:
            connection.execute(text(statement))
    finally:
        engine.dispose()
