"""What the browser tests look at: evidence of every kind, made by the real pipeline at the sink and at a hostile network."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import Any
from urllib.parse import urlsplit

from sqlalchemy import Engine

from infra.sink import SinkThread
from investigations.console.life_view import UNFOLDABLE
from investigations.reconcile.running import reconcile
from schemas.ids import show
from schemas.reconciling.options import ReportOptions
from tests.integration.ground import Ground, contract, generic_url, signal
from tests.integration.hostile import HOSTILE, HOSTILE_BYTES

TOKEN = "nym1CJjYiJ3oq6LkMxACGIHey7vM0vGDRyIJMTAuMS4xMi42KAE."
SECRET = "k3y-of-the-account-25619"
SECRET_VARIABLE = "HOLDFIRE_STAGE_KEY"
FORTNIGHT = timedelta(days=14)
GROUP = UNFOLDABLE
"""Hostile answers to one conversion: as many as its page unfolds."""
LONG_LIFE = 30
"""Attempts of the conversion that has many."""


@dataclass
class Stage:
    """A database with everything in it; ``cv`` has the conversions' ids by what they are."""

    ground: Ground
    cv: dict[str, str] = field(default_factory=dict)
    events: dict[str, str] = field(default_factory=dict)
    database_url: str = ""

    def attempts(self, name: str) -> list[str]:
        return [show("at", row.id) for row in self.ground.attempts(self.events[name])]

    def postback(self, name: str) -> str:
        return show("pb", self.ground.postback(self.events[name]).id)

    def order(self, name: str) -> str:
        return str(
            self.ground.one("SELECT order_id FROM conversions WHERE event_id = :e", e=self.events[name])
        )


class HostileNetwork:
    """Answers each group of requests with one hostile text after the other, as HTML and with a status worth repeating."""

    def __enter__(self) -> HostileNetwork:
        texts = [text.encode("utf-8", "surrogatepass") for text in HOSTILE.values()]
        bodies = [*texts, *HOSTILE_BYTES.values()]
        self.groups = -(-len(bodies) // GROUP)
        seen: Counter[str] = Counter()

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                group = urlsplit(self.path).path.rpartition("/")[2]
                body = bodies[(int(group) * GROUP + seen[group]) % len(bodies)]
                seen[group] += 1
                self.send_response(503)
                self.send_header("Content-Type", "text/html; charset=utf-8")
                self.send_header("X-Said", "<script>document.title='h0stile'</script>")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(10)


def order(number: int, network: str, ago: timedelta, **fields: Any) -> dict[str, Any]:
    """A purchase in a shop, so long ago."""
    happened = datetime.now(UTC) - ago
    return {
        "version": 1,
        "type": "conversion",
        "event_id": f"shopify:order:{number}",
        "source": "shop",
        "name": "purchase",
        "occurred_at": happened.isoformat(),
        "clicked_at": (happened - timedelta(days=2, hours=3)).isoformat(),
        "order_id": str(number),
        "value": "129.00",
        "currency": "EUR",
        "click_ids": {network: f"{TOKEN}{number}"},
        **fields,
    }


def _apply(ground: Ground, sink: str, hostile: HostileNetwork) -> None:
    quick = {"base": "1ms", "factor": 1.0, "cap": "10ms", "jitter": 0.0, "horizon": "10m"}
    key = {"settings": {"key": {"env": SECRET_VARIABLE}}}
    waits = {"hold": {"kind": "refund", "wait": "14d"}}
    at_sink = generic_url(sink)
    ground.apply(
        contract(
            "push-eu", f"{at_sink}&key={{settings.key}}", retry={"attempts": 12, "base": "2s"}, **key, **waits
        ),
        contract("xandr-main", f"{sink}/xandr/sspx", network="xandr", **_settings(id="25619"), **waits),
        contract("lender-us", at_sink, events=["application"], hold={"kind": "credit_check", "wait": "30d"}),
        contract("native-uk", at_sink, events=["subscription"]),
        contract("strict-de", generic_url(sink, "status:404"), events=["refused"]),
        contract("silent-fr", generic_url(sink, "reset-counted"), events=["unsure"]),
        contract(
            "busy-it",
            generic_url(sink, "status:503"),
            events=["busy"],
            retry={"attempts": LONG_LIFE, **quick},
            breaker=False,
        ),
        *(
            contract(
                f"hostile-{n}",
                f"{hostile.url}/h/{n}",
                events=[f"hostile-{n}"],
                retry={"attempts": GROUP, **quick},
                breaker=False,
            )
            for n in range(hostile.groups)
        ),
    )


def _settings(**settings: str) -> dict[str, Any]:
    return {"settings": settings}


def _take(stage: Stage, groups: int) -> None:
    """Two weeks ago orders came in; since then some were refunded, some are due now, and some wait."""
    day, hour = timedelta(days=1), timedelta(hours=1)
    evil = "<img src=x onerror=\"document.title='h0stile'\">"
    events = {
        "delivered": order(10041, "generic", FORTNIGHT),
        "redirected": order(10042, "xandr", FORTNIGHT),
        "held": order(10077, "generic", 3 * day),
        "keyboard": order(10079, "generic", 3 * day),
        "to void": order(10080, "generic", 3 * day),
        "refunded": order(10078, "generic", 3 * day),
        "waiting": order(
            20001, "generic", 2 * day, name="application", source="crm", event_id="crm:app:20001"
        ),
        "refused": order(10090, "generic", hour, name="refused"),
        "unsure": order(10091, "generic", hour, name="unsure"),
        "busy": order(10092, "generic", hour, name="busy"),
        **{f"hostile-{n}": order(66600 + n, "generic", hour, name=f"hostile-{n}") for n in range(groups)},
        "evil": order(66700, "generic", 3 * day, order_id=evil, params={"note": evil}),
        "nowhere": order(10099, "generic", hour, name="newsletter"),
    }
    for name, event in events.items():
        stage.events[name] = event["event_id"]
        stage.ground.take(event)
    stage.ground.take(*_subscriptions())
    stage.ground.take(
        signal("refund", "pay:refund:1", "10041", amount="29.00", currency="EUR", reason="one item returned"),
        signal("refund", "pay:refund:2", "10078", reason="all of it returned"),
        signal("credit_check", "crm:decision:1", "20001", outcome="review"),
    )
    stage.ground.take(events["delivered"])


def _let_time_have_passed(stage: Stage) -> None:
    """Intake commits by the database's clock, which a test cannot turn back: what came long ago is dated so afterwards."""
    stage.ground.run("""
        SET LOCAL session_replication_role = replica;
        UPDATE conversions SET received_at = occurred_at + interval '1.4 s' WHERE occurred_at < now() - interval '1 day';
        UPDATE signals SET received_at = received_at - interval '9 days 5 hours' WHERE event_id = 'pay:refund:1';
        UPDATE signals SET received_at = received_at - interval '20 hours' WHERE event_id <> 'pay:refund:1'""")


SUBSCRIPTIONS = 60


def _subscriptions() -> Iterator[dict[str, Any]]:
    """Many that went well: what a network's report is mostly about."""
    for n in range(SUBSCRIPTIONS):
        ago = timedelta(days=5, minutes=7 * n)
        yield order(30001 + n, "generic", ago, name="subscription", value=f"{19 + n % 4 * 10}.00")


def _reconcile(ground: Ground) -> None:
    """A network's report: it has most of what was delivered, one click id in small letters, one value of its own, one conversion
    twice, and two that nobody told it."""
    found = ground.rows("""
        SELECT order_id, value, to_char(occurred_at AT TIME ZONE 'UTC', 'YYYY-MM-DD') AS day
        FROM conversions WHERE name = 'subscription' ORDER BY id""")
    lines = [f"{TOKEN}{row.order_id},{row.order_id},{row.value},EUR,{row.day}" for row in found[:-1]]
    lines[3] = lines[3].replace(f",{found[3].value},", ",9.00,")
    lines[5] = f"{TOKEN.lower()}{found[5].order_id},,{found[5].value},EUR,{found[5].day}"
    lines += [lines[7], *(f"{TOKEN}{each},{each},15.00,EUR,{found[0].day}" for each in (77701, 77702))]
    with NamedTemporaryFile("w", suffix=".csv") as file:
        file.write("\n".join(["Click ID,Order ID,Value,Currency,Date", *lines]) + "\n")
        file.flush()
        path, options = Path(file.name), ReportOptions()
        reconcile(ground.engine, "native-uk", path, options, "test", name="native-uk-november.csv")


@contextmanager
def staged(engine: Engine) -> Iterator[Stage]:
    """Everything happened. ``SECRET_VARIABLE`` must stand in the environment."""
    ground = Ground(engine)
    stage = Stage(ground)
    with SinkThread() as sink, HostileNetwork() as hostile:
        _apply(ground, sink.url, hostile)
        sink.client.plan([{"match": {"order_id": "10041"}, "behave": "unavailable:1", "times": 2}])
        _take(stage, hostile.groups)
        with ground.firing() as gun:
            for _ in range(200):
                ground.run("UPDATE postbacks SET due_at = now() WHERE state = 'retrying'")
                if not ground.one("SELECT count(*) FROM postbacks WHERE due_at <= now()"):
                    break
                gun.fire()
        _let_time_have_passed(stage)
        for name, event_id in stage.events.items():
            stage.cv[name] = show(
                "cv", ground.one("SELECT id FROM conversions WHERE event_id = :e", e=event_id)
            )
        _reconcile(ground)
        yield stage
