"""Runs a page of the documentation as a reader would: its blocks in order, in one folder, on real engines.

What a fence's info string says is done with the block:

    ```sh run             run by bash, which has to end with 0 (``run exit=1``: with 1); exports last for the page
    ```sh run eventually  run again until it prints what it should: a reader looks again after a moment
    ```sh run needs=npm   the page is skipped where the program is missing
    ```sh start           started in the background, and ended at the page's end; a door is waited for
    ```python run         run by Python, from the page's folder
    ```toml file=a.toml   written to that file; any language
    ```text               right after one of the above: what it prints. Every line has to come, in order;
                          ``…`` stands for anything, alone on a line for any lines
    ```sh not-run: WHY    shown only, because WHY

A page says 127.0.0.1:8080 (or ``--door 8080``) for the door; here it is a free port. CLONE is the folder of the clone,
SHOP_DATABASE_URL a database that a service could have.
"""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).parents[2]
COMMANDS = ("sh", "bash", "console", "shell", "python", "js", "ts", "javascript", "typescript")
ANYTHING = "…"
DOOR = "127.0.0.1:8080"
WITHIN_S = 90.0
EVENTUALLY_S = 30.0
_BLOCK = re.compile(r"^```(?P<info>[^\n`]*)\n(?P<body>.*?)^```$", re.MULTILINE | re.DOTALL)


@dataclass(frozen=True, slots=True)
class Block:
    """One fenced block: the line it begins at, its info string, what is in it, and what it should print."""

    line: int
    info: str
    body: str
    printed: str | None = None

    @property
    def language(self) -> str:
        return self.info.partition(" ")[0]

    @property
    def words(self) -> list[str]:
        return self.info.split()[1:]

    @property
    def file(self) -> str | None:
        """The file that the block is the content of."""
        return next((word.removeprefix("file=") for word in self.words if word.startswith("file=")), None)

    @property
    def exit_code(self) -> int:
        return next((int(word.removeprefix("exit=")) for word in self.words if word.startswith("exit=")), 0)

    @property
    def needs(self) -> str | None:
        """The program without which the page cannot be followed."""
        return next((word.removeprefix("needs=") for word in self.words if word.startswith("needs=")), None)

    @property
    def unrun(self) -> bool:
        """A command that a reader would run, and nothing here does, without a reason."""
        said = re.search(r" not-run: \S.{8,}", self.info)
        marked = {"run", "start"} & set(self.words) or self.file or said
        return self.language in COMMANDS and not marked


def blocks(text: str) -> list[Block]:
    """The blocks of a page in order; a ``text`` block that follows another is what that one prints."""
    found: list[Block] = []
    for each in _BLOCK.finditer(text):
        line = text.count("\n", 0, each.start()) + 1
        info, body = each["info"].strip(), each["body"]
        before = found[-1] if found else None
        if info == "text" and before and before.printed is None and {"run", "start"} & set(before.words):
            found[-1] = Block(before.line, before.info, before.body, body)
        else:
            found.append(Block(line, info, body))
    return found


def missing(expected: str, output: str) -> str | None:
    """The first line of ``expected`` that ``output`` does not have after the ones before it, or None."""
    rest = iter(line.rstrip() for line in output.splitlines())
    for line in expected.splitlines():
        shape = ".*".join(re.escape(part) for part in line.rstrip().split(ANYTHING))
        if line.strip() in {"", ANYTHING}:
            continue
        if not any(re.fullmatch(shape, printed) for printed in rest):
            return line
    return None


@dataclass
class Reader:
    """A reader at a shell of their own."""

    folder: Path
    environment: dict[str, str]
    port: int
    started: list[tuple[subprocess.Popen[bytes], Path]] = field(default_factory=list)

    def follow(self, page: Path) -> int:
        """Do what the page says; returns how many commands that was."""
        done = 0
        for block in blocks(page.read_text("utf-8")):
            where = f"{page.name}:{block.line}"
            body = block.body.replace(DOOR, f"127.0.0.1:{self.port}")
            body = body.replace("--door 8080", f"--door {self.port}")
            if block.file:
                (self.folder / block.file).parent.mkdir(parents=True, exist_ok=True)
                (self.folder / block.file).write_text(body, "utf-8")
            if "run" in block.words:
                self._run(block, body, where)
                done += 1
            elif "start" in block.words:
                self._start(block, body, where)
                done += 1
        return done

    def _run(self, block: Block, body: str, where: str) -> None:
        script = self.folder / f".block-{block.line}"
        if block.language == "python":
            script.write_text(body, "utf-8")
            body = f"python {script.name}"
        deadline = time.monotonic() + (EVENTUALLY_S if "eventually" in block.words else 0)
        while True:
            ended = self._bash(f"{body}\n")
            said = (ended.stdout + ended.stderr).replace(f"127.0.0.1:{self.port}", DOOR)
            lacks = missing(block.printed or "", said)
            if (ended.returncode == block.exit_code and lacks is None) or time.monotonic() > deadline:
                break
            time.sleep(0.2)
        told = (
            f"{where}: {block.body}ended with {ended.returncode} and printed:\n{said}\n{self._background()}"
        )
        assert ended.returncode == block.exit_code, told
        assert lacks is None, f"{told}\nbut not, in this order: {lacks}"

    def _bash(self, body: str) -> subprocess.CompletedProcess[str]:
        # Each block is a shell of its own, so that one can fail alone; what it exports lasts, as in one terminal.
        # The trap carries the exports over even when the block's last command fails.
        script = (
            f"test ! -e .exports || . ./.exports\ntrap 'export -p > .exports' EXIT\nset -eo pipefail\n{body}"
        )
        return subprocess.run(
            ["bash", "-c", script], cwd=self.folder, env=self.environment, capture_output=True, text=True,
            stdin=subprocess.DEVNULL, timeout=WITHIN_S, check=False,
        )  # fmt: skip

    def _start(self, block: Block, body: str, where: str) -> None:
        log = self.folder / f".block-{block.line}.log"
        with log.open("wb") as output:
            process = subprocess.Popen(
                ["bash", "-c", f"test ! -e .exports || . ./.exports\n{body}"],
                cwd=self.folder, env=self.environment, stdin=subprocess.DEVNULL, stdout=output,
                stderr=subprocess.STDOUT, start_new_session=True,
            )  # fmt: skip
        self.started.append((process, log))
        if "serve door" in block.body or "--door" in block.body:
            self._await(lambda: _listens(self.port), process, f"{where}: no door at its port")
        if block.printed is not None:
            printed = block.printed
            self._await(
                lambda: missing(printed, log.read_text("utf-8").replace(f":{self.port}", ":8080")) is None,
                process,
                f"{where}: did not print {printed}",
            )

    def _await(self, true: Callable[[], bool], process: subprocess.Popen[bytes], otherwise: str) -> None:
        deadline = time.monotonic() + WITHIN_S
        while not true():
            assert process.poll() is None, f"{otherwise}: it ended\n{self._background()}"
            assert time.monotonic() < deadline, f"{otherwise}\n{self._background()}"
            time.sleep(0.05)

    def _background(self) -> str:
        return "\n".join(log.read_text("utf-8")[-3000:] for _, log in self.started)

    def close(self) -> None:
        """End what was started, in the order of a person who goes home: the last terminal first."""
        for process, _ in reversed(self.started):
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGTERM)
        for process, _ in self.started:
            try:
                process.wait(timeout=45)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()


@contextmanager
def reader(folder: Path, database_url: str, broker_url: str) -> Iterator[Reader]:
    """A reader in an empty folder, with ``holdfire`` and ``python`` on PATH and the engines in the environment."""
    port = _free_port()
    binaries = folder / ".bin"
    binaries.mkdir()
    # The page's door is at the default port, which somebody else may be using here.
    _script(
        binaries / "holdfire",
        f'case "$1 $2" in "serve door") set -- "$@" --port {port};; esac\nexec "{sys.executable}" -m holdfire "$@"',
    )
    _script(binaries / "python", f'exec "{sys.executable}" "$@"')
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith("HOLDFIRE_")},
        "PATH": f"{binaries}:{os.environ['PATH']}",
        "PYTHONPATH": str(ROOT),
        "PYTHONUNBUFFERED": "1",
        "CLONE": str(ROOT),
        "SHOP_DATABASE_URL": database_url,
        "COLUMNS": "120",
        "HOLDFIRE_DATABASE_URL": database_url,
        "HOLDFIRE_BROKER_URL": broker_url,
        "HOLDFIRE_DATA_DIR": str(folder / ".data"),
    }
    one = Reader(folder, environment, port)
    try:
        yield one
    finally:
        one.close()


def _script(path: Path, body: str) -> None:
    path.write_text(f"#!/bin/sh\n{body}\n", "utf-8")
    path.chmod(0o755)


def _listens(port: int) -> bool:
    with closing(socket.socket()) as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def _free_port() -> int:
    with closing(socket.socket()) as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
