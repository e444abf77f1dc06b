"""Using the engines: who holds an :class:`Engines` keeps them running.

The hold is a shared file lock of this process. It ends with :meth:`Engines.release` or with the process,
however that ends. A forked child does not inherit it (or a forgotten child would keep the engines for ever):
it calls :func:`use_engines` itself.
"""

import json
import os
import select
import subprocess
import sys
import threading
import time
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import IO, Self

from infra.embedded.engine import HOST, READY_WITHIN_S
from infra.embedded.errors import EngineError, log_tail
from infra.embedded.folders import EngineName, Folders, State
from infra.embedded.locks import is_held, locked, take_lock
from infra.embedded.postgres import DATABASE, ROLE

# Longer than a keeper's own patience, so that its reason is heard rather than ours.
_PATIENCE_S = READY_WITHIN_S + 60.0
_CODE_ROOT = Path(__file__).parents[2]


@dataclass
class _Hold:
    descriptor: int
    holders: int


_holds: dict[Folders, _Hold] = {}
_guard = threading.RLock()


class Engines:
    """Running engines, kept running until released. A context manager."""

    def __init__(self, data_dir: Path, names: tuple[EngineName, ...]) -> None:
        """Called by use_engines alone."""
        self.data_dir = data_dir
        self._folders = {name: Folders(data_dir, name) for name in names}
        self._pid = os.getpid()
        self._released = False

    @property
    def database_url(self) -> str:
        """SQLAlchemy's URL of the embedded PostgreSQL; stays valid when the server is restarted."""
        port = self._state("postgres").port
        return f"postgresql+psycopg2://{ROLE}:{self._password('postgres')}@{HOST}:{port}/{DATABASE}"

    @property
    def broker_url(self) -> str:
        """The URL of the embedded Valkey; stays valid when the server is restarted."""
        return f"redis://:{self._password('valkey')}@{HOST}:{self._state('valkey').port}/0"

    @property
    def postgres_pid(self) -> int | None:
        """The postmaster's pid now; None while it is being restarted."""
        return self._state("postgres").pid

    @property
    def valkey_pid(self) -> int | None:
        """Valkey's pid now; None while it is being restarted."""
        return self._state("valkey").pid

    @property
    def postgres_version(self) -> str:
        """The version of the running PostgreSQL."""
        return self._state("postgres").version

    @property
    def valkey_version(self) -> str:
        """The version of the running Valkey."""
        return self._state("valkey").version

    def release(self) -> None:
        """Give up this hold; the engines stop with the last one. Harmless if repeated or called after a fork."""
        if self._released or self._pid != os.getpid():
            return
        self._released = True
        with _guard:
            for folders in self._folders.values():
                _let_go(folders)

    def __enter__(self) -> Self:
        """Return the engines."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Release the engines."""
        self.release()

    def _state(self, name: EngineName) -> State:
        state = self._of(name).read_state()
        if state is None:
            raise EngineError(f"{self._of(name).run} is gone", "start Holdfire again")
        return state

    def _password(self, name: EngineName) -> str:
        password = self._of(name).read_password()
        if password is None:
            raise EngineError(f"{name}'s password in {self._of(name).run} is gone", "start Holdfire again")
        return password

    def _of(self, name: EngineName) -> Folders:
        try:
            return self._folders[name]
        except KeyError:
            raise EngineError(f"{name} was not asked for", f"call use_engines with {name}=True") from None


def use_engines(
    data_dir: Path, *, postgres: bool = True, valkey: bool = True, linger_s: float = 2.0
) -> Engines:
    """Start the engines of ``data_dir``, or join those that run; returns when they answer.

    ``linger_s`` is how long an engine outlives its last user; the process that starts it decides. Calls add up
    within a process, and each is released on its own. Raises EngineError with the reason and a remedy.
    """
    asked: dict[EngineName, bool] = {"postgres": postgres, "valkey": valkey}
    names = tuple(name for name, wanted in asked.items() if wanted)
    data_dir = data_dir.absolute()
    every = [Folders(data_dir, name) for name in names]
    try:
        with _guard:
            _join(every, linger_s)
    except OSError as error:
        raise EngineError(
            f"the engines' files cannot be used by uid {os.geteuid()}: {error}",
            f"run Holdfire as the owner of {data_dir}, or set HOLDFIRE_DATA_DIR to a folder of your own",
        ) from error
    return Engines(data_dir, names)


def _join(wanted: list[Folders], linger_s: float) -> None:
    with ExitStack() as starting, ExitStack() as undo:
        keepers = []
        for folders in wanted:  # always in the same order, so that two starters never wait for each other
            folders.create()
            starting.enter_context(locked(folders.lock("start"), within_s=_PATIENCE_S))
            _take_hold(folders)
            undo.callback(_let_go, folders)
            if not is_held(folders.lock("keeper")):
                keepers.append((folders, starting.enter_context(_start_keeper(folders, linger_s))))
        for folders, report in keepers:
            _read_report(folders, report)
        for folders in wanted:
            _wait_until_serving(folders)
        undo.pop_all()


def _take_hold(folders: Folders) -> None:
    if folders in _holds:
        _holds[folders].holders += 1
    else:
        # Waits while a keeper that found no user is stopping its engine.
        descriptor = take_lock(folders.lock("users"), shared=True, within_s=_PATIENCE_S)
        _holds[folders] = _Hold(descriptor, 1)


def _let_go(folders: Folders) -> None:
    hold = _holds[folders]
    hold.holders -= 1
    if hold.holders == 0:
        os.close(_holds.pop(folders).descriptor)


def _start_keeper(folders: Folders, linger_s: float) -> IO[bytes]:
    command = [sys.executable, "-P", "-m", "infra.embedded.keeper"]
    path = os.pathsep.join(filter(None, [str(_CODE_ROOT), os.environ.get("PYTHONPATH")]))
    keeper = subprocess.Popen(  # noqa: S603 — this very program
        [*command, str(folders.data_dir), folders.name, str(linger_s)],
        cwd=folders.data_dir,
        env=os.environ | {"PYTHONPATH": path},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        start_new_session=True,  # a Ctrl-C in this terminal is for us, not for the engines
    )
    assert keeper.stdout is not None
    keeper.wait()
    return keeper.stdout


def _read_report(folders: Folders, report: IO[bytes]) -> None:
    ready, _, _ = select.select([report], [], [], _PATIENCE_S)
    line = report.readline() if ready else b""
    if not line:
        raise EngineError(
            f"the {folders.name} keeper died or hung while it started",
            f"read {folders.keeper_log} and {folders.log}",
            log_tail(folders.keeper_log),
        )
    told = json.loads(line)
    if told:
        raise EngineError(told["reason"], told["remedy"], told["log"])


def _wait_until_serving(folders: Folders) -> None:
    """Wait out a restart that the keeper is busy with."""
    deadline = time.monotonic() + _PATIENCE_S
    while True:
        state = folders.read_state()
        if state is not None and state.pid is not None:
            return
        if time.monotonic() > deadline or not is_held(folders.lock("keeper")):
            raise EngineError(
                f"{folders.name} ended and has not come back",
                f"read {folders.keeper_log} and {folders.log}",
                log_tail(folders.log),
            )
        time.sleep(0.02)


def _forget_holds() -> None:
    """In a forked child: close the parent's locks (which leaves them held by the parent) and begin anew."""
    global _guard  # noqa: PLW0603 — a lock that another thread of the parent held stays locked in the child
    _guard = threading.RLock()
    for hold in _holds.values():
        os.close(hold.descriptor)
    _holds.clear()


os.register_at_fork(after_in_child=_forget_holds)
