"""The environment: what is taken, what it becomes, and what is refused in which words."""

from pathlib import Path

import pytest

from infra.settings import SettingsError, load_settings, normalise_broker_url, normalise_database_url


@pytest.fixture(autouse=True)
def _bare_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("CONFIG", "DATABASE_URL", "BROKER_URL", "DATA_DIR", "LOG_FORMAT", "LOG_LEVEL"):
        monkeypatch.delenv(f"HOLDFIRE_{name}", raising=False)
    monkeypatch.chdir(tmp_path)


def test_a_program_in_another_folder_finds_the_same_data(tmp_path: Path) -> None:
    """Without a variable, the configuration is in the working folder, but the data is wherever Holdfire lies."""
    settings = load_settings()
    clone = Path(__file__).resolve().parents[2]
    assert (settings.config, settings.data_dir) == (tmp_path / "holdfire.toml", clone / ".holdfire")
    assert (settings.database_url, settings.broker_url) == (None, None)
    assert (settings.log_format, settings.log_level) == ("auto", "INFO")


def test_paths_stay_what_they_were_when_the_working_folder_changes(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A relative data folder is resolved once, when the settings are read."""
    monkeypatch.setenv("HOLDFIRE_DATA_DIR", "here")
    settings = load_settings()
    monkeypatch.chdir("/")
    assert settings.data_dir == tmp_path / "here"


@pytest.mark.parametrize("scheme", ["postgres", "postgresql", "postgresql+psycopg", "postgresql+psycopg2"])
def test_every_postgres_url_is_spoken_with_psycopg2(scheme: str) -> None:
    """Each way to write PostgreSQL becomes the one dialect in use; the rest of the URL is left as it is."""
    rest = "u:p%40ss@db.example:5433/x?sslmode=require"
    assert normalise_database_url(f"{scheme}://{rest}") == f"postgresql+psycopg2://{rest}"


@pytest.mark.parametrize(
    "url", ["mysql://h/x", "sqlite:///x.db", "postgresql+asyncpg://h/x", "db.example/x", ""]
)
def test_other_databases_are_refused(url: str) -> None:
    """A database that is not PostgreSQL, or no URL at all, is refused."""
    with pytest.raises(ValueError, match=r"is not PostgreSQL|is not a URL"):
        normalise_database_url(url)


@pytest.mark.parametrize(
    ("given", "used"),
    [
        ("valkey://h:6379/0", "redis://h:6379/0"),
        ("redis://:p@h/0", "redis://:p@h/0"),
        ("rediss://h/0", "rediss://h/0"),
        ("sentinel://a:1;sentinel://b:2", "sentinel://a:1;sentinel://b:2"),
        ("amqp://u:p@h:5672//", "amqp://u:p@h:5672//"),
        ("AMQPS://h//", "amqps://h//"),
    ],
)
def test_brokers_are_taken_as_kombu_knows_them(given: str, used: str) -> None:
    """Every supported broker URL keeps its address and gets a scheme that kombu knows."""
    assert normalise_broker_url(given) == used


@pytest.mark.parametrize("url", ["kafka://h", "memory://", "redis", "redis://h:port/0"])
def test_other_brokers_are_refused(url: str) -> None:
    """A broker Holdfire cannot use is refused."""
    with pytest.raises(ValueError, match=r"none of the brokers|is not a URL|port"):
        normalise_broker_url(url)


@pytest.mark.parametrize(
    ("variable", "value", "remedy"),
    [
        ("HOLDFIRE_DATABASE_URL", "mysql://root:hunter2@h/x", "postgresql://user"),
        ("HOLDFIRE_BROKER_URL", "kafka://root:hunter2@h", "redis://host"),
        ("HOLDFIRE_LOG_FORMAT", "hunter2", "auto, console or json"),
        ("HOLDFIRE_LOG_LEVEL", "hunter2", "DEBUG"),
        ("HOLDFIRE_DATA_DIR", __file__, "a folder"),
    ],
)
def test_an_error_names_variable_and_remedy_and_no_secret(
    monkeypatch: pytest.MonkeyPatch, variable: str, value: str, remedy: str
) -> None:
    """Whoever reads the error knows which variable to change and how; no value is repeated to the log."""
    monkeypatch.setenv(variable, value)
    with pytest.raises(SettingsError) as refused:
        load_settings()
    assert refused.value.variable == variable
    assert remedy in refused.value.remedy
    assert refused.value.reason
    assert "hunter2" not in str(refused.value)
    assert refused.value.__suppress_context__


def test_an_empty_variable_is_an_unset_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """A compose file that passes an empty variable through means the embedded engine."""
    monkeypatch.setenv("HOLDFIRE_DATABASE_URL", "")
    assert load_settings().database_url is None


def test_levels_and_formats_may_be_written_in_any_case(monkeypatch: pytest.MonkeyPatch) -> None:
    """``debug`` is DEBUG and ``JSON`` is json."""
    monkeypatch.setenv("HOLDFIRE_LOG_LEVEL", "debug")
    monkeypatch.setenv("HOLDFIRE_LOG_FORMAT", "JSON")
    settings = load_settings()
    assert (settings.log_level, settings.log_format) == ("DEBUG", "json")


def test_passwords_are_not_in_the_settings_text(monkeypatch: pytest.MonkeyPatch) -> None:
    """Printing the settings, as a debugger or a log line does, shows no URL."""
    monkeypatch.setenv("HOLDFIRE_DATABASE_URL", "postgres://u:hunter2@h/x")
    assert "hunter2" not in repr(load_settings())
