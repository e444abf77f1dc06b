"""The producers' commands: ``enqueue`` sends a file of events and sees to it that they were committed."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Any, Final

import orjson
import typer
from sqlalchemy import Engine
from sqlalchemy.exc import SQLAlchemyError

from infra.broker import BrokerAwayError
from infra.open import StoreUnavailableError, open_store
from infra.settings import SettingsError
from infra.store.intake import committed
from producers.client import DEADLINE_S, Holdfire
from producers.confirming import Confirmation, Key
from producers.imports import batched
from producers.mapping import ColumnMap, load_map, parse_columns
from producers.opening import DAMAGED, Format, Reading, delimiter_of, is_table, open_bytes, read_file
from producers.resuming import ResumeError, ResumeFile
from producers.screen import Screen
from producers.sending import LINES_PER_BATCH, FileSending, KeptLines
from schemas import durations
from schemas.cells import MappingError

ALL_COMMITTED, SOME_REJECTED, SOME_NOT_COMMITTED = 0, 1, 2


_CSV: Final[dict[str, Any]] = {"rich_help_panel": "CSV"}


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
    file: Annotated[
        str,
        typer.Argument(help="NDJSON, one event a line, or CSV; .gz as well. - reads standard input."),
    ],
    rejects: Annotated[
        Path | None, typer.Option(help="Where bad lines go; by default FILE.rejects.ndjson or .csv.")
    ] = None,
    wait: Wait = timedelta(seconds=60),
    deadline: Deadline = timedelta(seconds=DEADLINE_S),
    check: Annotated[bool, typer.Option(help="Check that what was sent was committed.")] = True,
    resume: Annotated[bool, typer.Option("--resume", help="Go on where an interrupted run stopped.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the summary as JSON.")] = False,
    form: Annotated[
        Format | None, typer.Option("--format", help="By default told by the file's name.")
    ] = None,
    map_file: Annotated[
        Path | None, typer.Option("--map", help="TOML that says which column is which field.", **_CSV)
    ] = None,
    columns: Annotated[
        list[str] | None,
        typer.Option(
            help="order_id=Order,value=\"Total, net\",source='shop', … May come more than once.", **_CSV
        ),
    ] = None,
    id_columns: Annotated[
        str | None, typer.Option("--id", help="Columns that make the event_id, comma-separated.", **_CSV)
    ] = None,
    delimiter: Annotated[
        str | None, typer.Option(help="Told by the header by default; tab is \\t.", **_CSV)
    ] = None,
    encoding: Annotated[str | None, typer.Option(help="Such as cp1252; utf-8 by default.", **_CSV)] = None,
    decimal: Annotated[str | None, typer.Option(help="The decimal point or comma.", **_CSV)] = None,
    thousands: Annotated[str | None, typer.Option(help="The separator of thousands, if any.", **_CSV)] = None,
    timezone: Annotated[
        str | None, typer.Option(help="Of instants without an offset: Europe/Berlin.", **_CSV)
    ] = None,
    date_format: Annotated[
        str | None, typer.Option(help="Such as '%d.%m.%Y %H:%M', epoch_s or epoch_ms.", **_CSV)
    ] = None,
) -> None:
    """Send a file of events, and see to it that they are committed.

    Bad lines are reported and kept in a file, to be mended and fed back; the rest goes in.

    Ends with 0 if all was committed, with 1 if some lines were rejected.

    Ends with 2 if some are not known to be committed: a file keeps them, to be enqueued again.
    """
    started = time.monotonic()
    given: dict[str, Any] = {
        "id": [one.strip() for one in id_columns.split(",")] if id_columns else None,
        "delimiter": "\t" if delimiter == "\\t" else delimiter,
        "encoding": encoding,
        "decimal": decimal,
        "thousands": thousands,
        "timezone": timezone,
        "date_format": date_format,
    }
    with ExitStack() as stack:
        reading, size = _reading(file, _mapping(file, form, map_file, columns, given), stack)
        store = stack.enter_context(_store()) if check else None
        client = stack.enter_context(_client(deadline.total_seconds()))
        rejected = stack.enter_context(
            KeptLines(rejects or _free_path(file, f"rejects.{reading.kind}"), reading.rejects_header)
        )
        unconfirmed = stack.enter_context(
            KeptLines(_free_path(file, f"unconfirmed.{reading.kind}"), reading.unconfirmed_header)
        )
        progress = ResumeFile(
            rejected.path.parent / f"{Path(_base(file)).name}.resume.json", reading.fingerprint
        )
        screen = stack.enter_context(Screen(file, size, rejected.path))
        passed = _go_on(progress, reading, screen) if resume else 0
        sending = FileSending(
            client,
            rejects=rejected,
            unconfirmed=unconfirmed,
            on_reject=screen.show_reject,
            on_progress=lambda: _on_progress(sending, progress, screen),
            as_reject=reading.as_reject,
        )
        if store is not None:
            sending.confirmation = Confirmation(
                _Asking(store, screen.say),
                resend=sending.send_again,
                queued=lambda: _queued(client),
                patience_s=wait.total_seconds(),
            )
        damaged = _send(reading, sending, progress, screen)
    summary = _summary(file, sending, rejected, unconfirmed, time.monotonic() - started)
    summary |= {"resumed_after_line": passed or None, "damaged": damaged}
    typer.echo(orjson.dumps(summary).decode() if as_json else _in_words(summary))
    raise typer.Exit(_exit_code(summary))


def _send(reading: Reading, sending: FileSending, progress: ResumeFile, screen: Screen) -> str | None:
    """Send everything; returns why the file could not be read to its end, if it could not."""
    damaged = None
    try:
        try:
            for lines in batched(reading.lines, LINES_PER_BATCH):
                sending.take(lines)
                progress.reached(reading.stream)
        except DAMAGED as error:
            damaged = (
                f"after line {reading.stream.number:,} the compressed file is cut short or broken ({error})"
            )
        sending.finish()
    except KeyboardInterrupt:
        _note(progress, sending.settled_before(), screen)
        screen.say("Stopped. Go on with --resume, or run it again: what already went in is taken only once.")
        raise typer.Exit(130) from None
    if damaged is None:
        progress.finished()
    else:
        _note(progress, sending.settled_before(), screen)
    return damaged


def _on_progress(sending: FileSending, progress: ResumeFile, screen: Screen) -> None:
    screen.show_progress(sending)
    _note(progress, sending.settled_before(), screen)


def _note(progress: ResumeFile, before: int | None, screen: Screen) -> None:
    try:
        progress.settled_before(before)
    except OSError as error:
        screen.say_once(
            f"{progress.path} cannot be written ({error.strerror}): this run could not be resumed."
        )


def _go_on(progress: ResumeFile, reading: Reading, screen: Screen) -> int:
    try:
        passed = progress.go_on(reading.stream)
    except ResumeError as error:
        raise _fail(str(error)) from None
    screen.say(
        f"Going on after line {passed:,}."
        if passed
        else "There is nothing to go on with: from the beginning."
    )
    return passed


def _mapping(
    file: str, form: Format | None, path: Path | None, columns: list[str] | None, given: dict[str, Any]
) -> ColumnMap | None:
    """The mapping of a file of CSV, None for NDJSON."""
    said = bool(path or columns or any(value is not None for value in given.values()))
    if form == "ndjson" or (form is None and not is_table(file) and not said):
        if said:
            raise _fail("a file of NDJSON has no columns; leave out the options of CSV, or say --format csv")
        return None
    try:
        if columns:
            given |= parse_columns(columns)
        if given["delimiter"] is None and path is None:
            given["delimiter"] = delimiter_of(file)
        return load_map(path, given)
    except MappingError as error:
        raise _fail(str(error)) from None


def _fail(message: str) -> typer.Exit:
    typer.echo(f"holdfire enqueue: {message}", err=True)
    return typer.Exit(SOME_NOT_COMMITTED)


def _reading(file: str, mapping: ColumnMap | None, stack: ExitStack) -> tuple[Reading, int | None]:
    """The file, open, and its size in bytes, None where there is no telling."""
    try:
        source, size = open_bytes(file, stack)
        return read_file(source, mapping), size
    except OSError as error:
        raise _fail(
            f"{file} cannot be read: {error.strerror or error}; name a file of events, or - for standard input"
        ) from None
    except MappingError as error:
        raise _fail(f"{file}: {error}") from None
    except DAMAGED as error:
        raise _fail(f"{file} cannot be read: {error}; the compressed file is broken, get it again") from None


def _base(file: str) -> str:
    return "stdin" if file == "-" else file


def _free_path(file: str, kind: str) -> Path:
    """``FILE.rejects.ndjson``, numbered if an earlier run left one: what it kept is not ours to overwrite."""
    base, (what, suffix) = _base(file), kind.split(".")
    names = itertools.chain(
        [f"{base}.{what}.{suffix}"], (f"{base}.{what}.{n}.{suffix}" for n in itertools.count(2))
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
    if summary["damaged"]:
        text += (
            f"\nThe file was not read to its end: {summary['damaged']}. Get it again and go on with --resume"
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
    if summary["unconfirmed"] or summary["damaged"]:
        return SOME_NOT_COMMITTED
    return SOME_REJECTED if summary["rejected"] else ALL_COMMITTED
