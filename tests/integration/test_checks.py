"""Asking before release: a service of the advertiser's own decides what may fire, and its silence releases nothing."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import pairwise
from typing import Any

import pytest
import typer
from sqlalchemy import Engine
from typer.testing import CliRunner

from infra.sink import SinkThread
from infra.store import firing as store
from infra.store import releasing
from infra.store.ledger import read_ledger
from investigations import cli
from investigations.words import clock
from schemas.destination import Contract
from tests.integration.ground import Ground, Gun, cleared, contract, conversion, generic_url, signal, until
from workers.rescuing import rescue

SECRET = "k3y-Long/and+odd=secret"
TOKEN = "a-token-that-came-into-being-on-the-way"
QUICK = {"base": "50ms", "factor": 2, "cap": "2s", "jitter": 0}


@dataclass
class OrderService:
    """An advertiser's own service: answers as told, and keeps what it was asked."""

    url: str = ""
    status: int = 200
    body: bytes = b"paid"
    headers: dict[str, str] = field(default_factory=dict)
    echo: bool = False
    """Whether it answers with the header fields it was sent."""
    asked: list[str] = field(default_factory=list)
    answers: threading.Event = field(default_factory=threading.Event)
    """Cleared, it takes questions and answers none but those in ``let``."""
    let: dict[int, int] = field(default_factory=dict)
    """The status of a question by its number, from 1, answered whatever holds the others up."""
    tokens: int = 0
    """How many it has given out."""

    def answer(self, number: int) -> int:
        """The status, once there is one."""
        until(lambda: self.answers.is_set() or number in self.let, 20)
        return self.let.get(number, self.status)

    def told(self, status: int, body: bytes = b"") -> None:
        self.status, self.body = status, body


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    service: OrderService


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Server

    def do_GET(self) -> None:
        service = self.server.service
        service.asked.append(self.path)
        status = service.answer(len(service.asked))
        body = bytes(self.headers) if service.echo else service.body
        self._send(status, body, service.headers)

    def do_POST(self) -> None:
        """Its token endpoint."""
        self.rfile.read(int(self.headers["Content-Length"]))
        self.server.service.tokens += 1
        self._send(200, json.dumps({"access_token": TOKEN, "expires_in": 300}).encode(), {})

    def _send(self, status: int, body: bytes, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def service() -> Iterator[OrderService]:
    server = _Server(("127.0.0.1", 0), _Handler)
    server.service = OrderService(url=f"http://127.0.0.1:{server.server_address[1]}/orders/{{order_id}}")
    server.service.answers.set()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    yield server.service
    server.service.answers.set()
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture
def ground(engine: Engine) -> Ground:
    return cleared(engine)


@pytest.fixture(scope="module")
def _sink() -> Iterator[SinkThread]:
    with SinkThread() as running:
        yield running


@pytest.fixture
def sink(_sink: SinkThread) -> SinkThread:
    _sink.client.reset()
    return _sink


@pytest.fixture
def gun(ground: Ground) -> Iterator[Gun]:
    with ground.firing() as gun:
        yield gun


def asking(url: str, **fields: Any) -> dict[str, Any]:
    """A hold that fires at once, but for what the service says."""
    check = {"url": url, "allow_http": True, "allow_private": True, "again": QUICK, **fields}
    return {"kind": "none", "check": check}


def checked(sink: SinkThread, url: str, *, behaviour: str = "", name: str = "d", **fields: Any) -> Contract:
    return contract(name, generic_url(sink.url, behaviour), hold=asking(url, **fields))


def checks(ground: Ground) -> list[Any]:
    return list(ground.rows("SELECT * FROM checks ORDER BY id"))


def sent(sink: SinkThread) -> int:
    return int(sink.client.counts()["requests"])


# What it says ----------------------------------------------------------------------------------------


def test_what_the_service_confirms_fires_once_and_only_after_its_answer(
    ground: Ground, gun: Gun, sink: SinkThread, service: OrderService
) -> None:
    """Nothing leaves for the network while the service is being asked; one postback does once it has said so."""
    service.answers.clear()
    ground.apply(checked(sink, service.url))
    ground.take(conversion("e"))
    gun.fire_due()
    until(lambda: service.asked)
    assert service.asked == ["/orders/e"]
    assert ground.postback("e").state == "leased"
    assert sent(sink) == 0
    service.answers.set()
    gun.fire_until_final()
    assert ground.postback("e").state == "delivered"
    assert (len(service.asked), sent(sink), len(ground.attempts("e"))) == (1, 1, 1)
    (check,) = checks(ground)
    assert (check.verdict, check.rule, check.status_code, check.number) == ("release", "status 200", 200, 1)
    assert ground.postback("e").confirmed_at == check.ended_at <= ground.attempts("e")[0].intent_at


def test_what_the_service_does_not_know_never_fires(
    ground: Ground, gun: Gun, sink: SinkThread, service: OrderService
) -> None:
    """A void of its service ends a postback as the policy says, with the answer as evidence."""
    service.told(404, b"no such order")
    ground.apply(checked(sink, service.url, void_as="refunded"))
    ground.take(conversion("e"))
    gun.fire_until_final()
    postback = ground.postback("e")
    assert (postback.state, postback.void_reason) == ("voided", "refunded")
    assert postback.reason == "its service said void: status 404"
    assert sent(sink) == 0
    (hop,) = ground.rows("SELECT * FROM hops")
    assert bytes(hop.body) == b"no such order"
    assert bytes(hop.request_head).startswith(b"GET /orders/e HTTP/1.1\r\n")


def test_a_body_rule_can_void_what_the_status_would_release(
    ground: Ground, gun: Gun, sink: SinkThread, service: OrderService
) -> None:
    """Body rules come first, and say as what a conversion is voided."""
    service.told(200, b'{"status": "refunded"}')
    rule = {"regex": '"status": *"refunded"', "verdict": "void", "reason": "refunded"}
    ground.apply(checked(sink, service.url, body=[rule]))
    ground.take(conversion("e"))
    gun.fire_until_final()
    assert (ground.postback("e").state, ground.postback("e").void_reason) == ("voided", "refunded")


def test_a_void_lets_the_first_duplicate_take_its_place(
    ground: Ground, gun: Gun, sink: SinkThread, service: OrderService
) -> None:
    """The order of a duplicate is asked about in its own right."""
    service.told(404)
    hold = asking(service.url)
    ground.apply(contract("d", generic_url(sink.url), rules={"sub_id": False}, hold=hold))
    ground.take(
        conversion("e", click_ids={"generic": "same"}), conversion("f", click_ids={"generic": "same"})
    )
    assert ground.states() == {"held": 1, "duplicate": 1}
    gun.fire_until_final()
    assert service.asked == ["/orders/e", "/orders/f"]
    assert ground.states() == {"voided": 2}


@pytest.mark.parametrize("status", [301, 302, 401, 429, 500, 503])
def test_an_answer_that_no_rule_names_asks_again(
    ground: Ground, gun: Gun, sink: SinkThread, service: OrderService, status: int
) -> None:
    """A redirect is not followed, a refused key is no word on the order, a failing service has said nothing."""
    service.status, service.headers = status, {"Location": generic_url(sink.url)}
    ground.apply(checked(sink, service.url))
    ground.take(conversion("e"))
    gun.fire()
    postback = ground.postback("e")
    assert (postback.state, postback.asked, postback.attempts) == ("held", 1, 0)
    assert postback.due_at > postback.release_at
    (check,) = checks(ground)
    assert (check.verdict, check.status_code, check.asks_again_at) == ("again", status, postback.due_at)
    assert sent(sink) == 0


def test_what_is_confirmed_goes_before_what_has_just_fallen_due(
    ground: Ground, gun: Gun, sink: SinkThread, service: OrderService
) -> None:
    """Behind a long queue its confirmation would grow stale, and it would be asked about for ever."""
    ground.apply(checked(sink, service.url))
    ground.take(conversion("e"))
    gun.fire()
    postback = ground.postback("e")
    assert (postback.state, postback.due_at) == ("held", postback.release_at)


def test_only_the_policy_that_says_so_asks(
    ground: Ground, gun: Gun, sink: SinkThread, service: OrderService
) -> None:
    """Within one destination a rule may ask for some of its events; the others fire as they are."""
    rule = {"min_value": "100", "currency": "EUR", "hold": asking(service.url)}
    ground.apply(contract("d", generic_url(sink.url), holds=[rule]))
    ground.take(conversion("small"), conversion("large", value="250.00"))
    gun.fire_until_final()
    assert ground.states() == {"delivered": 2}
    assert service.asked == ["/orders/large"]


def test_a_correction_of_what_was_delivered_is_not_asked_about(
    ground: Ground, gun: Gun, sink: SinkThread, service: OrderService
) -> None:
    """The service would say of a refunded order that it must not be reported, and the network would keep it."""
    retraction = {"url": f"{sink.url}/generic/r?click_id={{click_id}}", "dedupe": "harmless", "basis": "ours"}
    rules = {"adjustments": {"retraction": retraction}}
    ground.apply(contract("d", generic_url(sink.url), rules=rules, hold=asking(service.url)))
    ground.take(conversion("e"))
    gun.fire_until_final()
    service.told(404)
    ground.take(signal("refund", "r", "e"))
    gun.fire_until_final()
    assert ground.states() == {"delivered": 2}
    assert (len(service.asked), sent(sink)) == (1, 2)


# When it says nothing --------------------------------------------------------------------------------


def test_while_the_service_is_down_everything_is_held_on(
    ground: Ground, gun: Gun, sink: SinkThread, service: OrderService
) -> None:
    """It is asked at growing intervals, nothing reaches the network, and its first answer after that counts."""
    service.told(503)
    ground.apply(checked(sink, service.url))
    ground.take(conversion("e"))
    deadline = time.monotonic() + 15
    while len(service.asked) < 4:
        assert time.monotonic() < deadline
        gun.fire()
    asked = checks(ground)[:4]
    waits = [(one.asks_again_at - one.ended_at).total_seconds() for one in asked]
    assert all(later > 1.5 * earlier for earlier, later in pairwise(waits)), waits
    assert sent(sink) == 0
    assert ground.postback("e").asked_since == asked[0].intent_at
    service.told(200)
    gun.fire_until_final()
    assert ground.postback("e").state == "delivered"
    assert sent(sink) == 1
    assert (ground.postback("e").asked, ground.postback("e").asked_since) == (0, None)


@pytest.mark.parametrize(
    ("behaviour", "rule"),
    [
        ("late:5", "timeout"),
        ("reset", "reset"),
        ("reset-midway", "cannot be read"),
        ("hang-up", "reset"),
        ("huge:1", "cannot be read"),
    ],
)
def test_half_an_answer_is_none(
    ground: Ground, gun: Gun, sink: SinkThread, behaviour: str, rule: str
) -> None:
    """A timeout, a torn connection and a body that was not read whole release nothing, whatever its status."""
    url = f"{sink.url}/bad/{behaviour}/generic/order?click_id={{order_id}}"
    body = [{"regex": "refunded", "verdict": "void"}]
    ground.apply(contract("d", generic_url(sink.url), hold=asking(url, deadline="300ms", body=body)))
    ground.take(conversion("e"))
    gun.fire()
    (check,) = checks(ground)
    assert check.verdict == "again"
    assert rule in check.rule
    assert ground.postback("e").state == "held"
    assert not ground.rows("SELECT * FROM intents")


@pytest.mark.parametrize("on_horizon", ["void", "release"])
def test_the_end_of_the_horizon_is_decided_as_the_policy_says(
    ground: Ground,
    gun: Gun,
    sink: SinkThread,
    service: OrderService,
    on_horizon: str,
) -> None:
    """Voided as unconfirmed, or released where that was chosen, and not a moment sooner."""
    service.told(500)
    ground.apply(checked(sink, service.url, horizon="400ms", on_horizon=on_horizon))
    ground.take(conversion("e"))
    gun.fire_until_final()
    assert (ground.postback("e").state, ground.postback("e").void_reason) == (
        ("delivered", None) if on_horizon == "release" else ("voided", "unconfirmed")
    )
    found = checks(ground)
    assert (found[-1].ended_at - found[0].intent_at).total_seconds() >= 0.4
    assert {one.verdict for one in found} == {"again"}
    assert sent(sink) == (on_horizon == "release")


def test_the_network_s_age_limit_ends_what_is_held_on(
    ground: Ground, gun: Gun, sink: SinkThread, service: OrderService
) -> None:
    """A postback that became too old while its service was down expires, and its service is not asked any more."""
    service.told(500)
    ground.apply(checked(sink, service.url))
    ground.take(conversion("e"))
    gun.fire()
    ground.run("UPDATE postbacks SET due_at = now(), expires_at = now()")
    gun.fire_until_final()
    assert ground.postback("e").state == "expired"
    assert len(service.asked) == 1


def test_a_slow_service_holds_nobody_else_up(
    ground: Ground, gun: Gun, sink: SinkThread, service: OrderService
) -> None:
    """While one destination's service is silent, another's postbacks fire, and so do its own that are confirmed."""
    narrow = {"hold": asking(service.url, concurrency=2), "limits": {"concurrency": 2}}
    ground.apply(contract("slow", generic_url(sink.url), **narrow), contract("quick", generic_url(sink.url)))
    ground.take(conversion("known"))
    until(lambda: (gun.fire(), ground.postback("known", "slow").confirmed_at)[1])
    ground.run("UPDATE postbacks SET due_at = 'infinity' WHERE state IN ('held', 'retrying')")
    service.answers.clear()
    ground.take(*(conversion(f"e{n}") for n in range(40)))
    gun.fire_due()
    until(lambda: len(service.asked) == 3)
    ground.run("UPDATE postbacks SET due_at = now() WHERE due_at = 'infinity'")
    gun.fire_due()
    until(lambda: ground.one("SELECT count(*) FROM postbacks WHERE state = 'delivered'") == 42)
    states = ground.states()
    assert states["leased"] + states["held"] == 40
    assert states["leased"] >= 1
    service.answers.set()


# Races -----------------------------------------------------------------------------------------------


def test_a_refund_while_the_service_is_asked_voids_at_once(
    ground: Ground, gun: Gun, sink: SinkThread, service: OrderService
) -> None:
    """The answer that comes too late is kept as evidence and moves nothing."""
    service.answers.clear()
    ground.apply(checked(sink, service.url))
    ground.take(conversion("e"))
    gun.fire_due()
    until(lambda: service.asked)
    ground.take(signal("refund", "r", "e"))
    assert ground.postback("e").state == "voided"
    service.answers.set()
    gun.settle()
    assert ground.postback("e").void_reason == "refunded"
    (check,) = checks(ground)
    assert (check.stale, check.verdict, check.asks_again_at) == (True, "release", None)
    assert len(ground.rows("SELECT * FROM hops")) == 1
    assert sent(sink) == 0


def test_what_is_reinstated_is_asked_about_as_if_for_the_first_time(
    ground: Ground, gun: Gun, sink: SinkThread, service: OrderService
) -> None:
    """A silence before it was voided does not count towards its horizon afterwards."""
    service.told(503)
    ground.apply(checked(sink, service.url, horizon="1h"))
    ground.take(conversion("e"))
    gun.fire()
    ground.run("UPDATE postbacks SET asked_since = now() - interval '2 h'")
    ground.take(signal("chargeback", "c1", "e", outcome="opened"))
    assert ground.postback("e").state == "voided"
    ground.take(signal("chargeback", "c2", "e", outcome="won"))
    gun.fire()
    postback = ground.postback("e")
    assert (postback.state, postback.asked) == ("held", 1)
    assert postback.asked_since > postback.now - timedelta(minutes=1)


def test_what_a_dead_worker_asked_about_is_asked_about_again(
    ground: Ground, gun: Gun, sink: SinkThread, service: OrderService
) -> None:
    """Its lease runs out, rescue gives it back, no attempt is spent; the late answer of the first moves nothing."""
    service.answers.clear()
    ground.apply(checked(sink, service.url))
    ground.take(conversion("e"))
    gun.fire_due()
    until(lambda: service.asked)
    ground.run("UPDATE postbacks SET due_at = now()")
    rescue(ground.engine, gun.renderer)
    assert ground.postback("e").state == "held"
    gun.fire_due()
    until(lambda: len(service.asked) == 2)
    service.let[1] = 404
    until(lambda: checks(ground))
    assert [(check.verdict, check.stale) for check in checks(ground)] == [("void", True)]
    assert ground.postback("e").state == "leased"
    service.answers.set()
    gun.fire_until_final()
    assert ground.postback("e").state == "delivered"
    assert sorted(check.stale for check in checks(ground)) == [False, True]
    assert (len(service.asked), sent(sink)) == (2, 1)


def test_refunds_and_answers_that_race_leave_one_outcome_each(
    ground: Ground, gun: Gun, sink: SinkThread, service: OrderService
) -> None:
    """Of 60 orders that are asked about while every second one is refunded, none is voided and sent, none sent twice."""
    ground.apply(checked(sink, service.url))
    ground.take(*(conversion(f"e{n}") for n in range(60)))

    def refund() -> None:
        for n in range(0, 60, 2):
            ground.take(signal("refund", f"r{n}", f"e{n}"))

    refunds = threading.Thread(target=refund)
    refunds.start()
    gun.fire_until_final()
    refunds.join()
    gun.fire_until_final()
    states = ground.states()
    assert sum(states.values()) == 60
    assert set(states) <= {"delivered", "voided"}
    assert states["delivered"] >= 30
    assert sent(sink) == states["delivered"]
    moved = ground.one(
        "SELECT count(DISTINCT postback_id) FROM checks WHERE NOT stale AND verdict = 'release'"
    )
    assert moved >= states["delivered"]
    assert read_ledger(ground.engine).balances


def test_the_lease_lasts_as_long_as_the_service_is_asked(
    ground: Ground, sink: SinkThread, service: OrderService
) -> None:
    """A service slower than a lease is not taken for a dead worker."""
    service.answers.clear()
    ground.apply(checked(sink, service.url))
    ground.take(conversion("e"))
    with ground.firing(lease_s=1.2) as gun:
        gun.fire_due()
        first = ground.postback("e").due_at
        until(lambda: ground.postback("e").due_at > first)
        assert ground.postback("e").state == "leased"
        service.answers.set()
        gun.settle()
    assert [check.stale for check in checks(ground)] == [False]


def test_a_short_lease_is_renewed_at_the_gate(
    ground: Ground, gun: Gun, sink: SinkThread, service: OrderService
) -> None:
    """A lease that waited long for its worker lasts until the first renewal all the same."""
    service.answers.clear()
    ground.apply(checked(sink, service.url))
    ground.take(conversion("e"))
    (lease,) = releasing.claim(ground.engine, limit=10, lease_s=1, per_lease=10)
    gun.firing.fire(lease.token, lease.version_id, lease.postback_ids)
    row = ground.postback("e")
    assert (row.due_at - row.now).total_seconds() > gun.lease_s / 2
    service.answers.set()
    gun.settle()


# Retries ---------------------------------------------------------------------------------------------


def test_a_retry_hours_later_asks_anew(
    ground: Ground, gun: Gun, sink: SinkThread, service: OrderService
) -> None:
    """A confirmation holds for a while; an order that was refunded since is not fired a second time."""
    ground.apply(checked(sink, service.url, behaviour="status:503"))
    ground.take(conversion("e"))
    until(lambda: (gun.fire(), ground.postback("e").state == "retrying")[1])
    assert len(service.asked) == 1
    ground.run("UPDATE postbacks SET due_at = now(), confirmed_at = now() - interval '11 minutes'")
    service.told(410)
    gun.fire_until_final()
    assert (ground.postback("e").state, len(ground.attempts("e"))) == ("voided", 1)
    assert [check.verdict for check in checks(ground)] == ["release", "void"]


def test_a_retry_soon_after_is_not_asked_about(
    ground: Ground, gun: Gun, sink: SinkThread, service: OrderService
) -> None:
    """As long as the confirmation is fresh, attempts follow each other without a question."""
    ground.apply(checked(sink, service.url, behaviour="status:503"))
    ground.take(conversion("e"))
    gun.fire_until_final()
    assert (ground.postback("e").state, len(ground.attempts("e"))) == ("dead", 3)
    assert len(service.asked) == 1


def test_no_attempt_waits_for_its_service_beyond_the_retry_horizon(
    ground: Ground, gun: Gun, sink: SinkThread, service: OrderService
) -> None:
    """What was attempted before is asked about only as long as another attempt may be made."""
    ground.apply(checked(sink, service.url, behaviour="status:503"))
    ground.take(conversion("e"))
    until(lambda: (gun.fire(), ground.postback("e").state == "retrying")[1])
    service.told(500)
    ground.run(
        "UPDATE postbacks SET due_at = now(), confirmed_at = NULL, first_attempt_at = now() - interval '61 s'"
    )
    gun.fire()
    assert (ground.postback("e").state, ground.postback("e").void_reason) == ("voided", "unconfirmed")


# Evidence --------------------------------------------------------------------------------------------


def test_secrets_are_masked_in_what_is_kept(
    ground: Ground,
    gun: Gun,
    sink: SinkThread,
    service: OrderService,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The service gets its key; the evidence has none, although the service echoed it."""
    monkeypatch.setenv("ORDERS_KEY", SECRET)
    service.echo = True
    auth = {"kind": "header", "name": "X-Key", "value": {"env": "ORDERS_KEY"}}
    rule = {"regex": "(?i)x-key: " + "k3y-Long/and[+]odd=secret", "verdict": "release"}
    ground.apply(checked(sink, service.url, auth=auth, body=[rule], body_required=True))
    ground.take(conversion("e"))
    gun.fire_until_final()
    assert ground.postback("e").state == "delivered"
    (check,) = checks(ground)
    (hop,) = ground.rows("SELECT * FROM hops WHERE attempt_id = :id", id=check.id)
    assert b"X-Key: [secret:" in bytes(hop.request_head)
    assert SECRET.encode() not in bytes(hop.request_head) + bytes(hop.body)


def test_the_trail_tells_every_question_and_its_transcript_can_be_printed(
    ground: Ground, gun: Gun, sink: SinkThread, service: OrderService, database_url: str
) -> None:
    """While it is held on the last line says when it is asked again; afterwards every question stands in time order."""
    app = typer.Typer()
    cli.register(app)
    env = {"HOLDFIRE_DATABASE_URL": database_url, "NO_COLOR": "1"}

    def run(*arguments: str) -> str:
        result = CliRunner(env=env).invoke(app, list(arguments))
        assert result.exit_code == 0, result.output
        return result.stdout

    service.told(503, b"down")
    ground.apply(checked(sink, service.url, again={**QUICK, "base": "1h", "cap": "1h"}))
    ground.take(conversion("e"))
    gun.fire()
    (first,) = checks(ground)
    held_on = run("trail", "e")
    assert f"held on: asks its service again at {clock(first.asks_again_at)} UTC, in" in held_on
    assert f"asks {service.url} before release" in held_on
    ground.run("UPDATE postbacks SET due_at = now()")
    service.told(404, b"no such order")
    gun.fire_until_final()
    second = checks(ground)[1]
    trail = run("trail", f"ck_{second.id}")
    assert f"ck_{first.id}  asked its service by {first.worker} → again: status 503" in trail
    assert f"ck_{second.id}  asked its service (2nd time) by {second.worker} → void: status 404" in trail
    assert trail.index(f"ck_{first.id} ") < trail.index(f"ck_{second.id} ")
    assert "answered  HTTP/1.1 404 Not Found  (13 bytes of body)" in trail
    printed = run("transcript", f"ck_{second.id}")
    assert f"# check       ck_{second.id}, number 2 of postback pb_{second.postback_id}\n" in printed
    assert "# verdict     void: status 404\n" in printed
    assert "> GET /orders/e HTTP/1.1\n" in printed
    assert "  no such order\n" in printed
    told = json.loads(run("transcript", f"ck_{first.id}", "--json"))
    assert (told["verdict"], told["stale"], len(told["hops"])) == ("again", False, 1)
    (life,) = [json.loads(line) for line in run("trail", "e", "--json").splitlines()]
    (postback,) = life["conversion"]["postbacks"]
    assert [check["number"] for check in postback["checks"]] == [1, 2]
    assert CliRunner(env=env).invoke(app, ["transcript", "ck_999999"]).exit_code == 1


def test_a_token_is_fetched_for_the_service_and_masked(
    ground: Ground,
    gun: Gun,
    sink: SinkThread,
    service: OrderService,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Client credentials work as they do for a network: one token for many questions, none of it in the evidence."""
    monkeypatch.setenv("ORDERS_SECRET", SECRET)
    service.echo = True
    auth = {
        "kind": "client_credentials",
        "token_url": service.url.replace("/orders/{order_id}", "/token"),
        "client_id": "holdfire",
        "client_secret": {"env": "ORDERS_SECRET"},
    }
    rule = {"regex": f"(?i)authorization: bearer {TOKEN}", "verdict": "release"}
    ground.apply(checked(sink, service.url, auth=auth, body=[rule], body_required=True))
    ground.take(conversion("e"), conversion("f"))
    gun.fire_until_final()
    assert ground.states() == {"delivered": 2}
    assert service.tokens == 1
    kept = ground.rows("SELECT h.* FROM hops h JOIN checks c ON c.id = h.attempt_id")
    assert len(kept) == 2
    for hop in kept:
        assert TOKEN.encode() not in bytes(hop.request_head) + bytes(hop.body)


def test_a_missing_key_of_the_service_spends_nothing(
    ground: Ground, gun: Gun, sink: SinkThread, service: OrderService
) -> None:
    """Somebody forgot a variable on this machine: the postback waits and says which."""
    auth = {"kind": "bearer", "token": {"env": "NOBODY_SET_THIS"}}
    ground.apply(checked(sink, service.url, auth=auth))
    ground.take(conversion("e"))
    gun.fire()
    assert ground.postback("e").state == "held"
    assert "NOBODY_SET_THIS" in ground.postback("e").reason
    assert not service.asked


def test_a_question_that_cannot_be_put_releases_nothing(
    ground: Ground, gun: Gun, sink: SinkThread, service: OrderService
) -> None:
    """An event without what the URL needs is rejected with the macro's name."""
    ground.apply(checked(sink, service.url.replace("order_id", "params.invoice")))
    ground.take(conversion("e"))
    gun.fire()
    assert ground.postback("e").state == "rejected"
    assert "its service cannot be asked: {params.invoice} has no value" in ground.postback("e").reason
    assert not ground.rows("SELECT * FROM intents")


def test_the_ledger_balances_with_questions_in_it(
    ground: Ground, gun: Gun, sink: SinkThread, service: OrderService
) -> None:
    """A question is no attempt."""
    service.told(503)
    ground.apply(checked(sink, service.url))
    ground.take(conversion("e"), conversion("f"))
    gun.fire()
    service.told(200)
    gun.fire_until_final()
    assert len(checks(ground)) == 4
    assert read_ledger(ground.engine).balances


def test_an_answer_settled_twice_is_kept_once(
    ground: Ground, gun: Gun, sink: SinkThread, service: OrderService, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A connection that breaks after the commit makes the worker settle again: nothing is moved or kept twice."""
    from infra.store import checks as checks_store
    from workers import firing

    def twice(engine: Engine, given: Any) -> Any:
        settled.append(checks_store.settle_checks(engine, given))
        settled.append(checks_store.settle_checks(engine, given))
        return settled[0]

    settled: list[Any] = []
    monkeypatch.setattr(firing, "settle_checks", twice)
    ground.apply(checked(sink, service.url))
    ground.take(conversion("e"))
    gun.fire_until_final()
    assert ground.postback("e").state == "delivered"
    assert [check.stale for check in checks(ground)] == [False]
    assert [len(settlement.states) for settlement in settled] == [1, 0]


def test_only_the_holder_of_a_lease_extends_it(
    ground: Ground, gun: Gun, sink: SinkThread, service: OrderService
) -> None:
    """A token of another lease touches nothing."""
    ground.apply(checked(sink, service.url))
    ground.take(conversion("e"))
    (lease,) = releasing.claim(ground.engine, limit=10, lease_s=5, per_lease=10)
    (number,) = lease.postback_ids
    assert store.extend(ground.engine, [(number, lease.token + 1)], 60) == 0
    assert store.extend(ground.engine, [(number, lease.token)], 60) == 1
