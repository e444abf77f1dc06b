"""The networks that take corrections: a conversion that was credited can be taken back, or given another value.

A correction changes what is credited already and credits nothing itself; one that finds nothing to change says so.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from decimal import Decimal

from infra.sink.answers import Answer
from infra.sink.judgement import Judgement
from infra.sink.judging import OK, Judged, ProfileSettings, credit_once, objection
from infra.sink.ledger import Book, Conversion, amount_of
from infra.sink.wire import Request

EXISTS = Answer(200, b'{"status":2,"message":"Conversion exists"}')


def judge_everflow(request: Request, book: Book, settings: ProfileSettings, base_url: str) -> Judged:
    """Everflow. Its pages: 200 also for what is refused; ``/reversal`` without an event id reverses all of a transaction."""
    click_id, event = request.first("transaction_id"), request.first("event_id")
    found = Judgement(False, "", click_id, "", request.first("amount"), detail=event)
    if reason := objection(click_id, book):
        return OK, replace(found, reason=reason)
    if not request.path.rstrip("/").endswith("/reversal"):
        return credit_once(replace(found, key=(click_id, event or "0")), book, settings, OK)
    reached = (click_id, event) if event else (click_id,)
    keys = tuple(key for key in book.conversions if key[: len(reached)] == reached and book.is_credited(key))
    return OK, _corrected(found, book, keys, None)


def judge_affise(request: Request, book: Book, settings: ProfileSettings, base_url: str) -> Judged:
    """Affise. Its pages: unique by action id, or else click id, and goal; a known one changes by its ``status``."""
    click_id, order_id = request.first("clickid", "click_id"), request.first("action_id")
    status = request.first("status") or "1"
    key = (order_id or click_id, request.first("goal"))
    found = Judgement(False, "", click_id, order_id, request.first("sum"), detail=f"status {status}")
    if reason := objection(click_id, book):
        return OK, replace(found, reason=reason)
    known = book.conversions.get(key)
    if known is None or not known.times_credited:
        if status == "3":
            return OK, replace(found, reason="declined")
        return credit_once(replace(found, key=key), book, settings, OK)
    if (status == "3") == (known.total is None):
        return EXISTS, replace(found, key=key, reason="duplicate", repeat=True)
    # A sum that comes with a status is not taken: what was approved first counts again.
    return OK, _corrected(found, book, (key,), None if status == "3" else amount_of(known.value))


def judge_keitaro(request: Request, book: Book, settings: ProfileSettings, base_url: str) -> Judged:
    """Keitaro. Its page: known by click and ``tid``; sale goes to rejected, and from there nothing leads back."""
    click_id, order_id = request.first("subid"), request.first("tid")
    value, status = request.first("payout", "revenue"), request.first("status") or "sale"
    key = (click_id, order_id)
    found = Judgement(False, "", click_id, order_id, value, detail=status)
    if reason := objection(click_id, book):
        return OK, replace(found, reason=reason)
    known = book.conversions.get(key)
    if known is None or not known.times_credited:
        if status == "rejected":
            return OK, replace(found, reason="nothing-to-correct")
        return credit_once(replace(found, key=key), book, settings, OK)
    total = None if status == "rejected" else amount_of(value)
    if known.total is None and total is not None:
        return OK, replace(found, reason="no-transition")
    if status != "rejected" and total in {None, known.total}:
        return credit_once(replace(found, key=key), book, settings, OK)
    return OK, _corrected(found, book, (key,), total)


def judge_scaleo(request: Request, book: Book, settings: ProfileSettings, base_url: str) -> Judged:
    """Scaleo. Its page: a token with every postback; ``/conv-change`` changes the last conversion of the click's goal."""
    click_id, goal = request.first("click_id"), request.first("goal_alias")
    found = Judgement(False, "", click_id, goal, request.first("amount"))
    if not request.first("token"):
        return Answer(403, b"token is missing"), replace(found, reason="key-missing")
    if reason := objection(click_id, book):
        return OK, replace(found, reason=reason)
    key = (click_id, goal)
    if not request.path.rstrip("/").endswith("/conv-change"):
        return credit_once(replace(found, key=key), book, settings, OK)
    if not book.is_credited(key):
        return Answer(404, b"no such conversion"), replace(found, reason="nothing-to-correct")
    if request.first("conv_status") == "rejected":
        return OK, _corrected(found, book, (key,), None)
    stated = amount_of(found.value)
    return OK, _corrected(
        found, book, (key,), stated if stated is not None else amount_of(book.conversions[key].value)
    )


def judge_generic(request: Request, book: Book, settings: ProfileSettings, base_url: str) -> Judged:
    """Any S2S endpoint: 200 and a credit for every request that has an id, in query, form or flat JSON.

    A path that ends in ``/retraction`` or ``/restatement`` corrects: the new total is in ``value``, or its change in
    ``delta``; all conversions of the id, or the one of its order.
    """
    click_id = request.first("click_id", "id", "clickid", "cid")
    order_id = request.first("order_id", "txid", "transaction_id")
    value = request.first("value", "payout", "amount")
    found = Judgement(False, "", click_id, order_id, value)
    if reason := objection(click_id, book):
        return OK, replace(found, reason=reason)
    kind = request.path.rstrip("/").rpartition("/")[2]
    if kind not in {"retraction", "restatement"}:
        return credit_once(replace(found, key=(click_id, order_id)), book, settings, OK)
    keys = book.credited_keys(_of(click_id, order_id))
    if kind == "retraction":
        return OK, _corrected(found, book, keys, None)
    total, change = amount_of(value), amount_of(request.first("delta"))
    if total is None and change is not None and keys:
        total = (book.conversions[keys[0]].total or Decimal(0)) + change
    if total is None:
        return OK, replace(found, reason="amount-missing")
    return OK, _corrected(found, book, keys, total)


def _of(click_id: str, order_id: str) -> Callable[[Conversion], bool]:
    return lambda one: one.click_id == click_id and (not order_id or one.order_id == order_id)


def _corrected(
    found: Judgement, book: Book, keys: tuple[tuple[str, ...], ...], total: Decimal | None
) -> Judgement:
    """What changes those of ``keys`` that ``total`` differs from; a correction that comes twice changes nothing."""
    if not keys:
        return replace(found, reason="nothing-to-correct")
    changing = tuple(key for key in keys if book.conversions[key].total != total)
    if not changing:
        return replace(found, reason="corrected-before", repeat=True)
    return replace(found, reason="retracted" if total is None else "restated", corrects=changing, total=total)
