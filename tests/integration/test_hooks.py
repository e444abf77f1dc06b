"""Deliveries at a real door: signed as the vendors' own libraries sign, committed once, and kept whatever they are."""

from __future__ import annotations

import base64
import json
import subprocess
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import pytest
import standardwebhooks
import stripe
import svix.webhooks
from sqlalchemy import Engine, text

from producers.hooks.sources import Opened, open_sources
from tests.integration.door import NO_BROKER, DoorThread
from tests.integration.ground import Ground, until

FIXTURES = Path(__file__).parents[1] / "fixtures" / "hooks"
STRIPE_SECRET = "whsec_stripe-signing-secret"
OLD_STRIPE_SECRET = "whsec_the-one-before-rotation"
SHOP_SECRET = "shpss_0123456789abcdef"
WOO_SECRET = "woo-secret-0123456789"
STANDARD_SECRET = f"whsec_{base64.b64encode(b'a key of thirty-two octets, fine').decode()}"
CRM_KEY = "crm-key-0123456789abcdef"

CONFIG = """
[sources.billing]
hook = "stripe"
secrets = [{ env = "STRIPE_SECRET" }, { env = "OLD_STRIPE_SECRET" }]

[sources.shop]
hook = "shopify"
secret = { env = "SHOP_SECRET" }

[sources.woo]
hook = "woocommerce"
secret = { env = "WOO_SECRET" }

[sources.backend]
hook = "standard-webhooks"
secret = { env = "STANDARD_SECRET" }

[sources.crm]
hook = "generic"
secret = { env = "CRM_KEY" }
header = "X-CRM-Key"
type = "conversion"
constants = { name = "purchase" }
map = { event_id = "id", order_id = "deal.number", value = "deal.total", currency = "deal.currency" }
dedupe = "id"
"""
TABLES = "inbox, inbox_runs, outbox, conversions, signals"


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Opened]:
    """The sources of a configuration, their secrets read from the environment."""
    path = tmp_path_factory.mktemp("config") / "holdfire.toml"
    path.write_text(CONFIG)
    with pytest.MonkeyPatch.context() as environment:
        for name in (
            "STRIPE_SECRET",
            "OLD_STRIPE_SECRET",
            "SHOP_SECRET",
            "WOO_SECRET",
            "STANDARD_SECRET",
            "CRM_KEY",
        ):
            environment.setenv(name, globals()[name])
        return open_sources(path)


@pytest.fixture(scope="module")
def door(database_url: str, broker_url: str, sources: dict[str, Opened]) -> Iterator[DoorThread]:
    """A door that serves the sources."""
    with DoorThread(database_url, broker_url, sources=sources) as opened:
        yield opened


@dataclass
class Inbox:
    """What the door has kept."""

    ground: Ground

    def rows(self) -> list[Any]:
        return list(self.ground.rows("SELECT * FROM inbox ORDER BY id"))

    def enqueued(self) -> list[str]:
        messages = self.ground.rows("SELECT events FROM outbox")
        return sorted(event["event_id"] for row in messages for event in json.loads(row.events))


@pytest.fixture
def inbox(engine: Engine) -> Inbox:
    """The inbox, emptied: only a superuser may switch off what refuses to."""
    ground = Ground(engine)
    ground.run(f"SET LOCAL session_replication_role = replica; TRUNCATE {TABLES} CASCADE")
    return Inbox(ground)


def fixture(name: str) -> str:
    return (FIXTURES / f"{name}.json").read_text("utf-8")


def stripe_headers(body: str, secret: str = STRIPE_SECRET, at: float | None = None) -> dict[str, str]:
    """As Stripe's own library signs."""
    signed = stripe.WebhookSignature.generate_signature_header(body, secret, timestamp=int(at or time.time()))
    stripe.Webhook.construct_event(body.encode(), signed, secret, tolerance=None)  # type: ignore[no-untyped-call] # theirs
    return {"stripe-signature": signed, "content-type": "application/json"}


def openssl_headers(name: str, body: str, secret: str, **more: str) -> dict[str, str]:
    """base64(HMAC-SHA256(body)) by OpenSSL: neither Shopify's library nor WooCommerce signs webhooks in Python."""
    command = ["openssl", "dgst", "-sha256", "-hmac", secret, "-binary"]
    raw = subprocess.run(command, input=body.encode(), capture_output=True, check=True).stdout
    return {name: base64.b64encode(raw).decode()} | {
        key.replace("_", "-"): value for key, value in more.items()
    }


def post(door: DoorThread, source: str, body: str, headers: dict[str, str]) -> httpx.Response:
    return door.client.post(f"/hooks/{source}", content=body.encode(), headers=headers)


def test_a_stripe_delivery_is_kept_and_its_event_enqueued(door: DoorThread, inbox: Inbox) -> None:
    """Verbatim, with the signature, under its source and Stripe's id."""
    body = fixture("stripe_checkout.session.completed")
    answer = post(door, "billing", body, stripe_headers(body))
    assert (answer.status_code, answer.json()) == (200, {"status": "ok"})
    (row,) = inbox.rows()
    assert (row.kind, row.source, bytes(row.body), row.status_code) == ("hook", "billing", body.encode(), 200)
    assert row.dedupe_id == "evt_1PqRstLkdIwHu7ixaBcDeFgH"
    assert "stripe-signature" in dict(row.headers)
    assert inbox.enqueued() == ["stripe:pi_3PqRstLkdIwHu7ix0aBcDeFg"]


def test_a_repeated_delivery_enqueues_nothing_again(door: DoorThread, inbox: Inbox) -> None:
    """Stripe repeats an event with another count of pending webhooks and a new signature; both are kept."""
    body = fixture("stripe_checkout.session.completed")
    again = body.replace('"pending_webhooks": 1', '"pending_webhooks": 0')
    assert [post(door, "billing", each, stripe_headers(each)).status_code for each in (body, again)] == [
        200,
        200,
    ]
    first, second = inbox.rows()
    assert (first.accepted, second.accepted, second.answer["repeats"]) == (1, 0, f"in_{first.id}")
    assert inbox.enqueued() == ["stripe:pi_3PqRstLkdIwHu7ix0aBcDeFg"]


def test_deliveries_in_any_order_are_all_taken(door: DoorThread, inbox: Inbox) -> None:
    """A refund may come before its payment, and a dispute's end before its beginning."""
    names = (
        "charge.dispute.closed",
        "charge.refunded",
        "charge.dispute.created",
        "checkout.session.completed",
    )
    for name in names:
        body = fixture(f"stripe_{name}")
        assert post(door, "billing", body, stripe_headers(body)).status_code == 200
    assert len(inbox.enqueued()) == 4


@pytest.mark.parametrize("refund_first", [True, False])
def test_a_refund_finds_its_payment_in_any_order(
    door: DoorThread, inbox: Inbox, *, refund_first: bool
) -> None:
    """Stripe's refund names the conversion that this source made of the same payment, before or after it comes."""
    bodies = [fixture("stripe_checkout.session.completed"), fixture("stripe_charge.refunded")]
    for body in reversed(bodies) if refund_first else bodies:
        assert post(door, "billing", body, stripe_headers(body)).status_code == 200
        for message in inbox.ground.rows("SELECT events FROM outbox"):
            inbox.ground.take(*json.loads(message.events))
    (row,) = inbox.ground.rows("SELECT net_value, outcomes FROM conversions")
    assert (str(row.net_value), list(row.outcomes)) == ("34.90", ["partial_refund"])


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        pytest.param({"body": "tampered"}, "does not match the body", id="a changed body"),
        pytest.param({"secret": "whsec_of-somebody-else"}, "does not match the body", id="another secret"),
        pytest.param({"age_s": 400.0}, "s old, and 300 s are allowed", id="an old signature"),
        pytest.param({"age_s": -400.0}, "ahead, and 300 s are allowed", id="one of the future"),
        pytest.param({"headers": {}}, "there is no stripe-signature header", id="none"),
        pytest.param({"headers": {"stripe-signature": "v1=00"}}, "not of the form", id="half of one"),
    ],
)
def test_what_is_not_genuine_is_refused_and_not_stored(
    door: DoorThread, inbox: Inbox, change: dict[str, Any], reason: str
) -> None:
    """401 with the reason."""
    body = fixture("stripe_charge.refunded")
    at = time.time() - change.get("age_s", 0)
    headers = change.get("headers", stripe_headers(body, change.get("secret", STRIPE_SECRET), at))
    answer = post(door, "billing", body.replace("1500", "0") if "body" in change else body, headers)
    assert answer.status_code == 401
    assert reason in answer.json()["detail"]
    assert inbox.rows() == []


def test_either_secret_is_good_while_one_is_rotated(door: DoorThread, inbox: Inbox) -> None:
    """Ours may be two, and Stripe may send two signatures."""
    body = fixture("stripe_charge.refunded")
    assert post(door, "billing", body, stripe_headers(body, OLD_STRIPE_SECRET)).status_code == 200
    new = stripe_headers(body)["stripe-signature"]
    both = new.replace(",v1=", f",v1={'0' * 64},v1=")
    assert post(door, "billing", body, {"stripe-signature": both}).status_code == 200
    assert len(inbox.rows()) == 2


def test_a_shopify_delivery_is_taken_in_time(door: DoorThread, inbox: Inbox) -> None:
    """Signed over the raw body; Shopify waits five seconds."""
    body = fixture("shopify_orders_paid")
    headers = openssl_headers("x-shopify-hmac-sha256", body, SHOP_SECRET, x_shopify_topic="orders/paid")
    answer = post(door, "shop", body, headers | {"x-shopify-webhook-id": "w-1"})
    assert answer.status_code == 200
    assert answer.elapsed.total_seconds() < 5
    assert inbox.enqueued() == ["shopify:order:820982911946154508"]


def test_a_delivery_that_cannot_be_mapped_is_kept_and_answered_well(door: DoorThread, inbox: Inbox) -> None:
    """Its sender must not switch the hook off; the reason stands beside it."""
    body = fixture("shopify_orders_paid").replace('"388.00"', '"a lot"')
    headers = openssl_headers("x-shopify-hmac-sha256", body, SHOP_SECRET, x_shopify_topic="orders/paid")
    assert post(door, "shop", body, headers).status_code == 200
    (row,) = inbox.rows()
    (rejected,) = row.answer["rejected"]
    assert (row.rejected, bytes(row.body), rejected["problems"][0]["field"]) == (
        1,
        body.encode(),
        "total_price",
    )
    assert inbox.enqueued() == []


def test_an_event_that_is_invalid_is_kept_with_its_reasons(door: DoorThread, inbox: Inbox) -> None:
    """A click id that is still a macro is refused at this edge as well."""
    body = fixture("stripe_checkout.session.completed").replace(
        "nym1CJjYiJ3oq6LkMxACGIHey7vM0vGDRyIJMTAuMS4xMi42KAE.", "${SSP_DATA}"
    )
    assert post(door, "billing", body, stripe_headers(body)).status_code == 200
    (row,) = inbox.rows()
    assert row.answer["rejected"][0]["problems"][0]["code"] == "unreplaced_macro"


def test_a_delivery_that_failed_is_looked_at_again_when_it_is_repeated(
    door: DoorThread, inbox: Inbox
) -> None:
    """Only what was taken before is a repetition."""
    good = fixture("shopify_orders_paid")
    for body in (good.replace('"388.00"', '"a lot"'), good):
        headers = openssl_headers("x-shopify-hmac-sha256", body, SHOP_SECRET, x_shopify_topic="orders/paid")
        post(door, "shop", body, headers | {"x-shopify-webhook-id": "w-2"})
    assert inbox.enqueued() == ["shopify:order:820982911946154508"]


def test_a_topic_nobody_asked_for_is_kept_with_the_reason(door: DoorThread, inbox: Inbox) -> None:
    """And answered well."""
    body = fixture("shopify_orders_paid")
    headers = openssl_headers("x-shopify-hmac-sha256", body, SHOP_SECRET, x_shopify_topic="orders/edited")
    assert post(door, "shop", body, headers).status_code == 200
    (row,) = inbox.rows()
    assert (row.rejected, row.answer["ignored"]) == (0, "the topic orders/edited is not read")


def test_woocommerce_may_ping_before_anything_is_signed(door: DoorThread, inbox: Inbox) -> None:
    """The ping is answered and not kept; an order needs its signature."""
    ping = door.client.post("/hooks/woo", data={"webhook_id": "7"})
    body = fixture("woocommerce_order.updated")
    unsigned = post(door, "woo", body, {"x-wc-webhook-topic": "order.updated"})
    assert (ping.status_code, unsigned.status_code, inbox.rows()) == (200, 401, [])
    headers = openssl_headers("x-wc-webhook-signature", body, WOO_SECRET, x_wc_webhook_topic="order.updated")
    assert post(door, "woo", body, headers).status_code == 200
    assert inbox.enqueued() == ["woocommerce:order:727", "woocommerce:refund:724", "woocommerce:refund:726"]


@pytest.mark.parametrize("library", ["standardwebhooks", "svix"])
def test_standard_webhooks_are_verified_as_their_libraries_sign(
    door: DoorThread, inbox: Inbox, library: str
) -> None:
    """Under the headers of the standard and under Svix's; one good signature among several is enough."""
    body, at = fixture("standard-webhooks_conversion"), datetime.now(UTC)
    signer: Any = {"standardwebhooks": standardwebhooks, "svix": svix.webhooks}[library].Webhook(
        STANDARD_SECRET
    )
    prefix = "webhook" if library == "standardwebhooks" else "svix"
    headers = {
        f"{prefix}-id": "msg_1",
        f"{prefix}-timestamp": str(int(at.timestamp())),
        f"{prefix}-signature": f"v1a,AAAA v1,AAAA {signer.sign('msg_1', at, body)}",
    }
    signer.verify(body, {name: value.split()[-1] for name, value in headers.items()})
    assert post(door, "backend", body, headers).status_code == 200
    assert post(door, "backend", body, headers | {f"{prefix}-id": "msg_2"}).status_code == 401
    (row,) = inbox.rows()
    assert row.dedupe_id == "msg_1"
    assert inbox.enqueued() == ["order-1001"]


def test_a_key_in_a_header_of_its_own_is_not_kept(door: DoorThread, inbox: Inbox) -> None:
    """Its mask is, which tells one key from another."""
    body = fixture("generic_deal")
    assert post(door, "crm", body, {"x-crm-key": "crm-key-of-somebody"}).status_code == 401
    answer = door.client.post(
        "/hooks/crm", params={"k": CRM_KEY}, content=body, headers={"x-crm-key": CRM_KEY}
    )
    assert answer.status_code == 200
    (row,) = inbox.rows()
    assert dict(row.headers)["x-crm-key"].startswith("[secret:")
    assert CRM_KEY not in row.target
    assert inbox.enqueued() == ["act-9001"]


def test_an_unknown_source_is_no_page_and_a_wrong_method_is_told(door: DoorThread, inbox: Inbox) -> None:
    """404 and 405 as problem details."""
    unknown = post(door, "nobody", "{}", {})
    wrong = door.client.get("/hooks/shop")
    assert (unknown.status_code, wrong.status_code, wrong.headers["allow"]) == (404, 405, "POST")
    assert unknown.headers["content-type"] == "application/problem+json"
    assert inbox.rows() == []


def test_the_document_tells_of_the_hooks(door: DoorThread) -> None:
    """As free-form, both ways."""
    path = door.client.get("/openapi.json").json()["paths"]["/hooks/{source}"]
    assert set(path) == {"get", "post"}


def test_without_a_broker_a_delivery_is_taken(
    database_url: str, sources: dict[str, Opened], inbox: Inbox
) -> None:
    """Its events wait in the outbox."""
    body = fixture("stripe_charge.refunded")
    with DoorThread(database_url, NO_BROKER, sources=sources) as door:
        assert post(door, "billing", body, stripe_headers(body)).status_code == 200
    assert inbox.enqueued() == ["evt_3PqRstLkdIwHu7ix0rEfUnDd"]


def test_without_a_database_the_sender_is_told_to_repeat(broker_url: str, sources: dict[str, Opened]) -> None:
    """503: a delivery is never answered before it is committed."""
    away = "postgresql+psycopg2://nobody@127.0.0.1:9/none"
    body = fixture("stripe_charge.refunded")
    with DoorThread(away, broker_url, sources=sources) as door:
        answer = post(door, "billing", body, stripe_headers(body))
    assert (answer.status_code, "retry-after" in answer.headers) == (503, True)


def test_a_slow_database_is_not_waited_for(door: DoorThread, inbox: Inbox, engine: Engine) -> None:
    """After four seconds the sender is told to repeat; what was committed late is then known."""
    body = fixture("stripe_charge.refunded")
    headers = stripe_headers(body)
    locked, done = threading.Event(), threading.Event()

    def lock() -> None:
        with engine.begin() as connection:
            connection.execute(text("LOCK TABLE inbox IN ACCESS EXCLUSIVE MODE"))
            locked.set()
            done.wait(30)

    holder = threading.Thread(target=lock)
    holder.start()
    assert locked.wait(10)
    answer = post(door, "billing", body, headers)
    done.set()
    holder.join()
    assert answer.status_code == 503
    assert answer.elapsed.total_seconds() < 5
    until(lambda: len(inbox.rows()) == 1)
    assert post(door, "billing", body, headers).status_code == 200
    assert [row.accepted for row in inbox.rows()] == [1, 0]
