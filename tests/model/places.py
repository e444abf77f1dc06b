"""The destinations of the model's world: each as the model knows it, and as it is applied for real."""

from __future__ import annotations

from typing import Any

from schemas.destination import Contract, Destination
from schemas.network import Network
from tests.model.rules import Correcting, Place, Policy

RETRACTS = Correcting("harmless")
RESTATES = Correcting("harmless", revives=True)

PLACES = [
    Place(
        "window",
        Policy("refund", 60),
        "rejected",
        retraction=RETRACTS,
        restatement=RESTATES,
    ),
    Place(
        "atonce",
        Policy("none"),
        "harmless",
        attempts=2,
        retraction=Correcting("counted_twice"),
        correction_wait=20,
    ),
    Place(
        "credit",
        Policy("credit_check", 120, release_on=("credit_check.approved",), voids_undecided=True),
        "counted_twice",
        restatement=Correcting("rejected", revives=True),
    ),
    Place(
        "lender",
        Policy("credit_check", 60),
        "rejected",
        age_limit=105,
        restatement=Correcting("harmless"),
    ),
    Place(
        "patient",
        Policy(
            "refund",
            90,
            release_on=("chargeback.won", "credit_check.approved"),
            void_on=("refund", "cancel", "chargeback.lost", "credit_check.declined"),
            manual=True,
        ),
        "harmless",
        sub_id=True,
        horizon=25,
        retraction=RETRACTS,
        restatement=Correcting("counted_twice", by_delta=True),
    ),
    Place(
        "partner",
        Policy(
            "refund",
            30,
            measured_from="receipt",
            void_on=(
                "refund",
                "partial_refund",
                "cancel",
                "chargeback.opened",
                "chargeback.lost",
                "credit_check.declined",
            ),
        ),
        "counted_twice",
        partner=True,
        retraction=RETRACTS,
        restatement=RESTATES,
        correction_wait=10,
    ),
    Place(
        "silent",
        Policy("refund", 20, release_on=("credit_check.approved",)),
        "rejected",
        sends_corrections=False,
        age_limit=45,
        retraction=RETRACTS,
    ),
]
"""Whatever a policy and a network can be to each other, in seven. Age limits and horizons lie between two steps of
the clock, so that the seconds that a run itself takes never decide."""


def contract(place: Place) -> Contract:
    """The same, as a person would configure it and the catalogue would say it."""
    value = {"name": "value", "value": "{value}", "optional": True}
    network = {
        "slug": place.name,
        "title": place.name,
        "docs": "https://example.com/docs",
        "protocols": ["partner" if place.partner else "transaction"],
        "url": f"https://{place.name}.example.com/postback",
        "parameters": [
            {"name": "order", "value": "{order_id}", "optional": True},
            {"name": "click", "value": "{click_id}", "optional": True},
            value,
        ],
        "dedupe": place.dedupe,
        "dedupe_basis": "as the model has it",
        "sub_id": place.sub_id,
        "age_limit": place.age_limit and {"wait": f"{place.age_limit}m", "measured_from": "event"},
        "adjustments": {
            kind: {
                "url": f"https://{place.name}.example.com/{kind}",
                "parameters": [
                    {"name": "delta", "value": "{delta}", "optional": True} if correcting.by_delta else value
                ],
                "dedupe": correcting.dedupe,
                "basis": "as the model has it",
                "revives": correcting.revives,
            }
            for kind, correcting in (("retraction", place.retraction), ("restatement", place.restatement))
            if correcting is not None
        },
    }
    destination = {
        "network": place.name,
        "events": ["purchase"],
        "hold": _hold(place.policy),
        "retry": {
            "attempts": place.attempts,
            "base": f"{place.base}m",
            "factor": 2.0,
            "cap": "6h",
            "jitter": 0,
            "horizon": f"{place.horizon}m",
        },
        "adjust": {"send": place.sends_corrections, "wait": f"{place.correction_wait}m"},
    }
    return Contract(
        name=place.name,
        destination=Destination.model_validate(destination),
        network=Network.model_validate(network),
    )


def _hold(policy: Policy) -> dict[str, Any]:
    hold: dict[str, Any] = {"kind": policy.kind, "void_on": policy.void_on}
    if policy.wait:
        hold["wait"] = f"{policy.wait}m"
        hold["measured_from"] = policy.measured_from
        hold["release_on"] = policy.release_on
    if policy.kind == "credit_check":
        hold["on_timeout"] = "void" if policy.voids_undecided else "release"
    if policy.manual:
        hold["release"] = "manual"
    return hold
