"""Reconciliations that this console is carrying out, a thread each, and how far they are.

What a reconciliation came to is in the database. If this process ends before, the report is reconciled anew: it is
idempotent, and its file is kept.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass, replace

import structlog
from sqlalchemy import Engine
from sqlalchemy.exc import SQLAlchemyError

from investigations.console.uploads import Upload, forget
from investigations.reconcile.running import ReconcileError, reconcile
from schemas.cells import MappingError
from schemas.reconciling.options import ReportOptions

log = structlog.get_logger()

STAGES = {
    "waiting": "waiting for its turn",
    "reading": "reading the report",
    "gathering": "gathering our side",
    "pairing": "pairing rows and postbacks",
    "judging": "judging what differs",
    "marking": "marking what is counted",
}


@dataclass(frozen=True, slots=True)
class Work:
    """How far one reconciliation is. It has ended once there is a ``report_id`` or it ``failed``, in words."""

    stage: str = "waiting"
    done: int = 0
    report_id: int | None = None
    failed: str | None = None

    @property
    def words(self) -> str:
        return STAGES.get(self.stage, self.stage)


_works: dict[str, Work] = {}
_lock = threading.Lock()
_one_at_a_time = threading.Lock()
"""Each takes some hundred megabytes and a core."""


def work_on(token: str) -> Work | None:
    """How far the upload's reconciliation is; None where this process has none."""
    with _lock:
        return _works.get(token)


def begin(engine: Engine, upload: Upload, options: ReportOptions, who: str) -> None:
    """Reconcile in the background, unless this process is at it already."""
    with _lock:
        known = _works.get(upload.token)
        if known is not None and known.failed is None:
            return
        _works[upload.token] = Work()
    name = f"reconcile {upload.name}"
    threading.Thread(target=_run, args=(engine, upload, options, who), name=name, daemon=True).start()


def _run(engine: Engine, upload: Upload, options: ReportOptions, who: str) -> None:
    def progress(stage: str, done: int) -> None:
        _note(upload.token, stage=stage, done=done)

    with _one_at_a_time:
        try:
            number = reconcile(
                engine, upload.destination, upload.path, options, who, progress, name=upload.name
            )
        except (MappingError, ReconcileError) as error:
            _note(upload.token, failed=str(error))
        except (SQLAlchemyError, OSError) as error:
            log.exception("reconcile.failed", destination=upload.destination, exc_info=error)
            _note(
                upload.token, failed="The database or the disk did not answer; the console's log says more."
            )
        else:
            _note(upload.token, report_id=number)
            forget(upload)


def _note(token: str, **changed: object) -> None:
    with _lock:
        _works[token] = replace(_works[token], **changed)  # type: ignore[arg-type]  # the callers name the fields
