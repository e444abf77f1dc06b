"""The clock's way of being told to end."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from types import SimpleNamespace

import pytest

from workers.ticking import Clock


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_that_comes_where_exceptions_are_swallowed_still_ends_the_clock(
    number: signal.Signals,
) -> None:
    """Celery's own handler raises SystemExit, which such a place loses; ours leaves word."""
    service = SimpleNamespace(_is_shutdown=threading.Event(), sync=lambda: None)
    before = {each: signal.getsignal(each) for each in (signal.SIGTERM, signal.SIGINT)}
    try:
        Clock.install_sync_handler(SimpleNamespace(), service)
        with contextlib.suppress(BaseException):
            os.kill(os.getpid(), number)
        assert service._is_shutdown.wait(5)
    finally:
        for each, handler in before.items():
            signal.signal(each, handler)
