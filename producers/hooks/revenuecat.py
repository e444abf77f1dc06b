"""RevenueCat webhooks: purchases and renewals of app stores, each period an order; refunds of the latest period."""

from __future__ import annotations

from typing import Any, Final

from producers.hooks import meaning
from producers.hooks.fields import at, instant_of_unix, required, text
from producers.hooks.hook import Delivery, Hook, Mapped, MappingError, Options
from producers.hooks.verifying import HeaderValue
from schemas.problem import Problem

_EVENTS: Final = {
    "INITIAL_PURCHASE": "purchase",
    "INITIAL_PURCHASE.TRIAL": "trial",
    "INITIAL_PURCHASE.PROMOTIONAL": "",
    "NON_RENEWING_PURCHASE": "purchase",
    "NON_RENEWING_PURCHASE.PROMOTIONAL": "",
    "RENEWAL": "renewal",
    "RENEWAL.TRIAL_CONVERSION": "purchase",
}
_SIGNALS: Final = {"CANCELLATION.REFUND": "refund"}
_ORDERS: Final = ("transaction_id", "original_transaction_id")


def map_delivery(payload: Any, _: Delivery, options: Options) -> Mapped:
    """Topics are a type, and before it the type with its reason or period: ``CANCELLATION.UNSUBSCRIBE``.

    A period's order id is its ``transaction_id``, which a refund of it carries too. Under ``original_transaction_id``
    all periods share one, and the sequence (0, then the renewal's number) tells which one a refund takes back.
    """
    event = at(payload, "event")
    kind = required(event, "type")
    refund = kind == "CANCELLATION" and _gives_money_back(event)
    if reason := _left_out(event, options):
        return meaning.ignored(reason)
    finer = [
        "REFUND" if refund else None,
        "TRIAL_CONVERSION" if at(event, "is_trial_conversion") is True else None,
        text(event, "cancel_reason"),
        text(event, "period_type"),
    ]
    topics = [*(f"{kind}.{each}" for each in finer if each), kind]
    meant = meaning.meaning(options, topics, _EVENTS, _SIGNALS)
    if meant is None:
        return meaning.unasked(topics[0])
    path = options.text("order_id", _ORDERS[0])
    shared = path == "original_transaction_id"
    value, currency = _price(event, options)
    if meant.kind == "conversion" and value is not None and value.startswith("-"):
        raise MappingError("event.price", f"is negative in {kind}", "Look at the transaction in RevenueCat")
    if meant.kind == "refund" and not (value or "").startswith("-"):
        value = None  # The price of the period: it says nothing of how much went back, and that is all of it.
    return Mapped(
        [
            meaning.event(
                meant,
                f"revenuecat:{required(event, 'id')}",
                _occurred_at(event, meant.kind),
                required(event, path),
                value=value,
                currency=currency,
                sequence=_sequence(event, shared) if shared or kind == "RENEWAL" else None,
                **meaning.whose(event, options, [_attributes(event)], {"customer_id": "app_user_id"}),
                reason=text(event, "cancel_reason"),
            )
        ]
    )


def _gives_money_back(event: Any) -> bool:
    price = at(event, "price_in_purchased_currency")
    price = at(event, "price") if price is None else price
    return text(event, "cancel_reason") == "CUSTOMER_SUPPORT" or (
        price is not None and meaning.money(price, "USD", "event.price").startswith("-")
    )


def _attributes(event: Any) -> dict[str, Any]:
    """What the app told of its user, without the instants at which it did."""
    attributes = at(event, "subscriber_attributes")
    return (
        {name: at(each, "value") for name, each in attributes.items()} if isinstance(attributes, dict) else {}
    )


def _left_out(event: Any, options: Options) -> str | None:
    if text(event, "environment") == "SANDBOX" and options.values.get("sandbox") is not True:
        return "it is of a store's sandbox. To take those, set sandbox = true"
    if at(event, "is_family_share") is True:
        return "it is shared within a family, and nobody paid for it"
    return None


def _price(event: Any, options: Options) -> tuple[str | None, str | None]:
    """As the buyer paid it; in US dollars, as RevenueCat converts it, where the currency is not known."""
    for path, code in (("price_in_purchased_currency", text(event, "currency")), ("price", "USD")):
        if code is None or not meaning.stands(event, path):
            continue
        currency = meaning.currency_of({"currency": code}, ["currency"], options)
        value = meaning.money(at(event, path), currency, f"event.{path}")
        # Free trials cost 0: there is no value to report.
        free = not value.strip("-0.")
        return (None, None) if free else (value, currency)
    return None, None


def _occurred_at(event: Any, kind: str) -> str:
    paths = ["purchased_at_ms"] if kind == "conversion" else []
    for path in [*paths, "event_timestamp_ms"]:
        if meaning.stands(event, path):
            return instant_of_unix(event, path, per_second=1000)
    return instant_of_unix(event, "event_timestamp_ms", per_second=1000)


def _sequence(event: Any, shared: bool) -> int | None:
    """The number of the renewal, from 1; the first period has none, and is 0 where it shares its order id."""
    number = at(event, "renewal_number")
    if number is None:
        return 0 if shared else None
    if isinstance(number, bool) or not isinstance(number, int) or number < 0:
        raise MappingError("event.renewal_number", "is no whole number", "Send what RevenueCat sends")
    return number


def dedupe(payload: Any, _: Delivery) -> str:
    return required(payload, "event.id")


def check(options: Options) -> list[Problem]:
    problems = meaning.check(options)
    if options.values.get("order_id", _ORDERS[0]) not in _ORDERS:
        remedy = f"Use one of {', '.join(_ORDERS)}"
        problems.append(Problem("hook_option", "order_id", "is neither", remedy))
    if not isinstance(options.values.get("sandbox", False), bool):
        problems.append(Problem("hook_option", "sandbox", "is neither true nor false", "Use true or false"))
    return problems


HOOK = Hook(
    slug="revenuecat",
    title="RevenueCat",
    docs="https://www.revenuecat.com/docs/integrations/webhooks/event-types-and-fields",
    payload="json",
    verifier=HeaderValue("authorization"),
    map=map_delivery,
    dedupe=dedupe,
    options=meaning.TABLES
    | {
        "order_id": "transaction_id (each period is an order) or original_transaction_id (told apart by sequence)",
        "sandbox": "true to take purchases of the stores' sandboxes too",
    },
    check=check,
)
