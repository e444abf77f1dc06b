"""The console's commands as processes: accounts, the audit, and serving until it is told to end."""

from __future__ import annotations

import json
import os
import pty
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

import holdfire
from tests.integration.console import PASSWORD, Visitor
from workers.up import children

Run = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def environment(tmp_path: Path, database_url: str, broker_url: str) -> dict[str, str]:
    return {
        **{name: value for name, value in os.environ.items() if not name.startswith("HOLDFIRE_")},
        "PYTHONPATH": str(Path(holdfire.__file__).parent),
        "HOLDFIRE_DATABASE_URL": database_url,
        "HOLDFIRE_BROKER_URL": broker_url,
        "HOLDFIRE_DATA_DIR": str(tmp_path / "data"),
        "HOLDFIRE_CONFIG": str(tmp_path / "holdfire.toml"),
    }


@pytest.fixture
def run(environment: dict[str, str], tmp_path: Path) -> Run:
    def run_it(*arguments: str, given: str = "") -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "holdfire", *arguments],
            cwd=tmp_path,
            env=environment,
            input=given,
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )

    return run_it


def test_accounts_are_made_listed_changed_and_audited(run: Run) -> None:
    added = run("users", "add", "alice", "--role", "operator", "--password-stdin", given=f"{PASSWORD}\n")
    assert added.stdout == "Added alice, operator.\n"
    assert run("users", "role", "alice", "viewer").stdout == "alice is viewer. 0 sessions ended.\n"
    assert "is disabled" in run("users", "disable", "alice").stdout
    (listed,) = json.loads(run("users", "list", "--json").stdout)
    assert (listed["name"], listed["role"], listed["disabled_at"] is None) == ("alice", "viewer", False)
    assert not {"password", "password_hash"} & set(listed)
    assert "disabled" in run("users", "list").stdout
    assert "is enabled" in run("users", "enable", "alice").stdout
    changed = run("users", "password", "alice", "--password-stdin", given="another copper lantern\n")
    assert "new password" in changed.stdout
    lines = run("audit", "--json", "--action", "users").stdout.splitlines()
    acts = [json.loads(line) for line in lines]
    assert [each["action"] for each in reversed(acts)] == [
        "users.add",
        "users.role",
        "users.disable",
        "users.enable",
        "users.password",
    ]
    assert {each["detail"]["name"] for each in acts} == {"alice"}
    assert PASSWORD not in "".join(lines)
    assert "users.role" in run("audit", "--subject", "alice", "--since", "1h").stdout
    few = run("audit", "--limit", "2")
    assert "there are more" in few.stderr
    assert len(few.stdout.splitlines()) == 3


@pytest.mark.parametrize(
    ("arguments", "given", "said"),
    [
        (("add", "Bob", "--role", "viewer", "--password-stdin"), f"{PASSWORD}\n", "no account name"),
        (("add", "bob", "--role", "viewer", "--password-stdin"), "short\n", "at least 12"),
        (("add", "bob", "--role", "viewer", "--password-stdin"), "", "nothing came"),
        (("add", "bob", "--role", "viewer"), "", "--password-stdin"),
        (("role", "nobody", "viewer"), "", "holdfire users list"),
        (("add", "bob", "--role", "admin", "--password-stdin"), f"{PASSWORD}\n", "viewer"),
    ],
)
def test_what_cannot_be_is_said_without_a_traceback(
    run: Run, arguments: tuple[str, ...], given: str, said: str
) -> None:
    answered = run("users", *arguments, given=given)
    assert answered.returncode == 2
    assert said in answered.stderr
    assert "Traceback" not in answered.stderr


def test_a_password_is_typed_twice_and_never_shown(environment: dict[str, str], tmp_path: Path) -> None:
    """At a terminal: what is typed does not appear, and two that differ change nothing."""
    said = _at_terminal(environment, tmp_path, "typist", [PASSWORD, "something else here"])
    assert "did not match" in said
    said = _at_terminal(environment, tmp_path, "typist", [PASSWORD, PASSWORD])
    assert "Added typist, viewer." in said
    assert PASSWORD not in said


def _at_terminal(environment: dict[str, str], folder: Path, name: str, typed: list[str]) -> str:
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "holdfire", "users", "add", name, "--role", "viewer"],
        cwd=folder, env=environment, stdin=theirs, stdout=theirs, stderr=theirs, start_new_session=True,
    )  # fmt: skip
    os.close(theirs)
    said = ""
    try:
        for prompt, text in zip(("Password: ", "Again: "), typed, strict=True):
            while prompt not in said:
                said += os.read(ours, 1000).decode()
            os.write(ours, f"{text}\n".encode())
        while True:
            try:
                more = os.read(ours, 1000).decode()
            except OSError:  # the other side was closed: it has ended
                break
            if not more:
                break
            said += more
    finally:
        process.wait(30)
        os.close(ours)
    return said


@contextmanager
def serving(environment: dict[str, str], folder: Path) -> Iterator[tuple[str, subprocess.Popen[str]]]:
    """A console process, ready; ended if it has not ended by itself."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    process = subprocess.Popen(
        [sys.executable, "-m", "holdfire", "serve", "console", "--port", str(port)],
        cwd=folder, env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        text=True, start_new_session=True,
    )  # fmt: skip
    url = f"http://127.0.0.1:{port}"
    try:
        deadline = time.monotonic() + 60
        while process.poll() is None and time.monotonic() < deadline:
            try:
                assert httpx.get(f"{url}/healthz", trust_env=False).json() == {"status": "ok"}
                break
            except httpx.TransportError:
                time.sleep(0.05)
        yield url, process
    finally:
        if process.poll() is None:
            process.kill()
        process.communicate(timeout=30)


def test_the_console_is_a_process_of_its_own_and_ends_when_it_is_told(
    run: Run, environment: dict[str, str], tmp_path: Path
) -> None:
    """It serves what was made at the command line, and a stream that somebody watches does not hold it up."""
    (tmp_path / "holdfire.toml").write_text('[console]\nsession_idle = "5m"\n')
    run("users", "add", "carol", "--role", "operator", "--password-stdin", given=f"{PASSWORD}\n")
    with serving(environment, tmp_path) as (url, process), Visitor(url, {}) as carol:
        assert carol.sign_in("carol").status_code == 303
        assert "5 min without use" in carol.get("/account").text
        assert carol.get("/login", headers={"host": "elsewhere.example"}).status_code == 421
        with carol.stream("GET", "/live/stream") as answer:
            assert answer.status_code == 200
            began = time.monotonic()
            process.send_signal(signal.SIGTERM)
            for _ in answer.iter_text():
                pass
        assert process.wait(15) == 0
        assert time.monotonic() - began < 8


def test_a_policy_at_fault_keeps_the_console_from_starting(run: Run, tmp_path: Path) -> None:
    """A policy that cannot be read must not be a policy that does not hold."""
    (tmp_path / "holdfire.toml").write_text(
        '[console]\nmask_click_ids_for = ["viewers"]\nsession_idle = "13h"\nhost = ["a"]\nhosts = ["http://a"]\n'
    )
    answered = run("serve", "console", "--port", "0")
    assert answered.returncode == 2
    for said in ("console.mask_click_ids_for", "console.host:", "console.hosts", "Did you mean hosts?"):
        assert said in answered.stderr
    (tmp_path / "holdfire.toml").write_text('[console]\nsession_idle = "13h"\n')
    assert "longer than session_absolute" in run("serve", "console", "--port", "0").stderr


@pytest.mark.parametrize("arguments", [("--host", "0.0.0.0"), ("--host", "::"), ("--host", "box.example")])
def test_passwords_do_not_travel_in_the_clear(run: Run, arguments: tuple[str, ...]) -> None:
    answered = run("serve", "console", *arguments)
    assert answered.returncode == 2
    assert "in the clear" in answered.stderr


def test_both_rooms_serve_from_one_menu(run: Run) -> None:
    """Neither imports the other: the front door joins them."""
    shown = run("serve", "--help").stdout
    assert re.search(r"door\b.*console\b", shown, re.DOTALL)


def test_up_runs_the_console_beside_the_door() -> None:
    commands = {child.name: child.arguments for child in children(1, None, 8080, 8081)}
    assert commands["console"] == ("serve", "console", "--port", "8081")
    assert commands["door"] == ("serve", "door", "--port", "8080")
    assert "console" not in {child.name for child in children(1)}
