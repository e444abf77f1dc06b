"""The commands by which a person fires again, settles what is in doubt and reads the dead letters, as they are typed."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator

import pytest
import typer
from sqlalchemy import Engine
from typer.testing import CliRunner, Result

from infra.filters import AskingError
from infra.sink import SinkThread
from investigations import cli as reading
from investigations import dead_cli, doubts_cli, replay_cli, replays_cli
from tests.integration.ground import Ground, cleared, contract, conversion, generic_url

ONCE = {"attempts": 1, "base": "100ms", "factor": 2.0, "cap": "1s", "horizon": "1m"}
WHY = ("--reason", "the network is back")
Run = Callable[..., Result]


@pytest.fixture
def sink() -> Iterator[SinkThread]:
    with SinkThread() as running:
        yield running


@pytest.fixture
def ground(engine: Engine, sink: SinkThread) -> Ground:
    ground = cleared(engine)
    ground.apply(contract("d", generic_url(sink.url), retry=ONCE))
    return ground


@pytest.fixture
def run(database_url: str) -> Run:
    """Run a command as the front door does, with its output as it is when piped."""
    app = typer.Typer()
    for room in (replay_cli, replays_cli, doubts_cli, dead_cli, reading):
        room.register(app)
    runner = CliRunner(env={"HOLDFIRE_DATABASE_URL": database_url, "NO_COLOR": "1"})
    return lambda *arguments: runner.invoke(app, list(arguments))


def fail(ground: Ground, sink: SinkThread, how: str, *names: str) -> None:
    """Let the network answer these so, once."""
    sink.client.plan([{"behave": how, "times": 1}])
    ground.take(*(conversion(name) for name in names))
    with ground.firing() as gun:
        gun.fire_until_final()


def test_a_dry_run_says_what_would_fire_and_changes_nothing(
    ground: Ground, sink: SinkThread, run: Run
) -> None:
    """Counts by state, what would be refused and why, what it is worth, and a sample."""
    fail(ground, sink, "status:503", "e1", "e2")
    sink.client.plan([])
    fail(ground, sink, "status:200", "e3")
    before = ground.rows("SELECT * FROM postbacks ORDER BY id")
    said = run("replay", "--source", "shop", "--dry-run", "--per-second", "2")
    assert said.exit_code == 1
    lines = said.output.splitlines()
    assert lines[0] == "Would fire 2 again: 2 dead, in 1 s at 2/s."
    assert lines[1] == "They stand for 99.80 EUR."
    assert "it was delivered: the network would count it twice" in said.output
    assert "pb_1  dead → fires again  d  order e1  49.90 EUR  click id" in said.output
    assert "Nothing was changed." in said.output
    assert ground.rows("SELECT * FROM postbacks ORDER BY id") == before
    found = json.loads(run("replay", "--source", "shop", "--dry-run", "--json").stdout)
    assert (found["fires"], found["refused"], found["worth"]) == (2, 1, {"EUR": "99.80"})


def test_one_is_fired_again_and_its_trail_tells_by_whom(ground: Ground, sink: SinkThread, run: Run) -> None:
    """Who, why, in which run, and which attempt that was."""
    fail(ground, sink, "status:503", "e1")
    said = run("replay", "pb_1", *WHY, "--as", "anna")
    assert (said.exit_code, said.output.splitlines()[0]) == (0, "rn_1  firing  by anna: the network is back")
    waiting = run("trail", "pb_1").output
    assert "fires again in rn_1, with the next tick" in waiting
    with ground.firing() as gun:
        gun.fire_until_final()
    told = run("trail", "pb_1").output
    assert "to be fired again, by anna in rn_1: the network is back" in told
    assert "it was    dead after 1 attempt; due at" in told
    assert "attempt 2, 1 of 1 since it was fired again (replay)" in told
    assert "note      fired again in rn_1 by anna: the network is back" in told
    shown = json.loads(run("replays", "show", "rn_1", "--json").stdout)
    assert (shown["status"], shown["came_to"], shown["fired"]) == ("done", {"delivered": 1}, 1)
    assert run("replays", "list").output.startswith("rn_1    done")


def test_many_are_not_fired_again_unasked(ground: Ground, sink: SinkThread, run: Run) -> None:
    """Without a terminal to ask in, more than one wants --yes; a reason is wanted always."""
    fail(ground, sink, "status:503", "e1", "e2")
    with pytest.raises(
        AskingError, match="2 postbacks would fire again; look with --dry-run, then give --yes"
    ):
        raise run("replay", "--state", "dead", *WHY).exception or AssertionError
    with pytest.raises(AskingError, match="--reason is missing"):
        raise run("replay", "--state", "dead", "--yes").exception or AssertionError
    assert ground.states() == {"dead": 2}
    assert run("replay", "--state", "dead", "--yes", *WHY).exit_code == 0
    assert ground.states() == {"retrying": 2}


def test_a_run_is_paused_resumed_and_stopped(ground: Ground, sink: SinkThread, run: Run) -> None:
    """Paused, its postbacks are what they were; resumed, it takes them up again; stopped, it is over."""
    fail(ground, sink, "status:503", "e1", "e2")
    run("replay", "--state", "dead", "--yes", "--per-second", "0.01", *WHY)
    paused = run("replays", "pause", "rn_1", "--reason", "they asked us to wait")
    assert paused.output.splitlines()[0] == "Put back 2."
    assert ground.states() == {"dead": 2}
    assert run("replay", "--resume", "rn_1").exit_code == 0
    assert ground.states() == {"retrying": 2}
    assert ground.one("SELECT moved FROM replay_runs") == 2
    assert run("replays", "stop", "rn_1", "--reason", "for good").output.splitlines()[0] == "Put back 2."
    again = run("replay", "--resume", "rn_1")
    assert again.output.startswith("rn_1  stopped")
    assert ground.states() == {"dead": 2}
    assert run("ledger").exit_code == 0


def test_dead_letters_are_grouped_by_cause_and_a_cause_is_fired_again(
    ground: Ground, sink: SinkThread, run: Run
) -> None:
    """The command that a cause comes with fires exactly its own."""
    fail(ground, sink, "status:503", "e1", "e2")
    fail(ground, sink, "status:404", "e3")
    said = run("dead").output
    assert "2 dead  d: status 503" in said
    assert "1 rejected  d: status 404" in said
    assert "worth        99.80 EUR" in said
    first, second = [json.loads(line) for line in run("dead", "--json").stdout.splitlines()]
    assert (first["postbacks"], first["status_code"], first["example"]) == (2, 503, "pb_2")
    assert second["postbacks"] == 1
    command = first["replay"].split()[1:]
    dry = run(*command)
    assert dry.output.splitlines()[0].startswith("Would fire 2 again: 2 dead")
    run(*command[:-1], "--yes", *WHY)
    assert ground.states() == {"retrying": 2, "rejected": 1}
    assert [json.loads(line)["cause"] for line in run("dead", "--json").stdout.splitlines()] == [
        second["cause"]
    ]


def test_what_is_in_doubt_is_settled_as_the_network_said(ground: Ground, sink: SinkThread, run: Run) -> None:
    """Either way, with its reason; what is not in doubt is refused."""
    fail(ground, sink, "reset", "e1", "e2")
    assert run("settle", "--state", "in_doubt", "--as", "delivered", "--dry-run").output.startswith(
        "pb_1  in_doubt → delivered"
    )
    assert ground.states() == {"in_doubt": 2}
    said = run("settle", "pb_1", "--as", "delivered", "--reason", "their log has it", "--who", "anna")
    assert (said.exit_code, said.output.splitlines()) == (
        0,
        ["pb_1  in_doubt → delivered", "Settled 1 as delivered."],
    )
    run("settle", "pb_2", "--as", "not-counted", "--reason", "nothing there", "--who", "anna")
    assert ground.states() == {"delivered": 1, "dead": 1}
    refused = run("settle", "cv_1", "--as", "delivered", "--reason", "again")
    assert refused.exit_code == 1
    assert "it is not in doubt" in refused.output
    told = run("trail", "pb_1").output
    assert "settled by anna: the network has it: their log has it" in told
    assert "nothing: delivered, as anna learned from the network" in told
    assert run("ledger").exit_code == 0
