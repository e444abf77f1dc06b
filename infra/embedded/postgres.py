"""PostgreSQL as an embedded engine: its cluster, its settings, its signs of life."""

import os
import shutil
import signal
import socket
import subprocess
import sys
from pathlib import Path

from infra.embedded.account import Account, give_home
from infra.embedded.binaries import Binary, find_binary
from infra.embedded.engine import HOST, ensure_password
from infra.embedded.errors import EngineError
from infra.embedded.folders import Folders, sync_folder

ROLE = "holdfire"
DATABASE = "holdfire"

# For two cores, a queue in tables, and evidence that must outlive a power cut.
_SETTINGS = {
    "listen_addresses": HOST,
    # A socket's path may be at most 107 bytes long, and a clone may lie deeper than that.
    "unix_socket_directories": "",
    "password_encryption": "scram-sha-256",
    "max_connections": "100",
    "fsync": "on",
    "synchronous_commit": "on",
    "shared_buffers": "256MB",
    "huge_pages": "off",
    "max_wal_size": "2GB",
    "checkpoint_timeout": "15min",
    # Queue tables die young: rows are updated several times and must not wait long for their vacuum.
    "autovacuum_naptime": "10s",
    "autovacuum_vacuum_cost_delay": "0",
    "random_page_cost": "1.1",
    "jit": "off",
    "track_commit_timestamp": "off",
    "timezone": "UTC",
    "log_timezone": "UTC",
    # To standard error, which the keeper points at the log file.
    "logging_collector": "off",
    "log_destination": "stderr",
    "log_checkpoints": "off",
}


class Postgres:
    """The PostgreSQL of one installation."""

    stop_signals: tuple[int, int] = (signal.SIGINT, signal.SIGQUIT)  # fast shutdown; immediate shutdown

    def __init__(self, folders: Folders) -> None:
        """Find the program and the account; raises EngineError if either is missing."""
        self.folders = folders
        self._binary: Binary = find_binary("postgres")
        self.version = self._binary.version
        self._account: Account = give_home(folders.home, self._binary.path)
        self._compression = ""

    @property
    def _cluster(self) -> Path:
        return self.folders.home / "cluster"

    def prepare(self) -> None:
        """Make the cluster on first use; clear what a crash left behind on every other."""
        for unfinished in self.folders.home.glob("cluster.new*"):
            shutil.rmtree(unfinished)
        if self._cluster.exists():
            self._check_version()
            self._disown_lock_file()
            if self.folders.read_password() is None:
                self._single_user(self._cluster, f"ALTER ROLE {ROLE} PASSWORD '{self._password()}'")
        else:
            self._initialise()
        self._compression = self._compression or self._best_compression()

    def command(self, port: int) -> tuple[list[str], bytes]:
        """The postmaster's command; nothing secret is in it."""
        settings = _SETTINGS | {"port": str(port), "wal_compression": self._compression}
        options = [text for name, value in settings.items() for text in ("-c", f"{name}={value}")]
        return [*self._account.prefix, str(self._binary.path), "-D", str(self._cluster), *options], b""

    def serving(self, port: int) -> int | None:
        """The postmaster's pid if its lock file says that it is ready and its port takes a connection.

        The lock file's lines are those of PostgreSQL's miscadmin.h: 1 pid, 4 port, 8 status.
        """
        lines = self._lock_file_lines()
        if len(lines) < 8 or lines[7].strip() != "ready" or lines[3].strip() != str(port):
            return None
        try:
            socket.create_connection((HOST, port), timeout=1).close()
        except OSError:
            return None
        return int(lines[0]) if lines[0].isdigit() else None

    def _lock_file_lines(self) -> list[str]:
        try:
            return (self._cluster / "postmaster.pid").read_text().splitlines()
        except (OSError, UnicodeDecodeError):
            return []

    def _disown_lock_file(self) -> None:
        """Keep a stale lock file from naming a stranger.

        PostgreSQL refuses to start if the pid in it lives, even if it is a stranger's by now. That no server
        of ours runs is known from our own lock, so the whole file could go, but its seventh line names the
        shared memory that backends of the dead server may still be attached to: that check must stay. So
        only the pid is replaced, by ours: a server takes its own parent's pid for a reused one.
        """
        lines = self._lock_file_lines()
        path = self._cluster / "postmaster.pid"
        if len(lines) < 7:
            path.unlink(missing_ok=True)  # torn or empty: PostgreSQL would refuse to read it
            return
        lines[0] = str(os.getpid())
        path.write_text("\n".join(lines) + "\n")

    def _check_version(self) -> None:
        try:
            made_by = (self._cluster / "PG_VERSION").read_text().strip()
        except OSError as error:
            raise EngineError(
                f"{self._cluster} holds no readable PostgreSQL cluster ({error})",
                "restore it from a backup, or move it away to begin with an empty one",
            ) from error
        if made_by != str(self._binary.major):
            raise EngineError(
                f"{self._cluster} was made by PostgreSQL {made_by}, and {self._binary.path} is"
                f" version {self.version}",
                f"put PostgreSQL {made_by} on the PATH, or move the data over with pg_dumpall",
            )

    def _initialise(self) -> None:
        # Under another name until it is whole and on the disk: a half-made cluster is never mistaken for one.
        fresh = self.folders.home / "cluster.new"
        locale = ["--locale=C"]
        if self._binary.major >= 17:
            locale += ["--locale-provider=builtin", "--builtin-locale=C.UTF-8"]
        # No local connections: there is no socket, so its method is never asked, and initdb needs no password.
        methods = ["--auth-local=reject", "--auth-host=scram-sha-256"]
        initdb = [str(self._binary.path.with_name("initdb")), "-D", str(fresh)]
        self._run([*initdb, "--no-sync", f"--username={ROLE}", "--encoding=UTF8", *locale, *methods])
        statements = [f"ALTER ROLE {ROLE} PASSWORD '{self._password()}'", f"CREATE DATABASE {DATABASE}"]
        self._single_user(fresh, *statements, fsync="off")
        # All of it reaches the disk here, at once: a thousand single files take seconds on a busy disk.
        at_once = ["--sync-method=syncfs"] if self._binary.major >= 17 and sys.platform == "linux" else []
        self._run([*initdb, "--sync-only", *at_once])
        fresh.rename(self._cluster)
        sync_folder(self.folders.home)

    def _password(self) -> str:
        return ensure_password(self.folders)  # URL-safe letters only, so it can stand in SQL and in a URL

    def _single_user(self, cluster: Path, *statements: str, fsync: str = "on") -> None:
        """Run statements without a server; the standard input keeps the password out of the process list."""
        command = [
            str(self._binary.path),
            "--single",
            "-D",
            str(cluster),
            "-c",
            f"fsync={fsync}",
            "template1",
        ]
        said = self._run(command, "\n".join(statements) + "\n")
        if "ERROR:" in said:  # the exit status is 0 whatever becomes of a statement
            raise EngineError(
                "PostgreSQL's first settings were refused", f"read {self.folders.log}", said[-2000:]
            )

    def _best_compression(self) -> str:
        postgres = str(self._binary.path)
        asked = ["-c", "wal_compression=lz4", "-C", "wal_compression"]
        command = [*self._account.prefix, postgres, "-D", str(self._cluster), *asked]
        tried = subprocess.run(command, capture_output=True, cwd=self.folders.home, check=False)  # noqa: S603 — no shell
        return "lz4" if tried.returncode == 0 else "on"

    def _run(self, command: list[str], text: str = "") -> str:
        done = subprocess.run(  # noqa: S603 — PostgreSQL's own programs, no shell
            [*self._account.prefix, *command],
            cwd=self.folders.home,
            input=text,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            check=False,
        )
        if done.returncode != 0:
            raise EngineError(
                f"{Path(command[0]).name} failed with exit status {done.returncode}",
                "see what it said; a full disk or a folder it may not write to are the usual causes",
                done.stdout[-2000:],
            )
        return done.stdout
