"""HubSpot webhooks: a list of changes of deals, contacts and tickets, each with one property and its new value."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any, Final

from producers.hooks import meaning
from producers.hooks.fields import instant_of_unix, required, text
from producers.hooks.hook import Delivery, Envelope, Hook, Mapped, MappingError, Options
from producers.hooks.verifying import HubSpotV3
from schemas.problem import Problem

_OBJECTS: Final = {"0-1": "contact", "0-2": "company", "0-3": "deal", "0-5": "ticket"}
"""Of ``objectTypeId``, which generic subscriptions (``object.propertyChange``) name their object by."""


def map_delivery(payload: Any, delivery: Delivery, options: Options) -> Mapped:
    """One event of Holdfire for each change that the source's tables give a meaning.

    A topic is ``deal.dealstage=closedwon`` (a property's new value), ``deal.amount_refunded`` (any new value, which is
    then the amount) or ``deal.creation``.
    """
    changes = _changes(payload)
    events, unmapped = [], []
    for change in changes:
        try:
            event = _event(change, options)
        except MappingError as error:
            unmapped.append(error)
        else:
            if event is not None:
                events.append(event)
    if not events and not unmapped:
        topics = sorted({_topics(change)[0] for change in changes})
        return meaning.unasked(topics[0]) if len(topics) == 1 else meaning.ignored(_nothing_asked(topics))
    return Mapped(events, unmapped=unmapped)


def _nothing_asked(topics: list[str]) -> str:
    return f"none of these is in the source's events or signals: {', '.join(topics) or 'no change at all'}"


def _event(change: Mapping[str, Any], options: Options) -> Envelope | None:
    topics = _topics(change)
    meant = meaning.meaning(options, topics)
    if meant is None:
        return None
    value, currency = _amount(change, meant, options)
    return meaning.event(
        meant,
        f"hubspot:{_key(change)}",
        instant_of_unix(change, "occurredAt", per_second=1000),
        _order_id(change),
        value=value,
        currency=currency,
        amount_is="cumulative",
        reason=text(change, "changeSource"),
        lead_id=text(change, "objectId") if _object(change)[0] == "contact" else None,
    )


def _object(change: Mapping[str, Any]) -> tuple[str, str]:
    """What kind of object it is, and what happened to it."""
    kind, _, what = required(change, "subscriptionType").partition(".")
    return (_OBJECTS.get(text(change, "objectTypeId") or "", kind) if kind == "object" else kind), what


def _order_id(change: Mapping[str, Any]) -> str:
    """A deal is an order, by its id alone, as other systems know it; a contact may have the number of some deal."""
    object_, _ = _object(change)
    id_ = required(change, "objectId")
    return id_ if object_ == "deal" else f"{object_}:{id_}"


def _topics(change: Mapping[str, Any]) -> list[str]:
    object_, what = _object(change)
    if what != "propertyChange":
        return [f"{object_}.{what}"]
    property_ = required(change, "propertyName")
    value = text(change, "propertyValue") or ""
    # A property that is emptied has no amount: only a topic that says so (deal.dealstage=) means it.
    return [f"{object_}.{property_}={value}", *([f"{object_}.{property_}"] if value else [])]


def _amount(
    change: Mapping[str, Any], meant: meaning.Meaning, options: Options
) -> tuple[str | None, str | None]:
    """A property that is named without a value is the amount itself; else the table may give a fixed one."""
    is_amount = "=" not in meant.topic and text(change, "propertyName") is not None
    fixed = options.table("values").get(meant.name) if meant.kind == "conversion" else None
    if meant.kind not in ("conversion", "refund", "chargeback") or not (is_amount or fixed is not None):
        return None, None
    currency = meaning.currency_of(change, ["currency"], options)
    if fixed is not None:
        return meaning.money(fixed, currency, f"values.{meant.name}"), currency
    return meaning.money(change["propertyValue"], currency, "propertyValue"), currency


def _key(change: Mapping[str, Any]) -> str:
    # HubSpot does not promise that an eventId is given once only: the object tells two changes apart, and a repeated
    # delivery of one change has all three again.
    return ":".join(required(change, field) for field in ("eventId", "subscriptionId", "objectId"))


def _changes(payload: Any) -> list[Mapping[str, Any]]:
    changes = payload if isinstance(payload, list) else [payload]
    if not all(isinstance(change, Mapping) for change in changes):
        raise MappingError("body", "is no list of objects", "Send what HubSpot sends, unchanged")
    return changes


def dedupe(payload: Any, _: Delivery) -> str:
    """All changes' ids: a delivery that is repeated has a higher ``attemptNumber``, so its bytes are others."""
    keys = sorted(_key(change) for change in _changes(payload))
    return keys[0] if len(keys) == 1 else hashlib.sha256("\n".join(keys).encode()).hexdigest()


def check(options: Options) -> list[Problem]:
    problems = meaning.check(options)
    if not isinstance(options.values.get("values", {}), Mapping):
        problems.append(
            Problem("hook_option", "values", "is no table", 'Write it like { purchase = "49.90" }')
        )
    for name, value in options.table("values").items():
        try:
            meaning.money(value, options.text("currency", ""), f"values.{name}")
        except MappingError as error:
            problems.append(error.problem())
    return problems


HOOK = Hook(
    slug="hubspot",
    title="HubSpot",
    docs="https://developers.hubspot.com/docs/apps/developer-platform/build-apps/authentication/request-validation",
    payload="json",
    verifier=HubSpotV3(),
    map=map_delivery,
    dedupe=dedupe,
    options={key: meaning.TABLES[key] for key in ("events", "signals", "currency")}
    | {"values": "a table: the event's name = a fixed value, as HubSpot sends no amount with a change"},
    check=check,
)
