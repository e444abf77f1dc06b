"""Branch webhooks: app events as JSON, or as a GET whose template names the same fields. It signs nothing."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from producers.hooks import meaning, unsigned
from producers.hooks.fields import at, instant_of_unix, required
from producers.hooks.hook import Delivery, Hook, Mapped, MappingError, Options
from producers.hooks.verifying import KeyInUrl
from schemas.problem import Problem

_EVENTS: Final = {
    "INSTALL": "install",
    "PURCHASE": "purchase",
    "SUBSCRIBE": "subscription",
    "START_TRIAL": "trial",
    "COMPLETE_REGISTRATION": "registration",
}


def map_delivery(payload: Any, _: Delivery, options: Options) -> Mapped:
    """Topics are event names. Negative revenue is money given back, whatever the event is called."""
    event = _nested(payload)
    topic = required(event, "name")
    meant = meaning.meaning(options, [topic], _EVENTS)
    if meant is None:
        return meaning.unasked(topic)
    value, currency = _revenue(event, options)
    if meant.kind == "conversion" and value is not None and value.startswith("-"):
        meant = meaning.Meaning(topic, "refund")
    order_id = options.text("order_id", "event_data.transaction_id")
    return Mapped(
        [
            meaning.event(
                meant,
                f"branch:{required(event, 'id')}",
                instant_of_unix(event, "timestamp", per_second=1000),
                meaning.filled(event, order_id),
                value=value,
                currency=currency,
                **meaning.whose(
                    event,
                    options,
                    [at(event, "last_attributed_touch_data"), at(event, "custom_data")],
                    {"customer_id": "user_data.developer_identity"},
                ),
                reason=topic,
            )
        ]
    )


def _nested(payload: Any) -> Mapping[str, Any]:
    """Parameters of a GET are named as in the JSON, with a point: ``event_data.revenue``. Empty ones are not there."""
    if not isinstance(payload, Mapping):
        raise MappingError("body", "is no object", "Use Branch's default POST body")
    event: dict[str, Any] = {}
    for name, value in payload.items():
        group, point, inner = name.partition(".")
        if point and isinstance(value, str):
            inside = event.setdefault(group, {})
            if not isinstance(inside, dict):
                raise MappingError(group, "is named twice", f"Take {group} or {name} out of the URL")
            inside[inner] = value
        else:
            event[name] = value
    return event


def _revenue(event: Mapping[str, Any], options: Options) -> tuple[str | None, str | None]:
    path = "event_data.revenue"
    if not meaning.stands(event, path):
        return None, None
    currency = meaning.currency_of(event, ["event_data.currency"], options)
    return meaning.money(at(event, path), currency, path), currency


def dedupe(payload: Any, _: Delivery) -> str:
    return required(payload, "id")


def check(options: Options) -> list[Problem]:
    return [*meaning.check(options, "order_id"), *unsigned.check(options)]


def _hook(slug: str, title: str, payload: Any, method: str) -> Hook:
    return Hook(
        slug=slug,
        title=title,
        docs="https://help.branch.io/developers-hub/docs/webhooks-for-developers",
        payload=payload,
        methods=(method,),
        verifier=KeyInUrl(),
        verifier_for=unsigned.verifier_for,
        map=map_delivery,
        dedupe=dedupe,
        options=meaning.TABLES
        | unsigned.OPTIONS
        | {"order_id": "where the order id stands; event_data.transaction_id otherwise"},
        check=check,
    )


HOOK = _hook("branch", "Branch", "json", "POST")
HOOK_GET = _hook("branch-get", "Branch (GET)", "query", "GET")
