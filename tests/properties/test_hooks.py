"""Every hook of the registry, whatever it is sent: it makes events, or says why not, and never fails."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Mapping
from contextlib import suppress
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from producers.hooks.hook import Delivery, Mapped, MappingError, Options
from producers.hooks.payload import read_payload
from producers.hooks.pipeline import understand
from producers.hooks.registry import HOOKS
from producers.hooks.sources import Opened
from schemas.event import read_event
from schemas.problem import InvalidInputError

FIXTURES = Path(__file__).parents[1] / "fixtures" / "hooks"
NOW = datetime(2026, 11, 22, tzinfo=UTC)

OPTIONS: dict[str, dict[str, Any]] = {
    "generic": {
        "dedupe": "id",
        "rules": [
            {
                "type": "conversion",
                "constants": {"name": "purchase"},
                "map": {
                    "event_id": "id",
                    "order_id": "deal.number",
                    "value": "deal.total",
                    "currency": "deal.currency",
                    "occurred_at": "deal.closed",
                    "sequence": "sequence",
                    "click_ids": {"xandr": "deal.clid"},
                },
            },
            {
                "when": "length(refunds) > `0`",
                "each": "refunds",
                "type": "refund",
                "minor": True,
                "map": {"event_id": "id", "order_id": "id", "amount": "cents", "currency": "currency"},
            },
            {"type": "cancel", "map": {"event_id": "join('-', [id, to_string(sent_at)])", "order_id": "id"}},
        ],
    },
    "hubspot": {
        "events": {"deal.dealstage=closedwon": "purchase", "deal.dealstage": "purchase"},
        "signals": {"contact.loan_status=declined": "credit_check.declined", "contact.loan_status": "refund"},
        "values": {"purchase": "49.90"},
        "currency": "EUR",
    },
    "salesforce": {
        "events": {"Opportunity.StageName=Closed Won": "purchase"},
        "signals": {"Opportunity": "chargeback.opened"},
        "refunded": "Amount",
    },
    "adjust": {"events": {"bkrfgq": "purchase"}, "click_ids": {"pushground": "subid"}},
    "chargebee": {"order_id": "subscription", "params": ["customer.email"]},
}
"""For hooks that mean nothing without."""

HEADERS: dict[str, tuple[str, ...]] = {
    "x-shopify-topic": (
        "orders/paid",
        "refunds/create",
        "orders/cancelled",
        "disputes/update",
        "products/create",
    ),
    "x-wc-webhook-topic": ("order.created", "order.updated", "order.deleted"),
}
"""What some senders say beside the payload."""

numbers = st.integers() | st.integers(-5, 5) | st.decimals(allow_nan=False, allow_infinity=False)
scalars = (
    st.none()
    | st.booleans()
    | numbers
    | st.text(max_size=20)
    | st.sampled_from(
        ["", "EUR", "eur", "XXX", "-1", "1e400", "0", "49.90", "2026-11-22T10:00:00Z", "\ud800", "a\x00b"]
    )
)
json_values = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=8,
)


def _fixtures(slug: str) -> list[bytes]:
    return [path.read_bytes() for path in sorted(FIXTURES.glob(f"{slug}_*"))]


def _places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    inside = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [path, *(place for key, each in inside for place in _places(each, (*path, key)))]


@st.composite
def spoilt_json(draw: st.DrawFn, slug: str) -> Any:
    """A payload as its sender writes it, some of its values replaced or taken away; or any JSON at all."""
    fixtures = _fixtures(slug)
    if not fixtures or draw(st.integers(0, 9)) == 0:
        return draw(json_values)
    value = json.loads(draw(st.sampled_from(fixtures)), parse_float=Decimal)
    for _ in range(draw(st.integers(0, 3))):
        *parents, last = draw(st.sampled_from(_places(value)[1:] or [("x",)]))
        place = value
        for parent in parents:
            place = place[parent]
        if isinstance(place, dict) and draw(st.booleans()):
            del place[last]
        else:
            place[last] = copy.deepcopy(draw(json_values))
        if not isinstance(value, dict | list) or not value:
            break
    return value


@st.composite
def spoilt_bytes(draw: st.DrawFn, slug: str) -> bytes:
    """A body as its sender writes it, a piece of it replaced; or any bytes at all."""
    fixtures = _fixtures(slug)
    if not fixtures or draw(st.integers(0, 9)) == 0:
        return draw(st.binary(max_size=200))
    body = draw(st.sampled_from(fixtures))
    start = draw(st.integers(0, len(body)))
    piece = draw(
        st.binary(max_size=10) | st.text(max_size=10).map(lambda text: text.encode("utf-8", "replace"))
    )
    return body[:start] + piece + body[start + draw(st.integers(0, 40)) :]


def _headers(draw: Callable[[st.SearchStrategy[Any]], Any]) -> dict[str, str]:
    return {
        name: draw(st.sampled_from(values)) for name, values in HEADERS.items() if draw(st.integers(0, 9))
    }


def _delivery(slug: str, headers: Mapping[str, str], body: bytes) -> Delivery:
    hook = HOOKS[slug]
    url = "https://hooks.example/hooks/shop"
    if hook.payload == "query":
        url += "?" + body.decode("latin-1").strip()
    return Delivery(hook.methods[0], url, dict(headers), body, NOW, "203.0.113.7")


def _check(mapped: Mapped) -> None:
    assert mapped.events or mapped.unmapped or mapped.ignored is not None
    assert all(error.field and error.reason for error in mapped.unmapped)
    for event in mapped.events:
        with suppress(InvalidInputError):
            read_event({**event, "version": 1, "source": "shop"}, NOW)


@pytest.mark.parametrize("slug", sorted(HOOKS))
@given(data=st.data())
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_a_mapper_makes_events_or_says_why_not(slug: str, data: st.DataObject) -> None:
    """It raises MappingError alone, and each of its events is valid or refused with its problems."""
    hook, options = HOOKS[slug], Options("shop", OPTIONS.get(slug, {}))
    if hook.payload == "json":
        payload, body = data.draw(spoilt_json(slug)), b"{}"
    else:
        payload, body = None, data.draw(spoilt_bytes(slug))
    delivery = _delivery(slug, _headers(data.draw), body)
    try:
        if hook.payload != "json":
            payload = read_payload(hook, delivery, body)
        hook.dedupe_id(payload, delivery, options)
        mapped = hook.map(payload, delivery, options)
    except MappingError as error:
        mapped = Mapped(unmapped=[error])
    _check(mapped)


@pytest.mark.parametrize("slug", sorted(HOOKS))
@given(data=st.data())
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_every_delivery_comes_to_something(slug: str, data: st.DataObject) -> None:
    """Whatever the bytes: events, what is wrong, or why it means nothing; and a table can hold all of it."""
    source = Opened("shop", HOOKS[slug], Options("shop", OPTIONS.get(slug, {})))
    body = data.draw(spoilt_bytes(slug))
    understood = understand(source, _delivery(slug, _headers(data.draw), body), NOW)
    assert understood.candidates or understood.refused or understood.ignored
    internal = [p for each in understood.refused for p in each.problems if p.code == "internal"]
    assert internal == []
    texts = [understood.ignored or "", understood.dedupe_id or ""]
    texts += [
        word for each in understood.refused for p in each.problems for word in (p.field, p.reason, p.remedy)
    ]
    assert all("\x00" not in text and text.encode() is not None for text in texts)


def test_every_hook_has_deliveries_to_start_from() -> None:
    """A fixture as its vendor documents it, named by the hook: without one the laws above say little."""
    assert [slug for slug in HOOKS if not _fixtures(slug)] == []
