"""``holdfire replays``: runs of replays, what became of each, and a way to stop them."""

from __future__ import annotations

from typing import Annotated

import typer

from infra.filters import AsJson
from infra.open import open_store
from infra.selecting import Reason, Who, read_signature
from infra.store.replays import replay_back, replaying
from investigations.page import line, print_json, show
from investigations.replay_cli import read_run_id
from investigations.replay_page import run_json, run_line, run_page

commands = typer.Typer(
    help="List, show, pause and stop runs of replays.",
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
)
RunId = Annotated[str, typer.Argument(metavar="rn_N", help="A run.")]


def register(app: typer.Typer) -> None:
    app.add_typer(commands, name="replays")


@commands.command("list")
def list_(as_json: AsJson = False) -> None:
    """List runs, the newest first."""
    with open_store() as engine:
        found = replaying.runs(engine)
    if as_json:
        print_json(map(run_json, found))
        return
    show(map(run_line, found))
    if not found:
        show([line("No run of replays yet.")])


@commands.command("show")
def show_(run_id: RunId, as_json: AsJson = False) -> None:
    """Show one run: what it moved, what it refused and why, and what became of it."""
    with open_store() as engine:
        found = replaying.run(engine, read_run_id(run_id))
    if as_json:
        print_json([run_json(found)])
    else:
        show(run_page(found))


@commands.command("stop")
def stop(run_id: RunId, reason: Reason = None, who: Who = None, as_json: AsJson = False) -> None:
    """End a run: what has not fired yet is put back, and is what it was."""
    _halt(run_id, "stop", reason, who, as_json=as_json)


@commands.command("pause")
def pause(run_id: RunId, reason: Reason = None, who: Who = None, as_json: AsJson = False) -> None:
    """Put back what has not fired yet; `holdfire replay --resume` fires it again."""
    _halt(run_id, "pause", reason, who, as_json=as_json)


def _halt(run_id: str, how: str, reason: str | None, who: str | None, *, as_json: bool) -> None:
    number = read_run_id(run_id)
    signature = read_signature(f"replays {how}", reason, who, "the network asked us to wait")
    with open_store() as engine:
        count = (replay_back.stop if how == "stop" else replay_back.pause)(engine, number, signature)
        found = replaying.run(engine, number)
    if as_json:
        print_json([run_json(found)])
        return
    show([line(f"Put back {count:,}.")])
    show(run_page(found))
