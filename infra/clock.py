"""The database's clock, as this process knows it: host clocks drift, and due times must not."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta


class DatabaseClock:
    """Tells the database's time between two looks at it, counting on this host's monotonic clock."""

    def __init__(self) -> None:
        self._seen = datetime.now(UTC)
        self._seen_at = time.monotonic()
        self._observed = False

    def observe(self, now: datetime) -> None:
        """Take note of the database's ``now``, read just this moment."""
        self._seen, self._seen_at = now, time.monotonic()
        self._observed = True

    @property
    def age_s(self) -> float:
        """Seconds since the database's clock was last looked at; infinite before the first look."""
        return time.monotonic() - self._seen_at if self._observed else float("inf")

    def now(self) -> datetime:
        return self._seen + timedelta(seconds=time.monotonic() - self._seen_at)
