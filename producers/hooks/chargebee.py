"""Chargebee webhooks: payments, refunds and chargebacks of invoices, and cancelled subscriptions, in minor units."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

from producers.hooks import meaning
from producers.hooks.fields import amount_of_minor, at, instant_of_unix, objects, required, text
from producers.hooks.hook import Delivery, Hook, Mapped, MappingError, Options
from producers.hooks.verifying import Basic
from schemas.problem import Problem

_EVENTS: Final = {"payment_succeeded": "purchase"}
_SIGNALS: Final = {
    "payment_refunded": "refund",
    "payment_refunded.chargeback": "chargeback.lost",
    "subscription_cancelled": "cancel",
}
_LINKS: Final = (
    ("content.transaction.linked_invoices", "invoice_id"),
    ("content.transaction.linked_credit_notes", "cn_reference_invoice_id"),
)


def map_delivery(payload: Any, _: Delivery, options: Options) -> Mapped:
    """A payment or refund of each invoice it was applied to; a subscription's own events under its own id."""
    topic = required(payload, "event_type")
    chargeback = [f"{topic}.chargeback"] if _is_chargeback(payload) else []
    meant = meaning.meaning(options, [*chargeback, topic], _EVENTS, _SIGNALS)
    if meant is None:
        return meaning.unasked(topic)
    by_subscription = options.text("order_id", "invoice") == "subscription"
    event_id = f"chargebee:{required(payload, 'id')}"
    occurred_at = instant_of_unix(payload, "occurred_at")
    common: dict[str, Any] = {
        **meaning.whose(
            at(payload, "content"),
            options,
            [at(payload, "content.customer.meta_data"), at(payload, "content.subscription.meta_data")],
            {"customer_id": "customer.id"},
        ),
        "reason": text(payload, "content.credit_note.create_reason_code")
        or text(payload, "content.subscription.cancel_reason_code")
        or text(payload, "content.subscription.cancel_reason"),
    }
    if at(payload, "content.transaction") is None or topic.startswith("subscription_"):
        if meant.kind == "cancel" and not by_subscription and not _takes_subscriptions(options):
            return meaning.ignored(
                "a cancelled subscription takes no paid invoice back, and conversions are paid invoices here",
                'Set order_id = "subscription", or take subscription events as conversions',
            )
        order_id = required(payload, "content.subscription.id")
        return Mapped([meaning.event(meant, event_id, occurred_at, order_id, **common)])
    if by_subscription and not at(payload, "content.invoice.first_invoice"):
        return meaning.ignored(
            "it is of a renewal", 'order_id = "subscription" counts the first invoice only'
        )
    parts = list(_parts(payload))
    events = []
    for invoice_id, value, currency in parts:
        order_id = required(payload, "content.invoice.subscription_id") if by_subscription else invoice_id
        id_ = event_id if len(parts) == 1 else f"{event_id}:{invoice_id}"
        events.append(
            meaning.event(meant, id_, occurred_at, order_id, value=value, currency=currency, **common)
        )
    return Mapped(events)


def _parts(payload: Any) -> Iterator[tuple[str, str, str]]:
    """Invoice, amount and currency: several where one payment or refund was applied to several invoices."""
    currency = meaning.currency_of(payload, ["content.transaction.currency_code"], Options("chargebee"))
    for path, key in _LINKS:
        links = [link for link in objects(payload, path) if text(link, key)]
        if len(links) > 1:
            for link in links:
                yield required(link, key), _minor(link, "applied_amount", currency), currency
            return
    invoice_id = meaning.first(payload, _INVOICE)
    if invoice_id is None:
        raise MappingError(
            "content.invoice.id", "is missing", "Set the webhook's API version to V2 in Chargebee"
        )
    yield invoice_id, _minor(payload, "content.transaction.amount", currency), currency


_INVOICE: Final = (
    "content.credit_note.reference_invoice_id",
    "content.invoice.id",
    "content.transaction.linked_invoices.0.invoice_id",
    "content.transaction.linked_credit_notes.0.cn_reference_invoice_id",
)


def _minor(payload: object, path: str, currency: str) -> str:
    value = amount_of_minor(at(payload, path), currency, path)
    if value.startswith("-"):
        raise MappingError(path, "is negative", "Look at the transaction in Chargebee")
    return value


def _is_chargeback(payload: Any) -> bool:
    """Chargebee records a dispute that it is told of as a refund whose credit note has this reason."""
    notes: list[Mapping[str, Any]] = [
        {
            "cn_reason_code": at(payload, "content.credit_note.reason_code"),
            "cn_create_reason_code": at(payload, "content.credit_note.create_reason_code"),
        },
        *objects(payload, "content.transaction.linked_credit_notes"),
    ]
    codes = [note.get(key) for note in notes for key in ("cn_reason_code", "cn_create_reason_code")]
    return any(isinstance(code, str) and code.lower() == "chargeback" for code in codes)


def _takes_subscriptions(options: Options) -> bool:
    return any(topic.startswith("subscription_") and name for topic, name in options.table("events").items())


def dedupe(payload: Any, _: Delivery) -> str:
    return required(payload, "id")


def check(options: Options) -> list[Problem]:
    problems = meaning.check(options)
    if options.values.get("order_id", "invoice") not in ("invoice", "subscription"):
        remedy = 'Use "invoice" or "subscription"'
        problems.append(Problem("hook_option", "order_id", "is neither", remedy))
    return problems


HOOK = Hook(
    slug="chargebee",
    title="Chargebee",
    docs="https://apidocs.chargebee.com/docs/api/events",
    payload="json",
    verifier=Basic(),
    map=map_delivery,
    dedupe=dedupe,
    options=meaning.TABLES
    | {
        "order_id": '"invoice" (each payment is a conversion) or "subscription" (the first one is)',
    },
    check=check,
)
