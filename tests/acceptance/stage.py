"""An installation of its own, and real processes on it that a test may kill."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

from sqlalchemy import Engine

from infra.embedded import Engines
from infra.store import ledger
from tests.integration.ground import Ground, generic_url

LEASE_S = 2.0
HOLD = {"kind": "refund", "wait": "1d"}
NOWHERE = generic_url("http://127.0.0.1:9")


@dataclass
class Stage:
    """An installation in a folder of its own, and the processes that a test runs on it."""

    folder: Path
    engines: Engines
    engine: Engine
    processes: list[subprocess.Popen[bytes]] = field(default_factory=list)

    @property
    def data_dir(self) -> Path:
        return self.folder / "data"

    @property
    def log(self) -> str:
        return (self.folder / "log").read_text("utf-8")

    def start(self, *arguments: str) -> subprocess.Popen[bytes]:
        """A ``holdfire`` command in a process of its own."""
        own = {name: value for name, value in os.environ.items() if not name.startswith("HOLDFIRE_")}
        with (self.folder / "log").open("ab") as output:
            process = subprocess.Popen(
                [sys.executable, "-m", "holdfire", *arguments],
                env=own
                | {
                    "HOLDFIRE_DATA_DIR": str(self.data_dir),
                    "HOLDFIRE_CONFIG": str(self.folder / "none.toml"),
                    "HOLDFIRE_LOG_FORMAT": "json",
                },
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self.processes.append(process)
        return process

    def worker(self) -> subprocess.Popen[bytes]:
        return self.start("work", "--lease", str(LEASE_S))

    def clock(self) -> subprocess.Popen[bytes]:
        return self.start("clock")

    def end(self) -> None:
        """End what still runs, and let the next test begin with an empty broker."""
        for process in self.processes:
            process.terminate()
        for process in self.processes:
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        self.processes.clear()


def kill(pid: int | None) -> None:
    assert pid is not None
    os.kill(pid, signal.SIGKILL)


def balances(ground: Ground) -> bool:
    """Every routed conversion's postbacks stand in exactly one state, and every event was counted once."""
    postbacks = sum(ground.states().values())
    routed = ground.one("SELECT coalesce(sum(routed), 0) FROM conversions")
    return bool(postbacks == routed) and ledger.read_ledger(ground.engine).balances
