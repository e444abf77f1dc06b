"""What an investigator reads of corrections: conversions that were delivered to a sink, and taken back after that."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from decimal import Decimal
from io import StringIO
from typing import Any

import pytest
import typer
from rich.console import Console
from sqlalchemy import Engine, text
from typer.testing import CliRunner, Result

from infra.db.engine import open_engine
from infra.sink import SinkThread
from infra.store.ledger import Loss, read_ledger
from infra.store.searching.search import Criteria, find_postbacks, postback_conditions
from investigations import cli
from investigations.columns import postback_columns, show_columns
from schemas.lifecycle import State
from tests.integration.ground import Ground, cleared, contract, conversion, generic_url, signal

Run = Callable[..., Result]
CREDIT = {"kind": "credit_check", "wait": "30d"}


def adjusting(name: str, base: str, behaviour: str = "", **table: Any) -> Any:
    """A destination that takes conversions called as it is, and corrections, at which the sink behaves as told."""
    url = f"{generic_url(base, behaviour)}&was={{delta}}"
    adjustments = {"retraction": {"url": url}, "restatement": {"url": url}}
    return contract(name, generic_url(base), events=[name], rules={"adjustments": adjustments}, **table)


@pytest.fixture(scope="module")
def ground(engine: Engine) -> Iterator[Ground]:
    """One of every correction: waiting, delivered, withdrawn, refused by the network, and what could not be told."""
    ground = cleared(engine)
    with SinkThread() as sink:
        ground.apply(
            adjusting("waits", sink.url, adjust={"wait": "1h"}),
            adjusting("adjusts", sink.url),
            adjusting("refuses", sink.url, "status:403"),
            contract("silent", generic_url(sink.url), events=["silent"]),
            contract("leads", generic_url(sink.url).partition("&")[0], events=["leads"]),
            adjusting("credit", sink.url, hold=CREDIT),
        )
        named = {
            "asked": "waits", "undone": "waits", "restated": "adjusts", "retracted": "adjusts", "refused": "refuses",
            "missed": "silent", "partly": "silent", "lasting": "silent",
        }  # fmt: skip
        ground.take(*(conversion(event, name=name) for event, name in named.items()))
        ground.take(conversion("lead", name="leads", value=None, currency=None))
        with ground.firing() as gun:
            gun.fire()
            ground.take(
                signal("refund", "r-asked", "asked"),
                signal("chargeback", "d-undone", "undone", outcome="opened"),
                signal("refund", "r-restated", "restated", amount="10.00", currency="EUR"),
                signal("cancel", "c-retracted", "retracted"),
                signal("refund", "r-refused", "refused"),
                signal("cancel", "c-missed", "missed"),
                signal("refund", "r-partly", "partly", amount="9.90", currency="EUR"),
                signal("cancel", "c-lead", "lead"),
            )
            ground.take(signal("chargeback", "w-undone", "undone", outcome="won"))
            gun.fire()
        ground.take(
            *(conversion(event, name="credit") for event in ("undecided", "approved", "declined", "reviewed"))
        )
        ground.take(
            signal("credit_check", "a-approved", "approved", outcome="approved"),
            signal("credit_check", "d-declined", "declined", outcome="declined"),
            signal("credit_check", "v-reviewed", "reviewed", outcome="review"),
        )
        rebills = [
            conversion(f"rebill-{n}", name="rebill", order_id="rebills", sequence=n, partner_id="p")
            for n in (1, 2)
        ]
        ground.take(*rebills, signal("refund", "r-rebill", "rebills", sequence=2))
    return ground


@pytest.fixture
def run(ground: Ground, database_url: str) -> Run:
    """Run a command as the front door does, with its output as it is when piped."""
    app = typer.Typer()
    cli.register(app)
    runner = CliRunner(env={"HOLDFIRE_DATABASE_URL": database_url, "NO_COLOR": "1"})
    return lambda *arguments: runner.invoke(app, list(arguments))


def original(ground: Ground, event_id: str) -> Any:
    return ground.one(
        """SELECT p.id FROM postbacks p JOIN conversions c ON c.id = conversion_id
        WHERE c.event_id = :id AND adjusts IS NULL""",
        id=event_id,
    )


def adjustment(ground: Ground, event_id: str) -> Any:
    return ground.one("SELECT id FROM postbacks WHERE adjusts = :id", id=original(ground, event_id))


def test_the_ledger_counts_adjustments_beside_what_they_correct(ground: Ground) -> None:
    """Every postback that stands was planned by routing or ordered of a delivered one."""
    books = read_ledger(ground.engine)
    assert books.balances, [entry for entry in books.entries if not entry.balances]
    left = {entry.key: entry.left.count for entry in books.entries}
    assert (left["postbacks"], left["adjustments"]) == (13 + 5, 5)
    assert {(each.kind, each.state, each.postbacks) for each in books.adjustments} == {
        ("retraction", State.HELD, 1),
        ("retraction", State.VOIDED, 1),
        ("retraction", State.DELIVERED, 1),
        ("retraction", State.REJECTED, 1),
        ("restatement", State.DELIVERED, 1),
    }


def test_the_ledger_is_worth_what_conversions_are_and_no_adjustment_doubles_it(ground: Ground) -> None:
    """Eight of 49.90 were delivered, and what is left of them is what refunds and a retraction left."""
    amounts = {each.state: each for each in read_ledger(ground.engine).amounts}
    delivered = amounts[State.DELIVERED]
    assert (delivered.postbacks, delivered.value) == (8, Decimal("49.90") * 8)
    assert delivered.net == Decimal("39.90") + Decimal("40.00") + Decimal("49.90") * 2
    assert State.REJECTED not in amounts


def test_the_ledger_adds_up_what_networks_cannot_be_told(ground: Ground, run: Run) -> None:
    """By currency, and what has no amount by itself."""
    assert read_ledger(ground.engine).losses == (
        Loss("EUR", 3, Decimal("49.90") * 2 + Decimal("9.90"), Decimal(0)),
        Loss(None, 1, Decimal(0), Decimal(0)),
    )
    printed = run("ledger").stdout
    assert re.search(r"^cannot be told +EUR +3 +109\.70 +0$", printed, re.MULTILINE)
    assert re.search(r"^cannot be told +no amount +1 +- +-$", printed, re.MULTILINE)
    losses = json.loads(run("ledger", "--json").stdout)["losses"]
    assert losses[1] == {"currency": None, "postbacks": 1, "too_much": None, "too_little": None}


ORIGINAL = "(SELECT adjusts FROM postbacks WHERE adjusts IS NOT NULL ORDER BY id LIMIT 1)"
# Each of these would also be a fault of the machine that no other entry sees.
DAMAGE = {
    "postbacks": "DELETE FROM postbacks WHERE adjusts IS NOT NULL AND state = 'held'",
    "adjustments": "UPDATE postbacks SET adjustments = adjustments + 1 WHERE state = 'delivered'",
    "adjusted_undelivered": f"UPDATE postbacks SET state = 'dead' WHERE id = {ORIGINAL}",
    "adjusted_twice_at_once": f"""
        UPDATE postbacks SET state = 'held', due_at = now(), adjusts = {ORIGINAL} WHERE adjusts IS NOT NULL""",
    "lost_undelivered": "UPDATE postbacks SET state = 'dead' WHERE lost_at IS NOT NULL",
}


@pytest.mark.parametrize(("key", "damage"), DAMAGE.items(), ids=DAMAGE)
def test_the_ledger_names_what_cannot_be_of_a_correction(
    ground: Ground, database_copy: str, key: str, damage: str
) -> None:
    """Whatever is done behind the machine's back, with triggers off, makes an entry differ."""
    spoiled = open_engine(database_copy)
    with spoiled.begin() as connection:
        connection.execute(text("SET LOCAL session_replication_role = replica"))
        connection.execute(text(damage))
    wrong = {entry.key for entry in read_ledger(spoiled).entries if not entry.balances}
    spoiled.dispose()
    assert key in wrong


def found(run: Run, *arguments: str) -> dict[str, Any]:
    result = run("find", *arguments, "--json")
    assert result.exit_code == 0, result.output
    return {row["event_id"]: row for row in map(json.loads, result.stdout.splitlines())}


def test_find_lists_what_is_lost_with_its_amount(ground: Ground, run: Run) -> None:
    """Whatever the reason: the network takes no corrections, or refused this one."""
    rows = found(run, "--lost")
    assert {event: row["lost"] for event, row in rows.items()} == {
        "missed": "49.90",
        "partly": "9.90",
        "refused": "49.90",
        "lead": None,
    }
    assert all(row["lost_at"] for row in rows.values())
    assert rows["missed"]["outcomes"] == ["cancel"]
    assert "lead" in found(run, "--lost", "--destination", "leads")
    assert set(found(run, "--lost", "--state", "held")) == set()


def test_find_lists_corrections_apart(ground: Ground, run: Run) -> None:
    """Each names what it corrects and what it told."""
    rows = found(run, "--adjustments")
    assert set(rows) == {"asked", "undone", "restated", "retracted", "refused"}
    restated = rows["restated"]
    assert (restated["adjustment"], restated["reported"]) == ("restatement", "39.90")
    assert restated["adjusts"] == f"pb_{original(ground, 'restated')}"
    assert set(found(run, "--adjustments", "--state", "held")) == {"asked"}


def test_find_shows_losses_and_corrections_only_where_there_are_any(ground: Ground, run: Run) -> None:
    """Their columns take no room in a listing that has none."""
    assert {"lost", "corrects", "adjustment"}.isdisjoint(
        run("find", "--destination", "credit").stdout.split()
    )
    assert re.search(r"delivered +49\.90 EUR +silent", run("find", "--lost").stdout)
    held = run("find", "--adjustments", "--state", "held").stdout
    assert re.search(rf"held +pb_{original(ground, 'asked')} +retraction +waits", held)


def test_a_narrow_terminal_tells_a_correction_from_what_it_corrects(ground: Ground) -> None:
    """Eighty characters have room for the postback that is corrected, and for what is lost."""
    printed = StringIO()
    narrow = Console(file=printed, width=80, force_terminal=True, no_color=True)
    columns = postback_columns(find_postbacks(ground.engine, Criteria(), None).rows)
    assert {"corrects", "lost"}.isdisjoint(show_columns(narrow, columns))
    assert {"corrects", "lost"} <= set(re.sub(r"\x1b\[[0-9;]*m", "", printed.getvalue()).split())


@pytest.mark.parametrize("option", ["--lost", "--adjustments"])
def test_find_refuses_to_look_for_corrections_among_what_is_no_postback(run: Run, option: str) -> None:
    """It is never quietly left out."""
    result = run("find", "--signals", option)
    assert f"{option} does not apply to --signals" in str(result.exception)


def test_find_meets_losses_by_their_own_index(ground: Ground) -> None:
    """However many postbacks there are, a loss that is long ago is not looked for among them all."""
    where, _ = postback_conditions(Criteria(lost=True))
    with ground.engine.begin() as connection:
        connection.execute(text("SET LOCAL enable_seqscan = off"))
        plan = connection.execute(text(f"EXPLAIN SELECT p.id FROM postbacks p WHERE {where}")).scalars()
        assert "postbacks_lost" in "\n".join(plan)


def test_a_signal_is_told_only_with_the_rebill_that_it_names(run: Run) -> None:
    """Rebills share their order id; a refund of the second is no part of the first one's life."""
    assert "r-rebill" not in run("trail", "rebill-1").stdout
    assert "r-rebill" in run("trail", "rebill-2").stdout
    by_signal = [json.loads(row) for row in run("trail", "r-rebill", "--json").stdout.splitlines()]
    lives = [row["conversion"]["event"]["event_id"] for row in by_signal if "conversion" in row]
    assert lives == ["rebill-2"]


def trail(run: Run, event_id: str) -> str:
    result = run("trail", event_id)
    assert result.exit_code == 0, result.output
    return result.stdout


def test_a_trail_tells_a_correction_like_any_postback(ground: Ground, run: Run) -> None:
    """Ordered by a signal, due, sent, and what it told: under the postback that it corrects."""
    text, of = trail(run, "restated"), f"pb_{original(ground, 'restated')}"
    correcting = f"pb_{adjustment(ground, 'restated')}"
    steps = [
        "  net value    39.90 EUR of 49.90 EUR\n  stands       partly refunded\n",
        f"\n{of} → adjusts  delivered\n",
        "  told last    39.90 EUR of 49.90 EUR\n",
        f"\n{correcting} → adjusts  delivered  restatement of {of}\n",
        "  held         not at all: fires at once\n",
        "received, routed to adjusts\n",
        f"{correcting} tells adjusts that 39.90 stands of {of}",
        f"{correcting}  restatement of {of}, due at once\n",
        f"restatement of {of}, attempt 1 of 3 (release) by ",
        "value=39.90&was=-10.00 HTTP/1.1",
        f"told      39.90 EUR of {of} stand\n",
        f"{of}   adjusts  delivered  nothing: delivered by attempt 1; the network was told last: 39.90 EUR of 49.90 EUR",
        f"restatement of {of}: delivered by attempt 1; it told that 39.90 EUR of {of} stand",
    ]
    places = [text.find(step) for step in steps]
    assert -1 not in places, steps[places.index(-1)]
    assert places == sorted(places)


def test_a_transcript_of_a_correction_says_what_it_is(ground: Ground, run: Run) -> None:
    """Support is told what it corrects, not only that it was sent."""
    text = run("transcript", f"pb_{adjustment(ground, 'retracted')}").stdout
    assert f"# correction  retraction of pb_{original(ground, 'retracted')}\n" in text


def test_a_trail_tells_why_a_correction_was_withdrawn(ground: Ground, run: Run) -> None:
    """The dispute was won before anybody was told of it."""
    text, of = trail(run, "undone"), original(ground, "undone")
    assert f"retraction of pb_{of} withdrawn: what it was to tell does not stand any more\n" in text
    assert "  stands       dispute won\n" in text


def test_a_trail_tells_a_correction_that_waits(ground: Ground, run: Run) -> None:
    """Until when several signals make one."""
    text = trail(run, "asked")
    assert "  held         for 1h, so that several signals make one correction; until " in text
    assert f"corrected by pb_{adjustment(ground, 'asked')}, which fires at " in text


@pytest.mark.parametrize(
    ("event_id", "told", "why"),
    [
        (
            "missed",
            "lost 49.90 EUR: silent cannot be told; it goes on showing 49.90",
            "network generic takes no retraction",
        ),
        (
            "partly",
            "lost 9.90 EUR: silent cannot be told; it goes on showing 49.90",
            "network generic takes no restatement",
        ),
        (
            "lead",
            "lost: leads cannot be told; it goes on showing the conversion",
            "network generic takes no retraction",
        ),
        (
            "refused",
            "lost 49.90 EUR: refuses cannot be told; it goes on showing 49.90",
            "is rejected: status 403",
        ),
    ],
)
def test_a_loss_is_a_moment_with_its_amount_and_cause(run: Run, event_id: str, told: str, why: str) -> None:
    """What the network goes on showing stands in the head, in the timeline and at the end."""
    text = trail(run, event_id)
    head, _, rest = text.partition("time (UTC)")
    timeline, _, now = rest.rpartition("\nnow  ")
    assert f"  lost         {told.removeprefix('lost').lstrip(': ')}\n" in head
    assert re.search(rf"{re.escape(told)}\n +.*{re.escape(why)}\n", timeline)
    assert told in now


def test_a_trail_in_json_has_what_was_told_and_what_is_lost(ground: Ground, run: Run) -> None:
    """Field names that programs can rely on."""
    life = json.loads(run("trail", "restated", "--json").stdout)["conversion"]
    of, correcting = life["postbacks"]
    assert life["outcomes"] == ["partial_refund"]
    assert (of["adjustment"], of["reported"], of["lost_at"]) == (None, "39.90", None)
    assert (correcting["adjustment"], correcting["adjusts"]) == ("restatement", of["id"])
    lost = json.loads(run("trail", "partly", "--json").stdout)["conversion"]
    assert lost["postbacks"][0]["lost"] == "9.90"
    assert "lost" in [moment["kind"] for moment in lost["moments"]]


def test_a_trail_says_what_a_credit_decision_did(run: Run) -> None:
    """Waited for, given, refused, or put off."""
    assert "waits for a credit decision until " in trail(run, "undecided")
    approved = trail(run, "approved")
    assert "  stands       credit approved\n" in approved
    assert re.search(r"without a decision voided then; ended early by sg_\d+: 20", approved)
    assert re.search(r"pb_\d+  its window was ended early by sg_\d+: due\n", approved)
    assert "voided as declined, it never fires unless a later decision takes that back\n" in trail(
        run, "declined"
    )
    assert "is under review and waits for a credit decision" in trail(run, "reviewed")
