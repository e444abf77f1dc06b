"""Planted bugs: each makes the store a little wrong, the way it could be in earnest. The machine has to find every one."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import pytest
from sqlalchemy import text

import schemas.signals
from infra.store import correcting, firing, releasing, rulings, standings
from infra.store.naming import Case
from infra.store.replays import doubts, replay_back, replay_look, replaying
from schemas.ruling import Ruling
from schemas.signals import RefundSignal


@dataclass(frozen=True)
class Plant:
    """``put`` installs the bug for one test; ``at`` names a place where it shows, so that it need not be waited for."""

    name: str
    put: Callable[[pytest.MonkeyPatch], None]
    at: str = "window"
    people: bool = False
    """Whether it shows in what people do about what has ended."""


def _text(
    name: str, module: Any, constant: str, right: str, wrong: str, *, at: str = "window", people: bool = False
) -> Plant:
    """A statement that says something else; it has to have said ``right``, or nothing would be planted."""

    def put(patch: pytest.MonkeyPatch) -> None:
        statement = str(getattr(module, constant))
        assert statement.count(right), f"{constant} does not say {right!r} any more: plant this bug anew"
        patch.setattr(module, constant, text(statement.replace(right, wrong)))

    return Plant(name, put, at, people)


def _ruling(name: str, change: Callable[[Any, Ruling], Ruling], at: str = "window") -> Plant:
    """Every ruling is changed on its way from the rules to the store."""

    def put(patch: pytest.MonkeyPatch) -> None:
        rule = standings.rule
        patch.setattr(standings, "rule", _changed(rule, change))

    return Plant(name, put, at)


def _void_on_the_wire(postback: Any, ruling: Ruling) -> Ruling:
    return replace(ruling, wish=None, void=ruling.wish) if postback.state == "firing" else ruling


def _deaf_to_wishes(postback: Any, ruling: Ruling) -> Ruling:
    return replace(ruling, wish=None) if postback.state == "duplicate" else ruling


def _deaf_on_the_wire(postback: Any, ruling: Ruling) -> Ruling:
    return replace(ruling, wish=None, look_again=False) if postback.state == "firing" else ruling


def _void_wins_over_the_wire(patch: pytest.MonkeyPatch) -> None:
    """A signal takes back what is being sent, as if it had come in time."""
    patch.setattr(standings, "rule", _changed(standings.rule, _void_on_the_wire))
    right = rulings.VOIDABLE_SQL
    assert "'firing'" not in right
    patch.setattr(rulings, "VOIDABLE_SQL", right.replace(")", ", 'firing')"))


def _changed(rule: Callable[..., Ruling], change: Callable[[Any, Ruling], Ruling]) -> Callable[..., Ruling]:
    return lambda postback, *rest: change(postback, rule(postback, *rest))


def _cumulative_added_up(patch: pytest.MonkeyPatch) -> None:
    refunded = schemas.signals._refunded

    def wrong(partial: list[RefundSignal]) -> Any:
        return refunded([each.model_copy(update={"amount_is": "delta"}) for each in partial])

    patch.setattr(schemas.signals, "_refunded", wrong)


def _early_signals_lost(patch: pytest.MonkeyPatch) -> None:
    """A conversion that arrives asks for no signals about it."""
    apply = standings.apply

    def wrong(connection: Any, destinations: Any, now: Any, conversions: Any, signals: Any) -> int:
        return apply(connection, destinations, now, (), signals)

    patch.setattr(standings, "apply", wrong)


def _early_confirmations_lost(patch: pytest.MonkeyPatch) -> None:
    assert isinstance(Case.confirmed, property)
    right = Case.confirmed.fget
    assert right is not None
    patch.setattr(Case, "confirmed", property(lambda case: () if case.arrives else right(case)))


def _promotes_nobody(patch: pytest.MonkeyPatch) -> None:
    assert firing.promote_duplicates is rulings.promote_duplicates
    for module in (firing, rulings):
        patch.setattr(module, "promote_duplicates", lambda connection, ended: None)


def _forgets_what_failed(patch: pytest.MonkeyPatch) -> None:
    look_again = correcting.look_again
    patch.setattr(
        correcting,
        "look_again",
        lambda connection, ids, version, failed=(): look_again(connection, ids, version),
    )


def _corrects_too_soon(patch: pytest.MonkeyPatch) -> None:
    """What is on the wire is corrected as if it had arrived."""
    look_again, right = correcting.look_again, str(correcting.READ)
    assert "p.state = 'delivered'" in right
    patch.setattr(correcting, "READ", text(right.replace("= 'delivered'", "IN ('delivered', 'firing')")))

    def wrong(connection: Any, ids: Any, version: Any, failed: Any = ()) -> Any:
        found = connection.execute(
            text("SELECT id FROM postbacks WHERE state = 'firing' AND adjusts IS NULL")
        )
        return look_again(connection, sorted({*ids, *found.scalars()}), version, failed)

    patch.setattr(correcting, "look_again", wrong)


def _decides_on(
    change: Callable[[Any], Any], *, force: bool | None = None
) -> Callable[[pytest.MonkeyPatch], None]:
    """Whether a postback fires again is decided on something else than what it is."""
    right = replay_look.decide

    def wrong(postback: Any, now: Any, **asked: bool) -> Any:
        return right(change(postback), now, force=asked["force"] if force is None else force)

    return lambda patch: patch.setattr(replay_look, "decide", wrong)


def _replay_gives_its_key_away(patch: pytest.MonkeyPatch) -> None:
    move = replaying._move

    def wrong(connection: Any, run: Any, moved: Any, dues: Any) -> None:
        move(connection, run, moved, dues)
        ids = [each.row.id for each in moved]
        connection.execute(text("DELETE FROM dedupe_keys WHERE postback_id = ANY(:ids)"), {"ids": ids})

    patch.setattr(replaying, "_move", wrong)


PLANTS = [
    Plant(
        "a replay does not ask whether its conversion was taken back",
        _decides_on(lambda postback: replace(postback, taken_back=None)),
        people=True,
    ),
    Plant(
        "a replay is forced though nobody said so",
        _decides_on(lambda postback: postback, force=True),
        at="partner",
        people=True,
    ),
    Plant("a replay gives its dedupe key away", _replay_gives_its_key_away, at="atonce", people=True),
    _text(
        "a replay has only what is left of the first budget",
        replaying,
        "_MOVE",
        "budget_from = p.attempts",
        "budget_from = p.budget_from",
        at="atonce",
        people=True,
    ),
    _text(
        "what was delivered and is fired again is forgotten to have been",
        replaying,
        "_MOVE",
        "falls_back = r.falls_back",
        "falls_back = NULL",
        at="atonce",
        people=True,
    ),
    _text(
        "a signal voids what was delivered and is fired again",
        rulings,
        "READ",
        "first_attempt_at, falls_back",
        "first_attempt_at, NULL AS falls_back",
        at="atonce",
        people=True,
    ),
    _text(
        "what a stopped run puts back has lost its budget",
        replay_back,
        "_PUT_BACK",
        "(r.before->>'budget_from')::smallint",
        "p.attempts",
        at="atonce",
        people=True,
    ),
    _text(
        "what was not counted keeps its place",
        doubts,
        "_NOT_COUNTED",
        "freed = adjusts IS NULL",
        "freed = false",
        at="partner",
        people=True,
    ),
    Plant("a void beats an attempt on the wire", _void_wins_over_the_wire),
    _text(
        "the gate lets through what was voided",
        firing,
        "_LOCK_LEASED",
        "p.state = 'leased' AND p.lease_token = :token",
        "(p.state = 'leased' AND p.lease_token = :token OR p.state = 'voided')",
    ),
    Plant("a cumulative amount is added up", _cumulative_added_up),
    _text(
        "what is reinstated fires at once, though its window is open",
        rulings,
        "_REINSTATE",
        "ELSE p.release_at END",
        "ELSE now() END",
    ),
    Plant("a signal before its conversion is lost", _early_signals_lost),
    Plant("an approval before its conversion is lost", _early_confirmations_lost, at="credit"),
    Plant("a correction is ordered before its conversion was delivered", _corrects_too_soon),
    _text(
        "a late worker settles what was rescued",
        firing,
        "_SETTLE",
        "p.state = 'firing' AND p.lease_token = r.token",
        "p.state IN ('firing', 'retrying', 'held')",
        at="atonce",
    ),
    _text(
        "a wish is forgotten when the attempt failed",
        firing,
        "_SETTLE",
        "CASE WHEN r.state = 'retrying' AND p.void_reason IS NOT NULL THEN 'voided' ELSE r.state END",
        "r.state",
    ),
    Plant("nobody takes the place of what was voided", _promotes_nobody),
    _ruling("a duplicate that was taken back is promoted", _deaf_to_wishes),
    _ruling("a refund during the attempt is lost", _deaf_on_the_wire),
    _ruling(
        "a confirmation ends no window", lambda _, ruling: replace(ruling, release_early=False), at="credit"
    ),
    _ruling("nothing is ever reinstated", lambda _, ruling: replace(ruling, reinstate=False)),
    _text(
        "a rescued lease is due at its old end",
        releasing,
        "_RESCUE_LEASED",
        "CASE WHEN attempts = 0 THEN release_at ELSE due_at END",
        "now() + interval '1 hour'",
    ),
    _text(
        "one that is held is claimed before it is due",
        releasing,
        "_CLAIM",
        "due_at <= now()",
        "due_at <= now() + interval '30 min'",
    ),
    Plant("a correction that failed is tried for ever", _forgets_what_failed, at="atonce"),
]
