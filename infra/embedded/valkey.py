"""Valkey as an embedded engine: its configuration, its signs of life, and how it is emptied."""

import shutil
import signal
import socket

from infra.embedded.account import Account, give_home
from infra.embedded.binaries import Binary, find_binary
from infra.embedded.engine import HOST, ensure_password
from infra.embedded.folders import Folders

_CONFIGURATION = """\
bind {host}
port {port}
protected-mode yes
requirepass {password}
dir {home}
daemonize no
logfile ""
databases 16
# A queue that forgets is no queue: nothing is evicted, and what is taken is on the disk within a second.
appendonly yes
appendfsync everysec
aof-load-truncated yes
save ""
maxmemory-policy noeviction
"""


class Valkey:
    """The Valkey of one installation."""

    stop_signals: tuple[int, int] = (
        signal.SIGTERM,
        signal.SIGKILL,
    )  # SIGTERM writes the append-only file out first

    def __init__(self, folders: Folders) -> None:
        """Find the program and the account; raises EngineError if either is missing."""
        self.folders = folders
        self._binary: Binary = find_binary("valkey")
        self.version = self._binary.version
        self._account: Account = give_home(folders.home, self._binary.path)
        self._password = ensure_password(folders)

    def prepare(self) -> None:
        """Remove what was kept, if that was asked for."""
        if self.folders.empty_marker.exists():
            for kept in self.folders.home.iterdir():
                shutil.rmtree(kept) if kept.is_dir() and not kept.is_symlink() else kept.unlink()
            self.folders.empty_marker.unlink()

    def command(self, port: int) -> tuple[list[str], bytes]:
        """The server's command; its configuration goes in by standard input, so the password is in no list."""
        home = str(self.folders.home).replace("\\", "\\\\").replace('"', '\\"')
        configuration = _CONFIGURATION.format(host=HOST, port=port, password=self._password, home=f'"{home}"')
        return [*self._account.prefix, str(self._binary.path), "-"], configuration.encode()

    def serving(self, port: int) -> int | None:
        """The server's pid if it takes our password on this port and has read its files."""
        try:
            with socket.create_connection((HOST, port), timeout=1) as wire:
                wire.settimeout(2)
                wire.sendall(f"AUTH {self._password}\r\nPING\r\nINFO server\r\nQUIT\r\n".encode())
                with wire.makefile("rb") as answers:
                    said = answers.read()
        except OSError:
            return None
        # While it loads its files, it answers PING with -LOADING.
        if not said.startswith(b"+OK\r\n+PONG\r\n"):
            return None
        _, _, rest = said.partition(b"process_id:")
        pid, _, _ = rest.partition(b"\r\n")
        return int(pid) if pid.isdigit() else None
