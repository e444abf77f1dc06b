"""The demo's stage: a sink that plays the networks, Holdfire running beside it, and the hand that pulls plugs."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Self

from sqlalchemy import Engine, text

from infra.db.engine import open_engine
from infra.demo import sample
from infra.embedded import Engines, empty_broker_on_restart, use_engines
from infra.sink import SinkClient

LEASE_S = 4.0
SAMPLE_KEY = "sample-key-not-a-secret-9f2c"
"""A sample: the sink lets it in, no network would."""
KNOREX_NAMES = ["Loan Approved"]


class DemoError(RuntimeError):
    """The demo could not be set up or did not come to an end in time. Says where to look."""


class Stage:
    """Everything the demo runs, in a folder of its own. Leaving it ends every process it started."""

    def __init__(self, folder: Path, expected: sample.Sample) -> None:
        self.folder = folder
        self._expected = expected
        self._processes: list[subprocess.Popen[bytes]] = []
        self._engines: Engines
        self.engine: Engine
        self.sink: SinkClient
        self.environment: Mapping[str, str]

    def __enter__(self) -> Self:
        shutil.rmtree(self.folder, ignore_errors=True)
        self.folder.mkdir(parents=True)
        try:
            self.sink = self._start_sink()
            self.environment = self._environment()
            self._engines = use_engines(self.folder / "data")
            self.engine = open_engine(self._engines.database_url)
            self._start("up", "up", "--workers", "2", "--lease", str(LEASE_S))
            self.wait("Holdfire to be up", self._is_up, timeout_s=30)
        except BaseException:
            self._end_processes()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end_processes()
        self.engine.dispose()
        self._engines.release()

    def command(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run one ``holdfire`` command to its end and give what it printed."""
        return subprocess.run(  # noqa: S603 — our own command
            [sys.executable, "-m", "holdfire", *arguments],
            env=dict(self.environment),
            capture_output=True,
            text=True,
            check=False,
            stdin=subprocess.DEVNULL,
        )

    def begin(self, *arguments: str) -> subprocess.Popen[bytes]:
        """Start a ``holdfire`` command beside the others; its output goes to a log named after its last argument."""
        return self._start(Path(arguments[-1]).stem, *arguments)

    def wait(self, what: str, condition: Callable[[], bool], timeout_s: float) -> None:
        """Wait for a condition. Raises ``DemoError`` naming it."""
        end = time.monotonic() + timeout_s
        while not condition():
            if time.monotonic() > end:
                raise DemoError(f"waited {timeout_s:.0f} s for {what} in vain; the logs are in {self.folder}")
            time.sleep(0.05)

    def count(self, query: str) -> int:
        with self.engine.connect() as connection:
            return int(connection.execute(text(query)).scalar_one())

    def kill_a_firing_worker(self) -> str:
        """SIGKILL the worker that has an attempt on the wire right now. Returns its name."""
        with self.engine.connect() as connection:
            worker: str = connection.execute(
                text("""
                SELECT i.worker FROM postbacks p JOIN intents i ON i.attempt_id = p.attempt_id
                WHERE p.state = 'firing' ORDER BY i.intent_at LIMIT 1""")
            ).scalar_one()
        os.kill(int(worker.rpartition(":")[2]), signal.SIGKILL)
        return worker

    def kill_and_empty_the_broker(self) -> None:
        """SIGKILL the broker, its queues with it; its keeper starts it again, empty."""
        pid = self._engines.valkey_pid
        empty_broker_on_restart(self.folder / "data")
        if pid is not None:
            os.kill(pid, signal.SIGKILL)

    def _is_up(self) -> bool:
        with self.engine.connect() as connection:
            if connection.execute(text("SELECT to_regclass('destination_versions')")).scalar_one() is None:
                return False
            return bool(connection.execute(text("SELECT count(*) FROM destination_versions")).scalar_one())

    def _start_sink(self) -> SinkClient:
        config = self.folder / "sink.json"
        issued: dict[str, list[str]] = {}
        for one in self._expected.postbacks:
            issued.setdefault(one.network, []).append(one.click_id)
        profiles: dict[str, dict[str, object]] = {name: {"issued": ids} for name, ids in issued.items()}
        profiles["knorex-xpo"] |= {"events": KNOREX_NAMES, "duplicates": "rejected"}
        profiles["ezmob"] |= {"keys": [SAMPLE_KEY], "duplicates": "ignored"}
        rules = [
            {"match": {"every_click_id": 7}, "behave": "unavailable:1", "times": 1},
            {"match": {"one_in": 23}, "behave": "reset-counted", "times": 1},
            {"match": {"one_in": 29}, "behave": "late:4", "times": 1},
            # Not at Xandr: its 200 in place of the redirect would count nothing, and nobody could tell.
            {"match": {"profile": "ezmob", "one_in": 19}, "behave": "gzip-truncated", "times": 1},
        ]
        config.write_text(json.dumps({"profiles": profiles, "rules": rules}))
        port_file = self.folder / "sink.port"
        self._start(
            "sink", "sink", "--port", "0", "--port-file", str(port_file), "--config", str(config), "--quiet"
        )
        self.wait("the sink to listen", port_file.exists, timeout_s=20)
        return SinkClient(f"http://127.0.0.1:{port_file.read_text().strip()}")

    def _environment(self) -> dict[str, str]:
        config = self.folder / "holdfire.toml"
        template = (sample.HERE / "holdfire.toml").read_text("utf-8")
        config.write_text(template.replace("@SINK@", self.sink.url), "utf-8")
        # The demo kills engines: never those that somebody's environment names.
        own = {name: value for name, value in os.environ.items() if not name.startswith("HOLDFIRE_")}
        return own | {
            "HOLDFIRE_DATA_DIR": str(self.folder / "data"),
            "HOLDFIRE_CONFIG": str(config),
            "HOLDFIRE_LOG_FORMAT": "json",
            "DEMO_EZMOB_KEY": SAMPLE_KEY,
        }

    def _start(self, log: str, *arguments: str) -> subprocess.Popen[bytes]:
        environment = dict(getattr(self, "environment", os.environ))
        with (self.folder / f"{log}.log").open("wb") as output:
            process = subprocess.Popen(  # noqa: S603 — our own command
                [sys.executable, "-m", "holdfire", *arguments],
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self._processes.append(process)
        return process

    def _end_processes(self) -> None:
        for process in reversed(self._processes):
            if process.poll() is None:
                process.terminate()
                try:
                    process.wait(45)
                except subprocess.TimeoutExpired:
                    process.kill()
                    process.wait()
