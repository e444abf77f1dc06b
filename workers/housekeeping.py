"""Retention as it is run: by a person, or once a day by the clock; written down either way."""

from __future__ import annotations

import threading
from datetime import timedelta
from pathlib import Path

import structlog
from sqlalchemy import Engine

from infra.store import audit
from infra.store.keeping.keeping import (
    KeepingElsewhereError,
    applied,
    begin_retention,
    end_retention,
    retention_is_due,
)
from schemas.keeping import Policy
from workers.retaining import Progress, Retained, retain

log = structlog.get_logger()

DAILY = timedelta(hours=20)
"""Since the last run began: a clock that looks each hour then retains at about the same time of each day."""


def archive_folder(policy: Policy, data_dir: Path) -> Path:
    """Where archives are written."""
    chosen = policy.keeping.archive_dir
    return Path(chosen) if chosen else data_dir / "archive"


def run(  # noqa: PLR0913 — what is kept where, and who does it why
    engine: Engine, policy: Policy, folder: Path, progress: Progress, *, who: str, reason: str
) -> Retained:
    """``retain``, written down: that it began, and in the audit what it came to."""
    number = begin_retention(engine, who)
    done = retain(engine, policy, folder, progress)
    detail = as_json(done)
    end_retention(engine, number, detail)
    audit.record(engine, who=who, action="keeping.retain", detail={"reason": reason, **detail})
    return done


def as_json(done: Retained) -> dict[str, object]:
    """A run's outcome as JSON-ready values."""
    return {
        "archived": [
            {"month": f"{month:%Y-%m}", "destination": destination, "attempts": count}
            for (month, destination), count in sorted(done.archived.items())
        ],
        "stay_legally_held": done.stay_held,
        "stay_not_ended": done.stay_open,
        "dropped": [f"{month:%Y-%m}" for month in done.dropped],
        "expired_archives": done.expired,
        "rows": done.rows,
        "bytes": done.bytes,
        "took_s": round(done.took_s, 3),
    }


class Housekeeper:
    """Retains once a day where the policy says ``automatic``, in a thread of its own: it may take long, and can be killed."""

    def __init__(self, engine: Engine, data_dir: Path) -> None:
        self._engine = engine
        self._data_dir = data_dir
        self._thread: threading.Thread | None = None

    def tick(self) -> bool:
        """Begin a run if one is due; whether it did."""
        policy = applied(self._engine)
        if not policy.keeping.automatic or (self._thread is not None and self._thread.is_alive()):
            return False
        if not retention_is_due(self._engine, DAILY):
            return False
        self._thread = threading.Thread(target=self._run, args=(policy,), name="retaining", daemon=True)
        self._thread.start()
        return True

    def _run(self, policy: Policy) -> None:
        try:
            folder = archive_folder(policy, self._data_dir)
            run(self._engine, policy, folder, lambda _: None, who="housekeeping", reason="automatic")
        except KeepingElsewhereError:
            log.info("retention.elsewhere")
        except Exception as error:
            log.error("retention.failed", error=f"{type(error).__name__}: {getattr(error, 'orig', error)}")
