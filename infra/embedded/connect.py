"""Where the database and the broker are: the servers that the settings name, or else the embedded ones."""

from dataclasses import dataclass
from types import TracebackType
from typing import Self

from infra.embedded.use import Engines, use_engines
from infra.settings import Settings


@dataclass(frozen=True)
class Urls:
    """The two URLs, and the embedded engines behind them (None if neither is embedded). A context manager."""

    database_url: str
    broker_url: str
    engines: Engines | None

    def release(self) -> None:
        """Give up the embedded engines, if there are any; they stop with their last user."""
        if self.engines is not None:
            self.engines.release()

    def __enter__(self) -> Self:
        """Return the URLs."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Release the engines."""
        self.release()


def resolve_urls(settings: Settings, *, linger_s: float = 2.0) -> Urls:
    """Return where to connect; starts an embedded engine for each URL that the settings leave out.

    Raises EngineError if one that is needed cannot be started.
    """
    if settings.database_url is not None and settings.broker_url is not None:
        return Urls(settings.database_url, settings.broker_url, None)
    engines = use_engines(
        settings.data_dir,
        postgres=settings.database_url is None,
        valkey=settings.broker_url is None,
        linger_s=linger_s,
    )
    return Urls(
        settings.database_url or engines.database_url, settings.broker_url or engines.broker_url, engines
    )
