"""Processes that somebody keeps running: they end with their supervisor, however it went."""

from __future__ import annotations

import os
import signal
import threading
import time

SUPERVISED = "HOLDFIRE_SUPERVISED"
"""Set for children: they end by themselves when their supervisor is gone, however it went."""


def end_with_supervisor() -> None:
    """In a supervised child: end when the supervisor is gone (it was killed and could not say so)."""
    supervisor = os.environ.get(SUPERVISED)
    if not supervisor or os.getppid() != int(supervisor):
        return

    def watch() -> None:
        while os.getppid() == int(supervisor):
            time.sleep(0.5)
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=watch, name="supervisor watch", daemon=True).start()
