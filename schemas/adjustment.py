"""Corrections of what was delivered: what a network credits, what stands, and how it is told of the difference. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from decimal import Decimal

from schemas.destination import Contract
from schemas.hold import Priced
from schemas.lifecycle import State
from schemas.macros import names_in
from schemas.network import AdjustmentKind
from schemas.signals import Outcome, VoidReason


@dataclass(frozen=True, slots=True)
class Credit:
    """What one conversion counts for: nothing, or ``value`` (None for a conversion that has none)."""

    counted: bool
    value: Decimal | None = None

    @property
    def amount(self) -> Decimal | None:
        """Its worth in money: zero where nothing is counted."""
        return self.value if self.counted else Decimal(0)


NOTHING = Credit(counted=False)


def stands(
    contract: Contract,
    conversion: Priced,
    net_value: Decimal | None,
    outcomes: Iterable[Outcome],
    void_reason: str | None = None,
) -> Credit:
    """What a conversion is worth under the destination's policy. ``void_reason``: a wish by hand voids it as well."""
    if void_reason == VoidReason.BY_HAND:
        return NOTHING
    voided = contract.destination.hold_for(conversion).void_reason(frozenset(outcomes))
    return NOTHING if voided else credited(contract, net_value)


def credited(contract: Contract, value: Decimal | None) -> Credit:
    """What a network credits that was told a value: nobody tells one to a network whose postback carries none."""
    return Credit(counted=True, value=value if contract.tells_value else None)


def kind_of(contract: Contract, told: Credit, standing: Credit) -> AdjustmentKind | None:
    """The adjustment that tells the network of a difference, or None if it takes none that does."""
    takes_retraction = contract.adjustment("retraction") is not None
    restatement = contract.adjustment("restatement")
    if not standing.counted:
        if takes_retraction:
            return "retraction"
        return "restatement" if restatement is not None and told.value is not None else None
    if restatement is None:
        return None
    # What could only be restated to nothing was never taken back, so another value brings it back.
    return "restatement" if told.counted or restatement.revives or not takes_retraction else None


def lost(told: Credit, standing: Credit, value: Decimal | None) -> Decimal | None:
    """What the network shows too much, negative for too little; None where the conversion has no ``value``."""
    if value is None or told.amount is None or standing.amount is None:
        return None
    return told.amount - standing.amount


@dataclass(frozen=True, slots=True)
class Adjusting:
    """An adjustment of the postback that was ordered before."""

    id: int
    kind: AdjustmentKind
    state: State

    @property
    def open(self) -> bool:
        return self.state in {State.HELD, State.LEASED, State.FIRING, State.RETRYING}


@dataclass(frozen=True, slots=True)
class Delivered:
    """A delivered postback that is looked at: what the network was told, what stands, and what was done about it."""

    told: Credit
    standing: Credit
    value: Decimal | None
    """Of the conversion as it came."""
    given_up: bool
    """Whether exactly this difference was recorded as lost before."""
    failed: bool
    """Whether an adjustment that told what stands has just failed for good."""
    adjustments: tuple[Adjusting, ...] = ()


@dataclass(frozen=True, slots=True)
class Correction:
    """What to do: ``order`` an adjustment, ``withdraw`` one that has not fired, record a loss; ``wait`` leaves all as it is."""

    order: AdjustmentKind | None = None
    withdraw: int | None = None
    loses: bool = False
    wait: bool = False


WAIT = Correction(wait=True)


def correct(contract: Contract, delivered: Delivered) -> Correction:
    """What becomes of a delivered postback whose credit may not stand any more."""
    current = next((each for each in delivered.adjustments if each.open), None)
    if current is not None and current.state is State.FIRING:
        return WAIT  # looked at again when it has settled
    withdraw = None if current is None else current.id
    if delivered.told == delivered.standing:
        return Correction(withdraw=withdraw)
    kind = kind_of(contract, delivered.told, delivered.standing)
    if kind is None or _counts_unknown(contract, kind, delivered.adjustments):
        return Correction(withdraw=withdraw, loses=True)
    if current is not None and current.kind == kind:
        return WAIT  # it tells what stands when it fires
    if current is None and (delivered.failed or delivered.given_up):
        return Correction(loses=True)
    return Correction(order=kind, withdraw=withdraw)


def _counts_unknown(contract: Contract, kind: AdjustmentKind, made: tuple[Adjusting, ...]) -> bool:
    """Whether a change would be told on top of one that may or may not have been counted: only a person can tell."""
    in_doubt = any(each.state is State.IN_DOUBT for each in made)
    return in_doubt and tells_change(contract, kind)


def tells_change(contract: Contract, kind: AdjustmentKind) -> bool:
    """Whether the adjustment tells the change from what was told last, and not the new total."""
    template = contract.template_for(kind)
    texts = [template.url, template.body, *(text for _, text in template.headers)]
    texts += [parameter.value for parameter in template.parameters]
    return any("delta" in names_in(text) for text in texts)
