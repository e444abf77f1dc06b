"""Everything on one machine: engines, tables, destinations, one clock and the workers, kept running until told to end."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import FrameType

import structlog

from infra.supervised import SUPERVISED

log = structlog.get_logger()

STOP_WAIT_S = 40.0
LONGEST_PAUSE_S = 10.0
STEADY_S = 20.0
"""A child that ran this long before it ended is started again at once."""


@dataclass(slots=True)
class Child:
    """A process to keep running: its name in the logs and its command's arguments after ``holdfire``."""

    name: str
    arguments: tuple[str, ...]
    process: subprocess.Popen[bytes] | None = None
    started_at: float = 0.0
    start_again_at: float = 0.0
    pause_s: float = 0.0


@dataclass(slots=True)
class Supervisor:
    """Starts children, starts them again when they end, and ends them together."""

    children: list[Child]
    environment: Mapping[str, str] = field(default_factory=dict)
    _stopping: threading.Event = field(default_factory=threading.Event)

    def run(self, on_start: Callable[[], None] = lambda: None) -> None:
        """Keep the children running until SIGINT, SIGTERM or ``stop``; then end them and return."""
        before = {
            number: signal.signal(number, self._on_signal) for number in (signal.SIGINT, signal.SIGTERM)
        }
        try:
            self._start_due()
            on_start()
            while not self._stopping.wait(0.2):
                self._start_due()
        finally:
            self._end_all()
            for number, handler in before.items():
                signal.signal(number, handler)

    def stop(self) -> None:
        self._stopping.set()

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        self._stopping.set()

    def _start_due(self) -> None:
        now = time.monotonic()
        for child in self.children:
            if child.process is not None and (code := child.process.poll()) is not None:
                steady = now - child.started_at > STEADY_S
                child.pause_s = 0.0 if steady else min(max(0.5, child.pause_s * 2), LONGEST_PAUSE_S)
                child.start_again_at = now + child.pause_s
                child.process = None
                log.warning("process.ended", name=child.name, code=code, again_in_s=child.pause_s)
            if child.process is None and now >= child.start_again_at:
                child.process = self._start(child)
                child.started_at = now

    def _start(self, child: Child) -> subprocess.Popen[bytes]:
        # A session of its own: Ctrl-C in the terminal is for the supervisor, who then ends the children in order.
        process = subprocess.Popen(  # noqa: S603 — our own command
            [sys.executable, "-m", "holdfire", *child.arguments],
            env={**os.environ, **self.environment, SUPERVISED: str(os.getpid())},
            start_new_session=True,
            stdin=subprocess.DEVNULL,
        )
        log.info("process.started", name=child.name, pid=process.pid)
        return process

    def _end_all(self) -> None:
        running = [child.process for child in self.children if child.process is not None]
        for process in running:
            if process.poll() is None:
                process.terminate()
        end = time.monotonic() + STOP_WAIT_S
        for process in running:
            try:
                process.wait(max(0.1, end - time.monotonic()))
            except subprocess.TimeoutExpired:
                log.error("process.killed", pid=process.pid, reason=f"did not end within {STOP_WAIT_S:.0f} s")
                process.kill()
                process.wait()


def children(
    workers: int,
    lease_s: float | None = None,
    door_port: int | None = None,
    console_port: int | None = None,
) -> list[Child]:
    """One clock and ``workers`` worker processes; the door and the console as well, if they get ports of this machine."""
    lease = () if lease_s is None else ("--lease", str(lease_s))
    served = [
        Child(name, ("serve", name, "--port", str(port)))
        for name, port in (("door", door_port), ("console", console_port))
        if port is not None
    ]
    return [Child("clock", ("clock",)), *served] + [
        Child(f"worker {number}", ("work", *lease)) for number in range(1, workers + 1)
    ]
