"""Adjust callbacks: a GET with what the account's URL template names. It signs nothing."""

from __future__ import annotations

import hashlib
from typing import Any, Final
from urllib.parse import urlencode

from producers.hooks import meaning, unsigned
from producers.hooks.fields import at, instant_of_unix
from producers.hooks.hook import Delivery, Hook, Mapped, MappingError, Options
from producers.hooks.verifying import KeyInUrl
from schemas.problem import Problem

_EVENTS: Final = {"install": "install", "reattribution": "reattribution"}
_ONCE: Final = ("nonce", "random")
"""Placeholders that Adjust fills anew for each callback."""


def map_delivery(payload: Any, _: Delivery, options: Options) -> Mapped:
    """Topics are an event's token, its name, or the kind of activity (``install``)."""
    kind = meaning.filled(payload, "activity_kind")
    if kind is None:
        raise MappingError("activity_kind", "is missing", "Write activity_kind={activity_kind} in the URL")
    names = [meaning.filled(payload, "event"), meaning.filled(payload, "event_name")]
    topics = [*(name for name in names if name), kind] if kind == "event" else [kind]
    meant = meaning.meaning(options, topics, _EVENTS)
    if meant is None:
        return meaning.unasked(topics[0])
    value, currency = _revenue(payload, options)
    if meant.kind == "conversion" and value is not None and value.startswith("-"):
        meant = meaning.Meaning(meant.topic, "refund")
    path = options.text("order_id", "order_id")
    return Mapped(
        [
            meaning.event(
                meant,
                f"adjust:{_id(payload, options)}",
                instant_of_unix(payload, "created_at"),
                meaning.filled(payload, path),
                value=value,
                currency=currency,
                **meaning.whose(payload, options, [payload], {"device_id": "adid"}),
                reason=meant.topic,
            )
        ]
    )


def _revenue(payload: Any, options: Options) -> tuple[str | None, str | None]:
    value = meaning.filled(payload, "revenue_float")
    if value is None:
        if meaning.filled(payload, "revenue") is not None:
            raise MappingError(
                "revenue", "is in cents of no stated kind", "Write revenue_float={revenue_float} in the URL"
            )
        return None, None
    currency = meaning.currency_of(payload, ["currency"], options)
    amount = meaning.money(value, currency, "revenue_float")
    # Events without revenue are sent with 0.
    return (amount, currency) if amount.strip("-0.") else (None, None)


def _id(payload: Any, options: Options) -> str:
    """The callback's own number, else all it says: a callback that is repeated says the same."""
    for name in _ONCE:
        if value := meaning.filled(payload, name):
            return value
    said = sorted((name, value) for name, value in payload.items() if name != options.text("key", "key"))
    return hashlib.sha256(urlencode(said).encode()).hexdigest()


def dedupe(payload: Any, delivery: Delivery, options: Options) -> str:
    if not isinstance(at(payload, "created_at"), str):
        raise MappingError("created_at", "is missing", "Write created_at={created_at} in the callback's URL")
    return _id(payload, options)


def check(options: Options) -> list[Problem]:
    return [*meaning.check(options, "order_id"), *unsigned.check(options)]


HOOK = Hook(
    slug="adjust",
    title="Adjust",
    docs="https://help.adjust.com/en/article/event-callbacks",
    payload="query",
    methods=("GET", "POST"),
    verifier=KeyInUrl(),
    verifier_for=unsigned.verifier_for,
    map=map_delivery,
    dedupe=lambda payload, delivery: dedupe(payload, delivery, Options("adjust")),
    dedupe_by=dedupe,
    options=meaning.TABLES
    | unsigned.OPTIONS
    | {"order_id": "the parameter that carries the order id; order_id otherwise"},
    check=check,
)
