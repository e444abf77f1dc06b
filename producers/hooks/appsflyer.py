"""AppsFlyer Push API: installs and in-app events of an app. It sends each once, signs nothing and gives no id."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from decimal import Decimal
from typing import Any, Final

from producers.hooks import meaning, unsigned
from producers.hooks.fields import at, required, text
from producers.hooks.hook import Delivery, Hook, Mapped, MappingError, Options
from producers.hooks.verifying import KeyInUrl
from schemas.problem import Problem

_EVENTS: Final = {
    "install": "install",
    "af_purchase": "purchase",
    "af_subscribe": "subscription",
    "af_start_trial": "trial",
    "af_complete_registration": "registration",
}
_SIGNALS: Final = {"cancel_purchase": "refund"}
"""The name that AppsFlyer's own page gives to revenue that is taken back."""

_ORDER_IDS: Final = ("event_value.af_order_id", "event_value.order_id", "event_value.af_receipt_id")
_REVENUES: Final = ("event_revenue", "event_value.af_revenue")
_CURRENCIES: Final = (
    "event_revenue_currency",
    "event_value.af_currency",
    "selected_currency",
    "currency",
)


def map_delivery(payload: Any, delivery: Delivery, options: Options) -> Mapped:
    """Topics are event names. Negative revenue is money given back, whatever the event is called."""
    if not isinstance(payload, Mapping):
        raise MappingError("body", "is no object", "Send what AppsFlyer sends, unchanged")
    topic = required(payload, "event_name")
    meant = meaning.meaning(options, [topic], _EVENTS, _SIGNALS)
    if meant is None:
        return meaning.unasked(topic)
    opened = {**payload, "event_value": _event_value(payload)}
    value, currency = _revenue(opened, options)
    if meant.kind == "conversion" and value is not None and value.startswith("-"):
        meant = meaning.Meaning(topic, "refund")
    return Mapped(
        [
            meaning.event(
                meant,
                f"appsflyer:{_hash(delivery)}",
                meaning.instant(required(payload, "event_time"), "event_time"),
                _order_id(opened, options),
                value=value,
                currency=currency,
                **meaning.whose(
                    opened,
                    options,
                    [opened["event_value"]],
                    {"customer_id": "customer_user_id", "device_id": "appsflyer_id"},
                ),
                reason=topic,
            )
        ]
    )


def _event_value(payload: Mapping[str, Any]) -> Mapping[str, Any]:
    """``event_value`` is a JSON text inside the JSON; empty for installs."""
    value = at(payload, "event_value")
    if value is None or value == "" or isinstance(value, Mapping):
        return value or {}
    try:
        read = json.loads(value, parse_float=Decimal)
    except (TypeError, ValueError, ArithmeticError, RecursionError):
        raise MappingError(
            "event_value", "is no JSON text", "Look at what the app gives to logEvent"
        ) from None
    return read if isinstance(read, Mapping) else {}


def _order_id(opened: Mapping[str, Any], options: Options) -> str | None:
    path = options.text("order_id", "")
    return meaning.first(opened, [path] if path else _ORDER_IDS)


def _revenue(opened: Mapping[str, Any], options: Options) -> tuple[str | None, str | None]:
    path = next((path for path in _REVENUES if meaning.stands(opened, path)), None)
    if path is None:
        return None, None
    currency = meaning.currency_of(opened, _CURRENCIES, options)
    return meaning.money(at(opened, path), currency, path), currency


def _hash(delivery: Delivery) -> str:
    return hashlib.sha256(delivery.body).hexdigest()


def dedupe(payload: Any, delivery: Delivery) -> str:
    """There is no id: the same bytes are the same message. ``event_time`` in them is to the millisecond."""
    text(payload, "event_name")
    return _hash(delivery)


def check(options: Options) -> list[Problem]:
    return [*meaning.check(options, "order_id"), *unsigned.check(options)]


HOOK = Hook(
    slug="appsflyer",
    title="AppsFlyer",
    docs="https://support.appsflyer.com/hc/en-us/articles/207034356-Push-API-streaming-raw-data",
    payload="json",
    verifier=KeyInUrl(),
    verifier_for=unsigned.verifier_for,
    secret="optional",  # noqa: S106 — says whether there is one
    map=map_delivery,
    dedupe=dedupe,
    options=meaning.TABLES
    | unsigned.OPTIONS
    | {
        "order_id": "where the order id stands, such as event_value.booking; event_value.af_order_id otherwise"
    },
    check=check,
)
