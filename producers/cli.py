"""The producers' commands: ``enqueue`` sends a file of events and sees to it that they were committed."""

from __future__ import annotations

import itertools
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from datetime import timedelta
from pathlib import Path
from types import TracebackType
from typing import IO, Annotated, Any, Final, Self

import orjson
import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn
from sqlalchemy import Engine
from sqlalchemy.exc import SQLAlchemyError

from infra.broker import BrokerAwayError
from infra.open import StoreUnavailableError, open_store
from infra.settings import SettingsError
from infra.store.intake import committed
from producers.client import DEADLINE_S, Holdfire
from producers.confirming import Confirmation, Key
from producers.imports import Line, batched, read_ndjson
from producers.sending import LINES_PER_BATCH, FileSending, KeptLines
from schemas import durations
from schemas.problem import Problem

SHOWN_REJECTS: Final = 20
ALL_COMMITTED, SOME_REJECTED, SOME_NOT_COMMITTED = 0, 1, 2


def register(app: typer.Typer) -> None:
    """Mount the producers' commands on the front door's app."""
    app.command("enqueue")(enqueue)


def _duration(text: str) -> timedelta:
    try:
        return durations.parse(text)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from error


Wait = Annotated[
    timedelta,
    typer.Option(
        "--wait",
        parser=_duration,
        metavar="DURATION",
        show_default=False,
        help="How long to wait for the next event to be committed; 60s by default.",
    ),
]
Deadline = Annotated[
    timedelta,
    typer.Option(
        "--deadline",
        parser=_duration,
        metavar="DURATION",
        show_default=False,
        help=f"How long the broker may be away; {DEADLINE_S:.0f}s by default.",
    ),
]


def enqueue(  # noqa: PLR0913, PLR0917 — a command's options are its parameters
    file: Annotated[str, typer.Argument(help="NDJSON, one event a line; - reads standard input.")],
    rejects: Annotated[
        Path | None, typer.Option(help="Where bad lines go; by default FILE.rejects.ndjson.")
    ] = None,
    wait: Wait = timedelta(seconds=60),
    deadline: Deadline = timedelta(seconds=DEADLINE_S),
    check: Annotated[bool, typer.Option(help="Check that what was sent was committed.")] = True,
    as_json: Annotated[bool, typer.Option("--json", help="Print the summary as JSON.")] = False,
) -> None:
    """Send a file of events, and see to it that they are committed.

    Bad lines are reported and kept in a file; the rest goes in.

    Ends with 0 if all was committed, with 1 if some lines were rejected.

    Ends with 2 if some are not known to be committed: a file keeps them, to be enqueued again.
    """
    started = time.monotonic()
    with ExitStack() as stack:
        source, size = _open_source(file, stack)
        store = stack.enter_context(_store()) if check else None
        client = stack.enter_context(_client(deadline.total_seconds()))
        rejected = stack.enter_context(KeptLines(rejects or _free_path(file, "rejects")))
        unconfirmed = stack.enter_context(KeptLines(_free_path(file, "unconfirmed")))
        screen = stack.enter_context(_Screen(file, size, rejected.path))
        sending = FileSending(
            client,
            rejects=rejected,
            unconfirmed=unconfirmed,
            on_reject=screen.show_reject,
            on_progress=lambda: screen.show_progress(sending),
        )
        if store is not None:
            sending.confirmation = Confirmation(
                _Asking(store, screen.say),
                resend=sending.send_again,
                queued=lambda: _queued(client),
                patience_s=wait.total_seconds(),
            )
        try:
            for lines in batched(read_ndjson(source), LINES_PER_BATCH):
                sending.take(lines)
            sending.finish()
        except KeyboardInterrupt:
            screen.say("Stopped. Run it again: what already went in is taken only once.")
            raise typer.Exit(130) from None
    summary = _summary(file, sending, rejected, unconfirmed, time.monotonic() - started)
    typer.echo(orjson.dumps(summary).decode() if as_json else _in_words(summary))
    raise typer.Exit(_exit_code(summary))


def _fail(message: str) -> typer.Exit:
    typer.echo(f"holdfire enqueue: {message}", err=True)
    return typer.Exit(SOME_NOT_COMMITTED)


def _open_source(file: str, stack: ExitStack) -> tuple[IO[bytes], int | None]:
    """The file and its size in bytes, None where there is no telling."""
    if file == "-":
        return sys.stdin.buffer, None
    path = Path(file)
    try:
        source = stack.enter_context(path.open("rb"))
    except OSError as error:
        raise _fail(
            f"{file} cannot be read: {error.strerror}; name a file of NDJSON, or - for standard input"
        ) from None
    return source, path.stat().st_size if path.is_file() else None


def _free_path(file: str, kind: str) -> Path:
    """``FILE.kind.ndjson``, numbered if an earlier run left one: what it kept is not ours to overwrite."""
    base = "stdin" if file == "-" else file
    names = itertools.chain(
        [f"{base}.{kind}.ndjson"], (f"{base}.{kind}.{n}.ndjson" for n in itertools.count(2))
    )
    return next(path for name in names if not (path := Path(name)).exists())


def _client(deadline_s: float) -> Holdfire:
    try:
        return Holdfire(deadline_s=deadline_s)
    except SettingsError as error:
        raise _fail(str(error)) from None


@contextmanager
def _store() -> Iterator[Engine]:
    with ExitStack() as stack:
        try:
            engine = stack.enter_context(open_store())
        except StoreUnavailableError as error:
            raise _fail(
                f"what is sent could not be checked: {error}; or say --no-check to send without a check. "
                "Nothing was sent"
            ) from None
        yield engine


def _queued(client: Holdfire) -> int:
    try:
        return client.queued()
    except BrokerAwayError:
        return 0  # An emptied broker and one that is away come to the same: sending again tries its deadline.


class _Asking:
    """Asks the database which events it has; while it does not answer, none are known to be there."""

    def __init__(self, engine: Engine, say: Callable[[str], None]) -> None:
        self._engine = engine
        self._say = say
        self._silent = False

    def __call__(self, keys: list[Key]) -> set[Key]:
        try:
            found = committed(self._engine, keys)
        except SQLAlchemyError as error:
            if not self._silent:
                self._say(f"The database does not answer ({type(error).__name__}); asking again.")
            self._silent = True
            return set()
        self._silent = False
        return found


class _Screen:
    """What a person at a terminal sees, on standard error; elsewhere only the bad lines and the notes."""

    def __init__(self, file: str, size: int | None, rejects: Path) -> None:
        self._name = "stdin" if file == "-" else file
        self._rejects = rejects
        self._rejected = 0
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
        self._console.print(_printable(text))

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


def _printable(text: str) -> str:
    return "".join(one if one.isprintable() else one.encode("unicode_escape").decode() for one in text)


def _summary(
    file: str, sending: FileSending, rejects: KeptLines, unconfirmed: KeptLines, seconds: float
) -> dict[str, Any]:
    tally, confirmation = sending.tally, sending.confirmation
    return {
        "file": file,
        "lines": tally.lines,
        "sent": tally.sent,
        "rejected": tally.rejected,
        "unsent": tally.unsent,
        "committed": None if confirmation is None else confirmation.confirmed,
        "sent_again": None if confirmation is None else confirmation.resent,
        "unconfirmed": unconfirmed.count,
        "rejects_file": str(rejects.path) if rejects.count else None,
        "unconfirmed_file": str(unconfirmed.path) if unconfirmed.count else None,
        "broker_away": tally.broker_away,
        "seconds": round(seconds, 3),
    }


def _in_words(summary: dict[str, Any]) -> str:
    said = [f"{summary['lines']:,} lines: {summary['sent']:,} sent"]
    if summary["committed"] is not None:
        said.append(f"{summary['committed']:,} committed")
    if summary["rejected"]:
        said.append(f"{summary['rejected']:,} rejected (kept in {summary['rejects_file']})")
    if summary["sent_again"]:
        said.append(f"{summary['sent_again']:,} sent again")
    text = ", ".join(said) + f", in {summary['seconds']:.1f} s"
    if summary["unconfirmed"]:
        text += (
            f"\n{summary['unconfirmed']:,} not known to be committed, kept in {summary['unconfirmed_file']}: "
            f"{_why_unconfirmed(summary)}"
        )
    return text


def _why_unconfirmed(summary: dict[str, Any]) -> str:
    if summary["unsent"]:
        return f"{summary['broker_away']}. Enqueue that file once the broker is back"
    return (
        "intake did not commit them in time. If no worker runs, start one (holdfire up); to be sure, enqueue "
        "that file again: nothing is taken twice"
    )


def _exit_code(summary: dict[str, Any]) -> int:
    if summary["unconfirmed"]:
        return SOME_NOT_COMMITTED
    return SOME_REJECTED if summary["rejected"] else ALL_COMMITTED
