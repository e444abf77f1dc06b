"""The keeper: a small process that starts one engine, restarts it if it dies, and stops it with its last user.

Run as ``python -m infra.embedded.keeper DATA_DIR NAME LINGER_S`` by :mod:`infra.embedded.use`, which reads one
JSON line from its standard output: ``{}`` once the engine answers, or the reason why it doesn't.
"""

import json
import os
import signal
import sys
import threading
import time
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path

from infra.embedded.engine import Engine, Server, adopt, launch
from infra.embedded.errors import EngineError
from infra.embedded.folders import EngineName, Folders, State
from infra.embedded.locks import open_lock, take_lock, try_lock, unlock
from infra.embedded.postgres import Postgres
from infra.embedded.valkey import Valkey

_TICK_S = 0.1
_LONGEST_PAUSE_S = 10.0


class Keeper:
    """Keeps one engine for as long as somebody uses it."""

    def __init__(self, folders: Folders, linger_s: float, told_to_stop: threading.Event) -> None:
        """``linger_s`` is how long the engine outlives its last user, so that the next need not wait."""
        self._folders = folders
        self._linger_s = linger_s
        self._told_to_stop = told_to_stop
        self._unused_since: float | None = None
        self._retry_at = 0.0
        self._pause_s = _TICK_S
        self._lock = take_lock(folders.lock("keeper"), within_s=5.0)
        self._users = open_lock(folders.lock("users"))
        self._engine: Engine = Postgres(folders) if folders.name == "postgres" else Valkey(folders)
        self._server, self._port = self._begin()

    def _begin(self) -> tuple[Server, int]:
        last = self._folders.read_state()
        port = last.port if last else None
        server = adopt(self._engine, port)
        if server is not None and port is not None:
            self._say(f"adopted pid {server.pid} on port {port}")
            return server, port
        server, port = launch(self._engine, port, may_move=True)
        self._say(f"started {self._engine.version} as pid {server.pid} on port {port}")
        return server, port

    def watch(self) -> None:
        """Restart the server whenever it ends; return once it is told to stop or nobody uses the engine."""
        while not self._told_to_stop.is_set() and not self._unused():
            if not self._server.alive() and time.monotonic() >= self._retry_at:
                self._restart()
            time.sleep(_TICK_S)

    def end(self) -> None:
        """Stop the server cleanly and let the next keeper in; the users' lock goes with this process."""
        self._server.stop()
        self._say(f"stopped pid {self._server.pid}")
        state = self._folders.read_state()
        # If the data folder was removed and made anew meanwhile, this is another keeper's.
        if state is not None and state.keeper_pid == os.getpid():
            self._folders.write_state(State(self._port, None, os.getpid(), self._engine.version))
        os.close(self._lock)

    def _restart(self) -> None:
        self._say(f"pid {self._server.pid} ended; starting it again")
        try:
            self._server, _ = launch(self._engine, self._port, may_move=False)
        except (EngineError, OSError) as error:
            # Its users wait for this very port: there is nothing better than to try again.
            self._say(f"{error}; next try in {self._pause_s:.1f} s")
            self._retry_at = time.monotonic() + self._pause_s
            self._pause_s = min(self._pause_s * 2, _LONGEST_PAUSE_S)
        else:
            self._say(f"restarted as pid {self._server.pid}")
            self._pause_s = _TICK_S

    def _unused(self) -> bool:
        """Say whether the engine has had no user for the linger time; if so, its users' lock is now ours."""
        if not self._folders.lock("users").exists():
            return True  # somebody removed the data folder
        if not try_lock(self._users):
            self._unused_since = None
            return False
        now = time.monotonic()
        self._unused_since = now if self._unused_since is None else self._unused_since
        if now - self._unused_since >= self._linger_s:
            return True
        unlock(self._users)
        return False

    def _say(self, text: str) -> None:
        now = datetime.now(UTC).isoformat(timespec="milliseconds")
        line = f"{now} {self._folders.name} keeper {os.getpid()}: {text}\n"
        with suppress(OSError):  # a full disk must not end the keeper
            os.write(2, line.encode())


def main(data_dir: str, name: EngineName, linger_s: str) -> int:
    """Become a daemon, start the engine, report, and watch; returns the process's exit status."""
    if os.fork() > 0:
        os._exit(0)  # whoever asked reaps this process at once and never has the keeper for a child
    folders = Folders(Path(data_dir), name)
    os.umask(0o077)
    report = os.dup(1)
    log = folders.open_log(folders.keeper_log)
    os.dup2(log, 1)
    os.dup2(log, 2)
    told_to_stop = threading.Event()
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    # From the start: a keeper that ended between starting its server and watching it would leave it behind.
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda _number, _frame: told_to_stop.set())
    try:
        keeper = Keeper(folders, float(linger_s), told_to_stop)
    except EngineError as error:
        told = {"reason": error.reason, "remedy": error.remedy, "log": error.log}
    except OSError as error:
        told = {"reason": str(error), "remedy": f"check the rights and the space in {data_dir}", "log": ""}
    else:
        told = {}
    with suppress(BrokenPipeError):  # who asked may be gone; the engine then stops for want of users
        os.write(report, json.dumps(told).encode() + b"\n")
    os.close(report)
    if told:
        return 1
    keeper.watch()
    keeper.end()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], "postgres" if sys.argv[2] == "postgres" else "valkey", sys.argv[3]))
