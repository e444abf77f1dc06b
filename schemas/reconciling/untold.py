"""Judging a row of the report that stands for nothing that the network was told."""

from __future__ import annotations

from schemas.ids import show
from schemas.reconciling.facts import Elsewhere, Ours, RefusedEvent, Theirs
from schemas.reconciling.findings import Bucket, Cause, Finding, Side, finding
from schemas.reconciling.near import Why, damaged, near_miss
from schemas.reconciling.tokens import is_macro, is_spreadsheet_number


def judge_theirs(
    theirs: Theirs,
    *,
    near: Ours | None = None,
    elsewhere: Elsewhere | None = None,
    refused: RefusedEvent | None = None,
) -> Finding:
    """A counted row that stands for no postback of ours. ``near`` is one whose click id it may be, damaged."""
    cause, words, side = _why_theirs(theirs, near, elsewhere, refused)
    return finding(Bucket.THEIRS_ONLY, cause, words, side=side, stake=theirs.value, currency=theirs.currency)


def _why_theirs(
    theirs: Theirs, near: Ours | None, elsewhere: Elsewhere | None, refused: RefusedEvent | None
) -> Why:
    if near is not None and (found := _same_conversion(theirs, near)) is not None:
        return found
    if theirs.click_id and is_macro(theirs.click_id):
        known = f"; our intake refused its event for that, reject {refused.reject_id}" if refused else ""
        return Cause.UNREPLACED_MACRO, f"its click id is the ad server's placeholder{known}", None
    if elsewhere is not None:
        return _known_elsewhere(elsewhere)
    if refused is not None:
        words = f"our intake refused its event ({refused.code.replace('_', ' ')}), reject {refused.reject_id}"
        return Cause.REFUSED_AT_INTAKE, words, None
    return _strange(theirs)


def _strange(theirs: Theirs) -> Why:
    if any(each and is_spreadsheet_number(each) for each in (theirs.click_id, theirs.order_id)):
        return Cause.SPREADSHEET, "its id is a number in scientific notation, as spreadsheets write it", None
    return Cause.UNKNOWN_TO_US, "no conversion, no postback and no refused event of ours has its ids", None


def _same_conversion(theirs: Theirs, near: Ours) -> Why | None:
    found = near_miss(near, theirs)
    if found is None:
        return None
    cause, _, side = found
    postback = show("pb", near.postback_id)
    if cause is Cause.OTHER_CLICK_ID:
        return cause, f"{postback} has its order, told with another click id", side
    assert near.click_id is not None
    assert theirs.click_id is not None
    if side is Side.US:
        return cause, f"{postback} is it, told with {damaged(cause, theirs.click_id, near.click_id)}", side
    return cause, f"{postback} is it; the report has {damaged(cause, near.click_id, theirs.click_id)}", side


def _known_elsewhere(found: Elsewhere) -> Why:
    conversion = show("cv", found.conversion_id)
    if found.postback_id is None:
        return (
            Cause.UNROUTED,
            f"{conversion} is it, and no destination took it: {found.unrouted_reason}",
            None,
        )
    postback = f"{show('pb', found.postback_id)} of {conversion}"
    if not found.same_destination:
        return Cause.OTHER_DESTINATION, f"{postback} is it, at {found.destination}", None
    if not found.same_click:
        return Cause.OTHER_CLICK_ID, f"{postback} has its order, told with another click id", None
    if found.at is not None:
        return Cause.OUTSIDE_PERIOD, f"{postback} is it, which our log dates {found.at:%Y-%m-%d} UTC", None
    return Cause.OTHER_ORDER, f"{postback} has its click id, and another order id", None
