"""A row and a postback that are one conversion, but for what became of the click id on the way."""

from __future__ import annotations

from schemas.reconciling.facts import Ours, Theirs
from schemas.reconciling.findings import Cause, Side
from schemas.reconciling.tokens import damage

Why = tuple[Cause, str, Side | None]
"""A cause, what the evidence shows, and whose move it is where that is known better than by the cause."""


def near_miss(ours: Ours, theirs: Theirs) -> Why | None:
    """The row and the postback are one conversion, but for what became of the click id."""
    if not ours.click_id or not theirs.click_id:
        return None
    row = f"line {theirs.line} of the report"
    if (cause := damage(ours.click_id, theirs.click_id)) is not None:
        words = f"{row} has it, with {damaged(cause, ours.click_id, theirs.click_id)}"
        return cause, words, Side.NETWORK
    if (cause := damage(theirs.click_id, ours.click_id)) is not None:
        words = f"{row} has the whole click id, and we told {damaged(cause, theirs.click_id, ours.click_id)}"
        return cause, words, Side.US
    if ours.order_id is not None and ours.order_id == theirs.order_id:
        return Cause.OTHER_CLICK_ID, f"{row} has its order, under another click id", None
    return None


def damaged(cause: Cause, whole: str, found: str) -> str:
    match cause:
        case Cause.PERIOD_LOST:
            return "the click id without its trailing period"
        case Cause.REENCODED:
            return "the click id encoded once more or less"
        case Cause.CASE_FOLDED:
            return "the case of the click id's letters changed"
        case _:
            return f"the first {len(found)} of the click id's {len(whole)} characters"
