"""What is there and what runs, for ``holdfire doctor``. Starts nothing and changes nothing."""

import socket
from dataclasses import dataclass
from pathlib import Path

from infra.embedded.binaries import Binary, find_binary
from infra.embedded.engine import HOST
from infra.embedded.errors import EngineError
from infra.embedded.folders import EngineName, Folders, State
from infra.embedded.locks import is_held


@dataclass(frozen=True)
class EngineStatus:
    """One engine: ``problem`` says what is wrong and what to do, or is None."""

    name: EngineName
    running: bool
    kept: bool
    """Whether a keeper watches it: a running server without one is adopted by the next user."""
    pid: int | None
    port: int | None
    version: str | None
    """The running server's version."""
    binary: Binary | None
    """The program that would be started, with its version."""
    problem: str | None


@dataclass(frozen=True)
class EnginesStatus:
    """Both engines of one installation."""

    data_dir: Path
    postgres: EngineStatus
    valkey: EngineStatus


def engines_status(data_dir: Path) -> EnginesStatus:
    """Look at the engines of ``data_dir`` and at the programs found for them."""
    data_dir = data_dir.absolute()
    return EnginesStatus(
        data_dir, _status(Folders(data_dir, "postgres")), _status(Folders(data_dir, "valkey"))
    )


def _status(folders: Folders) -> EngineStatus:
    binary, problem = None, None
    try:
        binary = find_binary(folders.name)
    except EngineError as error:
        problem = str(error)
    try:
        kept = is_held(folders.lock("keeper"))
        state = folders.read_state() if is_held(folders.lock("server")) else None
    except PermissionError as error:
        kept, state, problem = False, None, f"{error}; run this as the owner of {folders.data_dir}"
    running = state is not None and state.pid is not None and _listens(state.port)
    shown = state if running else None
    return EngineStatus(folders.name, running, kept, *_where(shown), binary, problem)


def _where(state: State | None) -> tuple[int | None, int | None, str | None]:
    return (state.pid, state.port, state.version) if state else (None, None, None)


def _listens(port: int) -> bool:
    try:
        socket.create_connection((HOST, port), timeout=1).close()
    except OSError:
        return False
    return True
