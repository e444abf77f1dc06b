"""What the environment says: where the configuration, the engines and the data are.

Every variable starts with ``HOLDFIRE_``. With neither ``HOLDFIRE_DATABASE_URL`` nor ``HOLDFIRE_BROKER_URL``
set, the embedded engines serve (see :mod:`infra.embedded.connect`).
"""

import re
from pathlib import Path
from typing import Final, Literal
from urllib.parse import urlsplit

from pydantic import Field, ValidationError, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

PREFIX: Final = "HOLDFIRE_"

_CLONE: Final = Path(__file__).resolve().parents[1]
# The data belongs to the installation and not to the working folder: a producer started elsewhere on this machine must
# reach the broker whose worker `holdfire up` runs, and not quietly start one that nobody reads.
_DATA_DIR: Final = (_CLONE if (_CLONE / "pyproject.toml").is_file() else Path()) / ".holdfire"

# SQLAlchemy 2.1 reads a plain postgresql:// as psycopg 3; Holdfire speaks psycopg2, so it says so.
_POSTGRES_DIALECTS: Final = frozenset(
    {"postgres", "postgresql", "postgresql+psycopg", "postgresql+psycopg2"},
)
# kombu knows no "valkey": the protocol is the same, so it is spoken to as Redis.
_BROKER_SCHEMES: Final = {
    "redis": "redis",
    "rediss": "rediss",
    "valkey": "redis",
    "sentinel": "sentinel",
    "amqp": "amqp",
    "amqps": "amqps",
}
_REMEDIES: Final = {
    "config": "give the path of a holdfire.toml",
    "database_url": "give postgresql://user:password@host:5432/name, or unset it to use the embedded PostgreSQL",
    "broker_url": "give redis://host:6379/0 or amqp://host:5672//, or unset it to use the embedded Valkey",
    "data_dir": "give a folder Holdfire may write to",
    "log_format": "set it to auto, console or json",
    "log_level": "set it to DEBUG, INFO, WARNING, ERROR or CRITICAL",
    "signing_key_file": "give the path of an Ed25519 private key in PEM, or unset it to use the one in the data folder",
}


class SettingsError(ValueError):
    """An environment variable that cannot be used: which one, why, and what to do about it."""

    def __init__(self, variable: str, reason: str, remedy: str) -> None:
        """Say what is wrong with ``variable``; neither text may repeat a value that can hold a password."""
        super().__init__(f"{variable}: {reason}; {remedy}")
        self.variable = variable
        self.reason = reason
        self.remedy = remedy


def normalise_database_url(url: str) -> str:
    """Return ``url`` as SQLAlchemy's ``postgresql+psycopg2://`` form.

    Raises ValueError for any other dialect and for a URL without a scheme. The message names the scheme
    only: the rest may hold a password.
    """
    scheme, rest = _split_scheme(url)
    if scheme not in _POSTGRES_DIALECTS:
        raise ValueError(f"{scheme}:// is not PostgreSQL, and Holdfire keeps its ledger in PostgreSQL only")
    if rest in {"", "/"}:
        raise ValueError("it names neither a host nor a database")
    return f"postgresql+psycopg2://{rest}"


def normalise_broker_url(url: str) -> str:
    """Return ``url`` with a scheme that kombu knows: ``valkey://`` becomes ``redis://``.

    Raises ValueError for a scheme that is neither Redis, Sentinel nor AMQP.
    """
    scheme, rest = _split_scheme(url)
    known = _BROKER_SCHEMES.get(scheme)
    if known is None:
        raise ValueError(f"{scheme}:// is none of the brokers Holdfire knows ({', '.join(_BROKER_SCHEMES)})")
    try:
        _ = urlsplit(f"{known}://{rest}").port if known != "sentinel" else None
    except ValueError:
        raise ValueError("its port is not a number between 0 and 65535") from None
    return f"{known}://{rest}"


class Settings(BaseSettings):
    """The environment, checked; paths are absolute and URLs are ready to hand on."""

    model_config = SettingsConfigDict(env_prefix=PREFIX, env_ignore_empty=True, extra="ignore", frozen=True)

    config: Path = Field(default=Path("holdfire.toml"), validate_default=True)
    database_url: str | None = Field(default=None, repr=False)
    broker_url: str | None = Field(default=None, repr=False)
    data_dir: Path = Field(default=_DATA_DIR, validate_default=True)
    log_format: Literal["auto", "console", "json"] = "auto"
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL"] = "INFO"
    signing_key_file: Path | None = None

    @field_validator("config", "data_dir", "signing_key_file")
    @classmethod
    def _absolute(cls, path: Path | None) -> Path | None:
        # A worker may change its working folder later; what it was started with must still be meant.
        return None if path is None else path.expanduser().resolve()

    @field_validator("data_dir")
    @classmethod
    def _a_folder(cls, path: Path) -> Path:
        if path.exists() and not path.is_dir():
            raise ValueError(f"{path} is not a folder")
        return path

    @field_validator("database_url")
    @classmethod
    def _a_database(cls, url: str | None) -> str | None:
        return None if url is None else normalise_database_url(url)

    @field_validator("broker_url")
    @classmethod
    def _a_broker(cls, url: str | None) -> str | None:
        return None if url is None else normalise_broker_url(url)

    @field_validator("log_level", mode="before")
    @classmethod
    def _upper(cls, level: object) -> object:
        return level.upper() if isinstance(level, str) else level

    @field_validator("log_format", mode="before")
    @classmethod
    def _lower(cls, form: object) -> object:
        return form.lower() if isinstance(form, str) else form


def load_settings() -> Settings:
    """Read the environment; raises SettingsError naming the first variable that cannot be used."""
    try:
        return Settings()
    except ValidationError as invalid:
        first = invalid.errors(include_url=False, include_input=False)[0]
        field = str(first["loc"][0])
        reason = str(first["msg"]).removeprefix("Value error, ")
        # From None: pydantic's own text quotes the value, which may hold a password.
        raise SettingsError(f"{PREFIX}{field}".upper(), reason, _REMEDIES[field]) from None


def _split_scheme(url: str) -> tuple[str, str]:
    found = re.fullmatch(r"([A-Za-z][A-Za-z0-9+.-]*)://(.*)", url.strip(), re.DOTALL)
    if found is None:
        raise ValueError("it is not a URL: there is no scheme:// at its start")
    return found[1].lower(), found[2]
