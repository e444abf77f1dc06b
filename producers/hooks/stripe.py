"""Stripe: paid checkouts, refunds and disputes. https://docs.stripe.com/webhooks, https://docs.stripe.com/api/events"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from producers.hooks.attribution import OPTIONS as ATTRIBUTION
from producers.hooks.attribution import attributes, check, one_of, text_only, texts_of
from producers.hooks.fields import amount_of_minor, at, instant_of_unix, required, text
from producers.hooks.hook import Delivery, Envelope, Hook, Mapped, MappingError, Options
from producers.hooks.verifying import Timestamped
from schemas.problem import Problem

SESSION, INTENT, CHARGE = "checkout.session.completed", "payment_intent.succeeded", "charge.succeeded"
_ALSO: Final = {SESSION: "checkout.session.async_payment_succeeded", INTENT: "", CHARGE: "charge.captured"}
"""The event of the same kind that comes in its place when the money comes later."""
_AMOUNT: Final = {
    "checkout.session": "amount_total",
    "payment_intent": "amount_received",
    "charge": "amount_captured",
}
_DIGITS: Final = {"ISK": 2, "UGX": 2, "MGA": 0}
"""Where Stripe departs from ISO 4217: https://docs.stripe.com/currencies#special-cases and #zero-decimal."""
_DISPUTES: Final = ("charge.dispute.created", "charge.dispute.funds_withdrawn", "charge.dispute.closed")


def _map(payload: Any, _: Delivery, options: Options) -> Mapped:
    topic = required(payload, "type")
    conversion_on = options.text("conversion_on", SESSION)
    if topic in {conversion_on, _ALSO.get(conversion_on)}:
        return _conversion(payload, options)
    if topic == "charge.refunded":
        return Mapped([_refund(payload, options)])
    if topic in _DISPUTES:
        return _dispute(payload, topic)
    return Mapped(ignored=f"the event {topic} is not read")


def _conversion(payload: Any, options: Options) -> Mapped:
    kind = required(payload, "data.object.object")
    if kind not in _AMOUNT:
        raise MappingError("data.object.object", f"is {kind!r}", "Send the event as Stripe made it")
    if kind == "checkout.session" and at(payload, "data.object.payment_status") == "unpaid":
        return Mapped(ignored="it is not paid yet: checkout.session.async_payment_succeeded will tell")
    if kind == "checkout.session" and at(payload, "data.object.mode") == "setup":
        return Mapped(ignored="it only keeps a card for later")
    if kind == "charge" and at(payload, "data.object.captured") is False:
        return Mapped(ignored="it is only authorized: charge.captured will tell")
    currency = required(payload, "data.object.currency").upper()
    field = f"data.object.{_AMOUNT[kind]}"
    metadata = texts_of(at(payload, "data.object.metadata"))
    left = texts_of({"customer": at(payload, "data.object.customer")}) | metadata
    payment = _payment(payload)
    conversion: Envelope = {
        "type": "conversion",
        "event_id": f"stripe:{payment}",
        "name": options.text("event", "purchase"),
        "occurred_at": instant_of_unix(payload, "created"),
        "order_id": metadata.get(options.text("order_id", "order_id"))
        or text(payload, "data.object.client_reference_id")
        or payment,
        "value": amount_of_minor(at(payload, field), currency, field, _DIGITS),
        "currency": currency,
    }
    return Mapped([conversion | attributes(left, options)])


def _refund(payload: Any, options: Options) -> Envelope:
    """``amount_refunded`` is the charge's total so far, so deliveries may come in any order."""
    currency = required(payload, "data.object.currency").upper()
    field = "data.object.amount_refunded"
    order_id = texts_of(at(payload, "data.object.metadata")).get(options.text("order_id", ""))
    named = {"order_id": order_id} if order_id else {"conversion_event_id": f"stripe:{_payment(payload)}"}
    return {
        "type": "refund",
        "event_id": required(payload, "id"),
        "occurred_at": instant_of_unix(payload, "created"),
        **named,
        "amount": amount_of_minor(at(payload, field), currency, field, _DIGITS),
        "amount_is": "cumulative",
        "currency": currency,
    }


def _dispute(payload: Any, topic: str) -> Mapped:
    status = required(payload, "data.object.status")
    if status.startswith("warning_"):
        return Mapped(ignored="an inquiry takes no money back")
    if topic == "charge.dispute.closed":
        if status not in {"won", "lost"}:
            return Mapped(ignored=f"a dispute that is closed as {status} is neither won nor lost")
        outcome = status
    else:
        outcome = "opened"
    currency = required(payload, "data.object.currency").upper()
    payment = text(payload, "data.object.payment_intent") or required(payload, "data.object.charge")
    chargeback: Envelope = {
        "type": "chargeback",
        "event_id": required(payload, "id"),
        "occurred_at": instant_of_unix(payload, "created"),
        "conversion_event_id": f"stripe:{payment}",
        "outcome": outcome,
        "amount": amount_of_minor(at(payload, "data.object.amount"), currency, "data.object.amount", _DIGITS),
        "currency": currency,
    }
    reason = text(payload, "data.object.reason")
    return Mapped([chargeback | ({"reason": reason} if reason else {})])


def _payment(payload: Any) -> str:
    """What session, intent, charge and dispute of one payment have in common."""
    return text(payload, "data.object.payment_intent") or required(payload, "data.object.id")


def _dedupe(payload: Any, _: Delivery) -> str | None:
    return required(payload, "id")


def _check(options: Options) -> Sequence[Problem]:
    return [
        *one_of(options, "conversion_on", [*_ALSO]),
        *text_only(options, "event", "order_id"),
        *check(options),
    ]


HOOK = Hook(
    slug="stripe",
    title="Stripe",
    docs="https://docs.stripe.com/webhooks",
    payload="json",
    verifier=Timestamped("stripe-signature"),
    map=_map,
    dedupe=_dedupe,
    options={
        "event": "what a paid checkout is called; purchase",
        "conversion_on": f"the event that makes a conversion: {', '.join(_ALSO)}; the first",
        "order_id": "the metadata key of your order id, where charges have it too; refunds then go by it",
        **ATTRIBUTION,
    },
    check=_check,
)
