"""What a person sees of a file on its way: a progress bar, the first bad lines, and notes."""

from __future__ import annotations

from pathlib import Path
from types import TracebackType
from typing import Final, Self

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn

from producers.imports import Line
from producers.sending import FileSending
from schemas.problem import Problem

SHOWN_REJECTS: Final = 20


class Screen:
    """What a person at a terminal sees, on standard error; elsewhere only the bad lines and the notes."""

    def __init__(self, file: str, size: int | None, rejects: Path) -> None:
        """``size`` in bytes, None where there is no telling."""
        self._name = "stdin" if file == "-" else file
        self._rejects = rejects
        self._rejected = 0
        self._said: set[str] = set()
        self._console = Console(stderr=True, highlight=False, markup=False, soft_wrap=True)
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            TaskProgressColumn(),
            TextColumn("{task.fields[counts]}"),
            console=self._console,
            disable=not self._console.is_terminal,
            transient=True,
        )
        self._task = self._progress.add_task("sending", total=size, counts="")

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._progress.stop()
        more = self._rejected - SHOWN_REJECTS
        if more > 0:
            self.say(f"… and {more} more bad lines: all are in {self._rejects}")

    def say(self, text: str) -> None:
        """Print one line above the progress bar; what could steer a terminal is shown, not obeyed."""
        self._console.print(printable(text))

    def say_once(self, text: str) -> None:
        """Print one line unless it was printed before."""
        if text not in self._said:
            self._said.add(text)
            self.say(text)

    def show_reject(self, line: Line, problems: list[Problem]) -> None:
        """Print the first bad lines, with every problem of each."""
        self._rejected += 1
        if self._rejected <= SHOWN_REJECTS:
            for problem in problems:
                self.say(f"{self._name}:{line.number}: {problem}")

    def show_progress(self, sending: FileSending) -> None:
        """Bring the bar up to date: bytes while sending, events while they are being checked."""
        tally, confirmation = sending.tally, sending.confirmation
        counts = f"{tally.sent:,} sent, {tally.rejected:,} rejected"
        if confirmation is not None:
            counts += f", {confirmation.confirmed:,} committed"
        self._progress.update(self._task, completed=tally.read_bytes, counts=counts)


def printable(text: str) -> str:
    """The text with everything that could steer a terminal written out."""
    return "".join(one if one.isprintable() else one.encode("unicode_escape").decode() for one in text)
