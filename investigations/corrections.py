"""Corrections in words: what an adjustment tells, what a network was told last, and what it cannot be told. Pure."""

from __future__ import annotations

from decimal import Decimal

from infra.store.records import Life, PostbackRecord
from investigations.words import clock, money, visible
from schemas.adjustment import NOTHING, credited, kind_of, stands
from schemas.ids import show
from schemas.lifecycle import FINAL, State
from schemas.money import plain
from schemas.network import AdjustmentKind
from schemas.signals import Outcome

OUTCOMES: dict[Outcome, str] = {
    "refund": "refunded",
    "partial_refund": "partly refunded",
    "cancel": "cancelled",
    "chargeback.opened": "charged back, dispute open",
    "chargeback.won": "dispute won",
    "chargeback.lost": "charged back, dispute lost",
    "credit_check.approved": "credit approved",
    "credit_check.declined": "credit declined",
    "credit_check.review": "credit under review",
}
_FAILED = {State.REJECTED, State.DEAD, State.EXPIRED, State.IN_DOUBT}


def title(adjustment: PostbackRecord) -> str:
    """``retraction of pb_1``."""
    assert adjustment.adjusts is not None
    return f"{adjustment.adjustment} of {show('pb', adjustment.adjusts)}"


def adjustments_of(life: Life, postback: PostbackRecord) -> list[PostbackRecord]:
    """Those ordered of it, oldest first."""
    return [each for each in life.postbacks if each.adjusts == postback.id]


def in_reading_order(life: Life) -> list[PostbackRecord]:
    """Every postback, followed by what corrects it."""
    return [
        each
        for postback in life.postbacks
        if postback.adjusts is None
        for each in (postback, *adjustments_of(life, postback))
    ]


def withdrawn(adjustment: PostbackRecord) -> str:
    """Why it was withdrawn before it fired."""
    return f"withdrawn: {(adjustment.reason or '').removeprefix('withdrawn: ')}"


def open_adjustment(life: Life, postback: PostbackRecord) -> PostbackRecord | None:
    """The one that may still fire: there is never a second."""
    return next((each for each in adjustments_of(life, postback) if each.state not in FINAL), None)


def correction_told(life: Life, adjustment: PostbackRecord) -> str:
    """What a delivered adjustment told: ``nothing of pb_1 stands``, ``39.90 EUR of pb_1 stand``."""
    assert adjustment.adjusts is not None
    corrected = show("pb", adjustment.adjusts)
    if adjustment.adjustment == "retraction":
        return f"nothing of {corrected} stands"
    if adjustment.reported is None:
        return f"{corrected} stands"
    return f"{money(adjustment.reported, life.conversion.event.currency)} of {corrected} stand"


def told_last(life: Life, postback: PostbackRecord) -> str | None:
    """What the network of a delivered postback was told last, where that is not the conversion's own value."""
    if postback.retracted_at is not None:
        return f"nothing stands (at {clock(postback.retracted_at)} UTC)"
    value, currency = life.conversion.event.value, life.conversion.event.currency
    if postback.reported is None or postback.reported == value:
        return None
    return f"{money(postback.reported, currency)} of {money(value, currency)}"


def lost_words(life: Life, postback: PostbackRecord) -> str:
    """``10.00 EUR: xandr-main cannot be told; it goes on showing 49.90``."""
    name, currency, lost = postback.version.contract.name, life.conversion.event.currency, postback.lost
    words = f"{name} cannot be told; it goes on showing {_shown(life, postback)}"
    if lost is None:
        return words
    return f"{money(abs(lost), currency)}{' (shown too little)' if lost < 0 else ''}: {words}"


def loss(life: Life, postback: PostbackRecord) -> str:
    """``lost 10.00 EUR: xandr-main cannot be told; it goes on showing 49.90``."""
    return f"lost{':' if postback.lost is None else ''} {lost_words(life, postback)}"


def why_lost(life: Life, postback: PostbackRecord) -> str:
    """Why the network cannot be told."""
    contract, conversion = postback.version.contract, life.conversion
    told = NOTHING if postback.retracted_at is not None else credited(contract, _reported(life, postback))
    standing = stands(
        contract, conversion.event, conversion.net_value, conversion.outcomes, postback.void_reason
    )
    failed = [each for each in adjustments_of(life, postback) if each.state in _FAILED]
    if failed and kind_of(contract, told, standing) is not None:
        return f"{show('pb', failed[-1].id)} is {failed[-1].state}: {visible(failed[-1].reason or '')}"
    if not contract.destination.adjust.send:
        return "its destination sends no corrections: adjust.send = false"
    needed: AdjustmentKind = "restatement" if standing.counted else "retraction"
    offered = contract.network.adjustments.of(needed)
    if offered is None:
        return f"network {contract.network.slug} takes no {needed}"
    if missing := contract.missing_for(offered):
        return f"a {needed} needs settings that the account does not give: {', '.join(missing)}"
    return f"network {contract.network.slug} brings nothing back that was retracted"


def _reported(life: Life, postback: PostbackRecord) -> Decimal | None:
    return life.conversion.event.value if postback.reported is None else postback.reported


def _shown(life: Life, postback: PostbackRecord) -> str:
    if postback.retracted_at is not None:
        return "nothing of it"
    told = _reported(life, postback) if postback.version.contract.tells_value else None
    return "the conversion" if told is None else plain(told)
