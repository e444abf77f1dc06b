"""The ledger is worth something because it fails: each kind of damage is seen, named, and ends in exit code 1."""

from __future__ import annotations

from decimal import Decimal

import pytest
import typer
from sqlalchemy import Engine, text
from typer.testing import CliRunner

from infra.db.engine import open_engine
from infra.db.snapshot import snapshot
from infra.store.ledger import read_ledger
from investigations import cli
from schemas.lifecycle import State
from tests.integration.scenes import Scene, contract, conversion, refund


@pytest.fixture(scope="module", autouse=True)
def scene(engine: Engine) -> Scene:
    """One delivered, one voided, one duplicate and one held: enough for every entry to count something."""
    scene = Scene(engine)
    scene.apply(contract("push-eu"), contract("xandr-main", wait="14d"))
    scene.take(conversion("delivered", "push"))
    scene.settle(scene.fire_one("delivered"))
    scene.take(
        conversion("copy", "push", click_ids={"push": conversion("delivered", "push")["click_ids"]["push"]})
    )
    scene.take(conversion("held", "xandr", value="10.00"), conversion("voided", "xandr"))
    scene.take(
        refund("r-voided", "order-voided"), refund("r-held", "order-held", amount="2.50", currency="EUR")
    )
    scene.take(conversion("delivered", "push"))
    return scene


def test_it_says_what_postbacks_are_worth_by_currency_and_state(engine: Engine) -> None:
    """What was ordered and what is left of it after refunds."""
    amounts = {each.state: each for each in read_ledger(engine).amounts}
    assert {each.currency for each in amounts.values()} == {"EUR"}
    assert amounts[State.DELIVERED].value == Decimal("49.90")
    assert (amounts[State.HELD].value, amounts[State.HELD].net) == (Decimal("10.00"), Decimal("7.50"))
    assert amounts[State.VOIDED].value == Decimal("49.90")


DAMAGE = {
    "postbacks": "DELETE FROM postbacks WHERE state = 'held'",
    "events": "DELETE FROM rejects",
    "attempts": "DELETE FROM attempts",
    "intents": "DELETE FROM intents",
    "delivered_without_attempt": "UPDATE postbacks SET state = 'delivered', due_at = NULL WHERE state = 'held'",
    "voided_but_delivered": "UPDATE postbacks SET state = 'voided', void_reason = 'refunded' WHERE state = 'delivered'",
    "fired_after_void": """UPDATE postbacks SET state = 'voided', void_reason = 'refunded',
        settled_at = settled_at - interval '1 hour' WHERE state = 'delivered'""",
    "fired_early": "UPDATE postbacks SET release_at = now() + interval '1 hour' WHERE state = 'delivered'",
    "duplicate_fired": """INSERT INTO intents (attempt_id, postback_id, number, intent_at, worker, url)
        SELECT 0, id, 1, now() + interval '1 minute', '', '' FROM postbacks WHERE state = 'duplicate'""",
}


@pytest.mark.parametrize(("key", "damage"), DAMAGE.items(), ids=DAMAGE)
def test_damage_is_named_and_ends_in_exit_code_1(database_copy: str, key: str, damage: str) -> None:
    """Whatever is done behind the machine's back, with triggers off, makes an entry differ."""
    spoiled = open_engine(database_copy)
    with spoiled.begin() as connection:
        connection.execute(text("SET LOCAL session_replication_role = replica"))
        connection.execute(text(damage))
    wrong = {entry.key for entry in read_ledger(spoiled).entries if not entry.balances}
    spoiled.dispose()
    app = typer.Typer()
    app.callback()(lambda: None)
    cli.register(app)
    result = CliRunner(env={"HOLDFIRE_DATABASE_URL": database_copy}).invoke(app, ["ledger"])
    assert key in wrong
    assert result.exit_code == 1
    assert "The ledger does not balance: " in result.stdout
    assert key in result.stdout


def test_it_reads_one_instant_while_others_write(engine: Engine, scene: Scene) -> None:
    """What is committed between two of its queries is not in the second either."""
    count = text("SELECT count(*) FROM conversions")
    with snapshot(engine) as connection:
        before = connection.execute(count).scalar_one()
        scene.take(conversion("meanwhile", "xandr"))
        assert connection.execute(count).scalar_one() == before
    assert read_ledger(engine).balances
