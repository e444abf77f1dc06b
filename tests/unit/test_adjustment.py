"""What becomes of a delivered postback whose credit does not stand any more, case by case."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest

from infra.catalogue import load_catalogue
from schemas.adjustment import (
    NOTHING,
    WAIT,
    Adjusting,
    Correction,
    Credit,
    Delivered,
    correct,
    kind_of,
    lost,
    tells_change,
)
from schemas.destination import Contract, Destination, join
from schemas.lifecycle import State
from schemas.network import AdjustmentKind


def contract(*kinds: str, revives: bool = True, told: str = "value", **table: Any) -> Contract:
    """A destination at a network of ours that takes these corrections."""
    taken = {
        kind: {
            "url": f"https://n.example/{kind}?c={{click_id}}&v={{{told}}}",
            "dedupe": "harmless",
            "basis": "ours",
        }
        for kind in kinds
    }
    if "restatement" in taken:
        taken["restatement"]["revives"] = revives  # type: ignore[assignment] # a table of mixed values
    raw = {
        "network": "generic",
        "events": ["purchase"],
        "settings": {"url": "https://n.example/p?c={click_id}"},
        "rules": {"adjustments": taken},
        **table,
    }
    return join("d", Destination.model_validate(raw), load_catalogue()["generic"])


def credit(value: str | None) -> Credit:
    return Credit(counted=True, value=None if value is None else Decimal(value))


FULL, PART = credit("49.90"), credit("39.90")
BOTH = ("retraction", "restatement")


@pytest.mark.parametrize(
    ("kinds", "revives", "told", "standing", "kind"),
    [
        (BOTH, True, FULL, NOTHING, "retraction"),
        (BOTH, True, FULL, PART, "restatement"),
        (BOTH, True, NOTHING, PART, "restatement"),
        (BOTH, False, NOTHING, PART, None),
        (("retraction",), True, FULL, PART, None),
        (("restatement",), True, FULL, NOTHING, "restatement"),
        (("restatement",), False, NOTHING, FULL, "restatement"),
        (("restatement",), True, credit(None), NOTHING, None),
        (("retraction",), True, credit(None), NOTHING, "retraction"),
        ((), True, FULL, NOTHING, None),
    ],
)
def test_the_network_is_told_as_it_can_be(
    kinds: tuple[str, ...], *, revives: bool, told: Credit, standing: Credit, kind: AdjustmentKind | None
) -> None:
    """By retraction where there is one, by a restatement otherwise; a revival only where it brings back."""
    assert kind_of(contract(*kinds, revives=revives), told, standing) == kind


@pytest.mark.parametrize(
    ("told", "standing", "value", "amount"),
    [
        (FULL, NOTHING, "49.90", "49.90"),
        (FULL, PART, "49.90", "10.00"),
        (NOTHING, FULL, "49.90", "-49.90"),
        (credit(None), NOTHING, None, None),
    ],
)
def test_a_loss_is_what_the_network_shows_too_much(
    told: Credit, standing: Credit, value: str | None, amount: str | None
) -> None:
    """Negative where it shows too little, and no amount without a value."""
    paid = None if value is None else Decimal(value)
    assert lost(told, standing, paid) == (None if amount is None else Decimal(amount))


def delivered(told: Credit, standing: Credit, *made: Adjusting, **fields: bool) -> Delivered:
    flags = {"given_up": False, "failed": False} | fields
    return Delivered(told, standing, Decimal("49.90"), **flags, adjustments=made)


def made(kind: AdjustmentKind, state: State) -> Adjusting:
    return Adjusting(7, kind, state)


@pytest.mark.parametrize(
    ("looked", "becomes"),
    [
        (delivered(FULL, FULL), Correction()),
        (delivered(FULL, NOTHING), Correction(order="retraction")),
        (delivered(FULL, NOTHING, made("retraction", State.HELD)), WAIT),
        (delivered(FULL, NOTHING, made("retraction", State.DELIVERED)), Correction(order="retraction")),
        (delivered(FULL, FULL, made("retraction", State.RETRYING)), Correction(withdraw=7)),
        (delivered(FULL, FULL, made("retraction", State.FIRING)), WAIT),
        (
            delivered(FULL, NOTHING, made("restatement", State.LEASED)),
            Correction(order="retraction", withdraw=7),
        ),
        (delivered(FULL, NOTHING, made("retraction", State.REJECTED), failed=True), Correction(loses=True)),
        (delivered(FULL, NOTHING, made("retraction", State.DEAD), given_up=True), Correction(loses=True)),
        (delivered(FULL, PART, made("restatement", State.DEAD)), Correction(order="restatement")),
    ],
)
def test_one_correction_at_a_time_tells_what_stands(looked: Delivered, becomes: Correction) -> None:
    """An open one of the right kind is enough, a wrong one is withdrawn, a failed one is not repeated for the same."""
    assert correct(contract(*BOTH), looked) == becomes


def test_a_change_on_top_of_an_unknown_one_is_for_a_person() -> None:
    """Of totals the next one puts it right; of changes nobody knows what the network has."""
    looked = delivered(FULL, PART, made("restatement", State.IN_DOUBT))
    assert correct(contract(*BOTH, told="delta"), looked) == Correction(loses=True)
    assert correct(contract(*BOTH, told="value"), looked) == Correction(order="restatement")
    assert tells_change(contract(*BOTH, told="delta"), "restatement")


def test_an_account_that_sends_no_adjustments_loses() -> None:
    refuses = contract(*BOTH, adjust={"send": False})
    assert correct(refuses, delivered(FULL, NOTHING)) == Correction(loses=True)
