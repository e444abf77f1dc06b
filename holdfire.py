"""The front door: one menu of every room's commands. A room is imported when one of its commands is called."""

from __future__ import annotations

import errno
import os
import sys
from importlib import import_module
from typing import Any, NamedTuple

import typer
from typer.core import TyperCommand, TyperGroup

ROOMS = ("schemas", "infra", "producers", "workers", "investigations")
DEBUG_VARIABLE = "HOLDFIRE_DEBUG"
_DISK = (errno.ENOSPC, errno.EDQUOT)


class Entry(NamedTuple):
    """A command's line in the menu, the words its own help begins with. ``module.register(app)`` adds it.

    A group that several rooms have commands of is joined here: ``others`` add theirs to it.
    """

    module: str
    panel: str
    about: str
    others: tuple[str, ...] = ()


_RUN, _SEND, _SET_UP, _ASK = "Run", "Send", "Set up", "Ask"
MENU: dict[str, Entry] = {
    "demo": Entry("infra.demo.cli", _RUN, "Hold, fire, kill and rescue some 340 sample orders."),
    "up": Entry("workers.cli", _RUN, "Run everything and stay up."),
    "work": Entry("workers.cli", _RUN, "Run one worker process: intake, release passes and firing."),
    "clock": Entry("workers.cli", _RUN, "Run one clock: ticks for releasing, rescuing and housekeeping."),
    "release": Entry(
        "workers.by_hand",
        _RUN,
        "Release what is due, in a pass; or, by hand and with a reason, what is held.",
    ),
    "void": Entry("workers.by_hand", _RUN, "Void postbacks by hand: they never fire."),
    "extend": Entry("workers.by_hand", _RUN, "Extend the windows of held postbacks by hand."),
    "replay": Entry("investigations.replay_cli", _RUN, "Fire postbacks again that have ended."),
    "replays": Entry("investigations.replays_cli", _RUN, "List, show, pause and stop runs of replays."),
    "settle": Entry(
        "investigations.doubts_cli", _RUN, "Settle by hand what is in doubt, as the network said."
    ),
    "pause": Entry(
        "workers.stopping_cli",
        _RUN,
        "Pause firing at a destination, until an instant or until it is resumed.",
    ),
    "resume": Entry(
        "workers.stopping_cli",
        _RUN,
        "Resume firing at a destination: end its pause, or try it now if its breaker is open.",
    ),
    "enqueue": Entry("producers.cli", _SEND, "Send a file of events, and see to it that they are committed."),
    "relay": Entry("producers.relaying", _SEND, "Relay what services enqueued in their own transactions."),
    "serve": Entry(
        "producers.door.serving",
        _RUN,
        "Serve the HTTP door, or the console.",
        others=("investigations.console.serving",),
    ),
    "keys": Entry(
        "producers.keys_cli", _SET_UP, "Create, list, rotate and revoke the API keys of the HTTP door."
    ),
    "inbox": Entry(
        "producers.inbox_cli", _SEND, "List and show what came in over HTTP, and run mappings again."
    ),
    "migrate": Entry("infra.db.cli", _SET_UP, "Bring the database's tables to this version."),
    "retain": Entry(
        "workers.keeping_cli",
        _SET_UP,
        "Retain evidence as long as the applied policy says, and no longer.",
    ),
    "erase": Entry(
        "workers.erasing_cli",
        _SET_UP,
        "Erase what is known of one person's order, click, lead or customer id, everywhere.",
    ),
    "legal-hold": Entry(
        "workers.keeping_cli",
        _SET_UP,
        "Hold evidence for a legal dispute: neither retention nor erasure touches it.",
    ),
    "destinations": Entry(
        "workers.destinations_cli", _SET_UP, "Check, apply, list, render and try destinations."
    ),
    "doctor": Entry("infra.doctor.cli", _SET_UP, "Say what is found and what is wrong, each with a remedy."),
    "users": Entry(
        "investigations.console.users_cli", _SET_UP, "Add, list and change the accounts of the console."
    ),
    "sink": Entry("infra.sink.cli", _SET_UP, "Receive postbacks as the ad networks would."),
    "find": Entry("investigations.cli", _ASK, "Find postbacks."),
    "dead": Entry("investigations.dead_cli", _ASK, "List dead and rejected letters by their causes."),
    "trail": Entry("investigations.cli", _ASK, "Tell a conversion's whole life in plain text."),
    "transcript": Entry("investigations.cli", _ASK, "Print one attempt as `curl --verbose -L` would."),
    "export": Entry(
        "investigations.export.cli",
        _ASK,
        "Hand over evidence: transcripts, curl commands, HAR, CSV, JSON, or all of them in a signed bundle.",
    ),
    "ledger": Entry("investigations.cli", _ASK, "Print the balance of everything taken in and fired."),
    "reconcile": Entry(
        "investigations.reconcile.cli", _ASK, "Reconcile a network's own report with our log."
    ),
    "reports": Entry(
        "investigations.reconcile.reports_cli",
        _ASK,
        "List, show and export the networks' reports that were reconciled.",
    ),
    "audit": Entry("investigations.audit_cli", _ASK, "List what people did, newest first."),
}


class Menu(TyperGroup):
    """Lists ``MENU`` and imports the one command that is called: ``--help`` must not wait for Celery."""

    def __init__(self, **attributes: Any) -> None:
        super().__init__(**attributes)
        self.commands = {
            name: TyperCommand(name, help=entry.about, rich_help_panel=entry.panel)
            for name, entry in MENU.items()
        }

    def resolve_command(self, ctx: Any, args: list[str]) -> tuple[str | None, Any, list[str]]:
        """The command itself in place of its line in the menu."""
        name, line, rest = super().resolve_command(ctx, args)
        return name, line and load_command(str(name)), rest


def load_command(name: str) -> Any:
    """Import a command of ``MENU`` from its room, or a group from every room that has a part in it."""
    entry = MENU[name]
    command = _of_room(entry.module, name)
    for module in entry.others:
        command.commands.update(_of_room(module, name).commands)
    return command


def _of_room(module: str, name: str) -> Any:
    room = typer.Typer()
    room.callback()(lambda: None)  # without it, Typer makes a room of one command that command
    import_module(module).register(room)
    group = typer.main.get_command(room)
    assert isinstance(group, TyperGroup)
    return group.commands[name]


app = typer.Typer(
    cls=Menu,
    help="Report only the conversions that stuck.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,  # they print local variables, and a local may be a secret
    context_settings={"help_option_names": ["-h", "--help"]},
)


@app.callback()
def _front_door(context: typer.Context) -> None:
    """Give commands what their own room may not import."""
    context.obj = _check_sources


def _check_sources(sources: Any) -> Any:
    """What is wrong with the sources of a configuration, as their hooks see it."""
    return import_module("producers.hooks.sources").check_sources(sources)


def main() -> None:
    """Run the command line. What a person can mend is said in a plain sentence, with exit code 2."""
    try:
        app(prog_name="holdfire")
    except Exception as error:
        said = None if os.environ.get(DEBUG_VARIABLE) else plain_words(error)
        if said is None:
            raise
        print(f"holdfire: {said}", file=sys.stderr)
        sys.exit(2)


def plain_words(error: Exception) -> str | None:
    """What to tell a person, or None for an error nobody foresaw: that one keeps its traceback.

    Errors of the rooms carry reason and remedy in their text.
    """
    if type(error).__module__.partition(".")[0] in ROOMS:
        return str(error)
    if isinstance(error, OSError) and error.errno in _DISK:
        return f"{error.strerror}: what was being written is cut short; make room and run it again"
    if "sqlalchemy.exc" not in sys.modules:
        return None
    from sqlalchemy.exc import OperationalError, ProgrammingError  # noqa: PLC0415 — only once a room imported it

    if isinstance(error, OperationalError):
        # Never str(error): that quotes the statement and its values.
        said = str(error.orig).strip().splitlines()
        reason = said[0] if said else "no reason given"
        return f"the database does not answer: {reason}; run `holdfire doctor`"
    if isinstance(error, ProgrammingError) and getattr(error.orig, "pgcode", None) == "42P01":
        return "the database has no tables of this version; run `holdfire migrate`"
    return None


if __name__ == "__main__":
    main()
