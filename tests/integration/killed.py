"""Run retention or an erasure in a process of its own, which dies by SIGKILL at a step of its work.

Called as ``python -m tests.integration.killed URL FOLDER WHAT STEP WHEN NTH``: before or after the NTH call of a step.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from datetime import timedelta
from importlib import import_module
from pathlib import Path
from typing import Any

from infra.db.engine import open_engine
from infra.store.keeping.erasing import Order
from schemas.keeping import Keeping, Policy
from workers import erasing, retaining

SMALL_BLOCK, SMALL_PART = 3, 7
KEEP = Policy(Keeping(evidence=timedelta(days=365)), {"forever": None})
EVERYTHING = Policy(KEEP.keeping, {})


def main(url: str, folder: str, what: str, step: str, when: str, nth: str) -> None:  # noqa: PLR0917 — as the shell gives them
    """Die at the step, or end without having met it."""
    retaining.PER_BLOCK, retaining.PER_PART = SMALL_BLOCK, SMALL_PART
    owner, _, name = step.rpartition(".")
    module, _, type_name = owner.partition(":")
    target: Any = import_module(module)
    target = getattr(target, type_name) if type_name else target
    setattr(target, name, _deadly(getattr(target, name), when, int(nth)))
    engine = open_engine(url)
    if what.startswith("retain"):
        retaining.retain(engine, KEEP if what == "retain" else EVERYTHING, Path(folder))
    else:
        erasing.erase(engine, Order("order", what, "dpo", "a request"))


def _deadly(step: Callable[..., Any], when: str, nth: int) -> Callable[..., Any]:
    calls = 0

    def run(*arguments: Any, **named: Any) -> Any:
        nonlocal calls
        calls += 1
        if when == "before" and calls == nth:
            os.kill(os.getpid(), signal.SIGKILL)
        result = step(*arguments, **named)
        if when == "after" and calls == nth:
            os.kill(os.getpid(), signal.SIGKILL)
        return result

    return run


if __name__ == "__main__":
    main(*sys.argv[1:])
