"""Runs of replays that this console goes on with: a thread each, while there is something left to look at.

A run belongs to the database, not to the thread: if this process ends, its page offers to go on, and so does the command line.
"""

from __future__ import annotations

import threading

import structlog
from sqlalchemy import Engine
from sqlalchemy.exc import SQLAlchemyError

from infra.store.replays import replaying
from schemas.ids import show

log = structlog.get_logger()

_going: set[int] = set()
_lock = threading.Lock()


def is_going(run_id: int) -> bool:
    """Whether a thread of this process goes on with it."""
    with _lock:
        return run_id in _going


def go_on(engine: Engine, run_id: int) -> None:
    """Go on with a run in the background, unless this process does already."""
    with _lock:
        if run_id in _going:
            return
        _going.add(run_id)
    threading.Thread(target=_advance, args=(engine, run_id), name=show("rn", run_id), daemon=True).start()


def _advance(engine: Engine, run_id: int) -> None:
    try:
        while True:
            run = replaying.advance(engine, run_id)
            if run.halted or run.ended_at is not None:
                return
    except SQLAlchemyError as error:
        # Its page says that nobody goes on with it, and offers to.
        log.warning("replay.broken_off", run=show("rn", run_id), kind=type(error).__name__)
    finally:
        with _lock:
            _going.discard(run_id)
