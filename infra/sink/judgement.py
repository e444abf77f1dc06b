"""What a network makes of a request: a credit, or the reason why there is none."""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal


@dataclass(frozen=True, slots=True)
class Judgement:
    """The outcome for one request. ``reason`` is ``credited``, ``redirected``, ``retracted``, ``restated`` or why it
    did not count."""

    credited: bool
    reason: str
    click_id: str = ""
    order_id: str = ""
    value: str = ""
    key: tuple[str, ...] = ()
    """What makes two requests the same conversion at this network; empty when it cannot be told."""
    repeat: bool = False
    """True when the same key was credited before."""
    opens: str = ""
    """The redirect target that has to be requested next for the conversion to count."""
    closes: str = ""
    """The redirect target that this request followed."""
    corrects: tuple[tuple[str, ...], ...] = ()
    """Keys of the credited conversions that this request changes."""
    total: Decimal | None = None
    """What each of them is worth from then on; None takes it back."""
    detail: str = ""
    """What was found instead, for a reader: never decides anything."""
