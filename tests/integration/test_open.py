"""Opening the store tells a person what to do when it cannot be read."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from sqlalchemy import create_engine, make_url, text

from infra.embedded.use import Engines
from infra.open import StoreUnavailableError, open_store


@pytest.fixture
def empty_database_url(engines: Engines) -> Iterator[str]:
    """A database without any table."""
    server = create_engine(engines.database_url, isolation_level="AUTOCOMMIT")
    with server.connect() as connection:
        connection.execute(text("CREATE DATABASE holdfire_empty"))
        yield (
            make_url(engines.database_url)
            .set(database="holdfire_empty")
            .render_as_string(hide_password=False)
        )
        connection.execute(text("DROP DATABASE holdfire_empty WITH (FORCE)"))
    server.dispose()


def refusal(monkeypatch: pytest.MonkeyPatch, database_url: str) -> str:
    monkeypatch.setenv("HOLDFIRE_DATABASE_URL", database_url)
    with pytest.raises(StoreUnavailableError) as refused, open_store():
        pass
    return str(refused.value)


def test_a_migrated_database_is_opened(monkeypatch: pytest.MonkeyPatch, database_url: str) -> None:
    """The engine that comes can be used at once, and no broker was needed for it."""
    monkeypatch.setenv("HOLDFIRE_DATABASE_URL", database_url)
    monkeypatch.setenv("HOLDFIRE_BROKER_URL", "redis://127.0.0.1:1/0")
    with open_store() as engine, engine.connect() as connection:
        assert connection.execute(text("SELECT count(*) FROM conversions")).scalar_one() == 0


def test_an_empty_database_names_the_command_that_fills_it(
    monkeypatch: pytest.MonkeyPatch, empty_database_url: str
) -> None:
    """No traceback about a missing relation."""
    assert (
        refusal(monkeypatch, empty_database_url) == "the database has no tables yet; run `holdfire migrate`"
    )


def test_another_versions_tables_are_not_read(monkeypatch: pytest.MonkeyPatch, database_copy: str) -> None:
    """What an older or newer Holdfire left is named by its revision."""
    spoiled = create_engine(database_copy)
    with spoiled.begin() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = '0000'"))
    spoiled.dispose()
    assert refusal(monkeypatch, database_copy).startswith(
        "the database is at revision 0000, this Holdfire wants "
    )


def test_a_server_that_is_not_there_is_named_without_its_password(monkeypatch: pytest.MonkeyPatch) -> None:
    """The reason and the remedy; what the URL holds stays out of terminals and logs."""
    said = refusal(monkeypatch, "postgresql://holdfire:hunter2secret@127.0.0.1:1/holdfire")
    assert "the database does not answer: " in said
    assert "HOLDFIRE_DATABASE_URL" in said
    assert "hunter2secret" not in said
