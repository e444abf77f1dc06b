"""Firing at the sink: the gate, the wire, settling, and what every kind of answer makes of a postback."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from io import BytesIO
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine

from infra.logging import _fast_logger as fast_logger
from infra.sink import SinkThread
from infra.store import firing as store
from infra.store import releasing
from tests.integration.ground import (
    QUICK_RETRY,
    Ground,
    Gun,
    cleared,
    contract,
    conversion,
    generic_url,
    until,
)
from workers.firing import LONGEST_DEFER_S
from workers.rescuing import rescue

SECRET = "k3y-Long/and+odd=secret"
XANDR = {"network": "xandr", "settings": {"id": "25619"}}
ONE_ATTEMPT = QUICK_RETRY | {"attempts": 1}
SHORT = {"deadline": "400ms", "connect": "300ms"}


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


def shoot(ground: Ground, gun: Gun, url: str, **table: Any) -> Any:
    """One conversion fired once at ``url``; its postback as it then stands."""
    ground.apply(contract("d", url, **table))
    network = table.get("network", "generic")
    ground.take(conversion("e", network))
    gun.fire()
    return ground.postback("e")


# The gate ------------------------------------------------------------------------------------------


def test_the_intent_is_committed_before_the_first_byte_leaves(
    ground: Ground, gun: Gun, sink: SinkThread
) -> None:
    """While the network has the request and has not answered, the intent stands and the postback is firing."""
    sink.client.hold()
    ground.apply(contract("d", generic_url(sink.url)))
    ground.take(conversion("e"))
    gun.fire_due()
    until(sink.client.held)
    (intent,) = ground.rows("SELECT * FROM intents")
    postback = ground.postback("e")
    assert (intent.postback_id, intent.number, intent.attempt_id) == (postback.id, 1, postback.attempt_id)
    assert postback.state == "firing"
    assert not ground.attempts("e")
    sink.client.release()
    gun.settle()
    assert ground.postback("e").state == "delivered"


def test_outcome_hops_verdict_and_state_are_one_transaction(
    ground: Ground, gun: Gun, sink: SinkThread
) -> None:
    """An attempt whose hops cannot be written leaves no outcome behind, and is called unknown when its lease ends."""
    ground.apply(contract("d", generic_url(sink.url), dedupe="harmless"))
    ground.take(conversion("e"))
    ground.run("ALTER TABLE hops ADD CONSTRAINT broken CHECK (number > 1) NOT VALID")
    try:
        gun.fire()
        assert ground.postback("e").state == "firing"
        assert not ground.attempts("e")
    finally:
        ground.run("ALTER TABLE hops DROP CONSTRAINT broken")
    ground.run("UPDATE postbacks SET due_at = now()")
    gun.fire_until_final()
    assert [row.verdict for row in ground.attempts("e")] == ["unknown", "delivered"]


def test_one_answer_that_cannot_be_written_does_not_take_the_others_along(
    ground: Ground, gun: Gun, sink: SinkThread
) -> None:
    """Of two answers settled together, the one that the database refuses is left; the other is settled."""
    ground.apply(contract("d", generic_url(sink.url)))
    ground.take(conversion("good"), conversion("poison"))
    ground.run("ALTER TABLE attempts ADD CONSTRAINT broken CHECK (click_id NOT LIKE '%poison') NOT VALID")
    try:
        gun.fire()
    finally:
        ground.run("ALTER TABLE attempts DROP CONSTRAINT broken")
    assert ground.postback("good").state == "delivered"
    assert ground.postback("poison").state == "firing"


def test_a_log_that_cannot_be_written_does_not_stop_settling(
    ground: Ground, gun: Gun, sink: SinkThread, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The rows are the evidence and the line says the same in short; the next attempt is settled as well."""
    gone = BytesIO()
    gone.close()
    monkeypatch.setattr("workers.firing.attempt_log", lambda: fast_logger(gone, logging.INFO))
    ground.apply(contract("d", generic_url(sink.url)))
    for event_id in ("first", "second"):
        ground.take(conversion(event_id))
        gun.fire()
    assert ground.states() == {"delivered": 2}


def test_a_stale_lease_token_settles_nothing_and_its_hops_are_kept_as_late_evidence(
    ground: Ground, sink: SinkThread
) -> None:
    """An answer that comes after its attempt was rescued changes no row but adds what was seen on the wire."""
    sink.client.hold()
    ground.apply(contract("d", generic_url(sink.url), dedupe="counted_twice"))
    ground.take(conversion("e"))
    with ground.firing() as late, ground.firing() as other:
        late.fire_due()
        until(sink.client.held)
        ground.run("UPDATE postbacks SET due_at = now() - interval '1 s'")
        other.fire_until_final()
        before = ground.postback("e")
        assert before.state == "in_doubt"
        sink.client.release()
        late.settle()
    after = ground.postback("e")
    assert (after.state, after.reason, after.settled_at) == (before.state, before.reason, before.settled_at)
    assert [row.verdict for row in ground.attempts("e")] == ["unknown"]
    (hop,) = ground.hops("e")
    assert (hop.status_code, bytes(hop.body)) == (200, b"OK")


def test_settling_again_after_a_commit_whose_answer_was_lost_changes_nothing(
    ground: Ground, gun: Gun, sink: SinkThread, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second try of a settlement that had been committed finds it stale and does not trip over its hops."""
    written: list[Any] = []
    settle = store.settle

    def keep(engine: Engine, attempts: Any) -> Any:
        written.append(attempts)
        return settle(engine, attempts)

    monkeypatch.setattr(store, "settle", keep)
    shoot(ground, gun, generic_url(sink.url))
    again = settle(ground.engine, written[0])
    assert [attempt.number for attempt in again.stale] == [1]
    assert len(ground.hops("e")) == len(ground.attempts("e")) == 1


def test_a_lease_that_was_taken_back_does_not_pass_the_gate(
    ground: Ground, gun: Gun, sink: SinkThread
) -> None:
    """A hint that arrives after its lease ran out and was claimed again sends nothing."""
    ground.apply(contract("d", generic_url(sink.url)))
    ground.take(conversion("e"))
    (lease,) = releasing.claim(ground.engine, limit=10, lease_s=0.0, per_lease=10)
    assert releasing.rescue_leased(ground.engine) == 1
    gun.firing.fire(lease.token, lease.version_id, lease.postback_ids)
    assert (ground.postback("e").state, sink.client.counts()["requests"]) == ("held", 0)


def test_a_lease_that_is_nearly_over_at_the_gate_is_renewed_there(
    ground: Ground, gun: Gun, sink: SinkThread
) -> None:
    """Its hint waited long in the queue: no rescue calls the attempt lost while it is on the wire."""
    ground.apply(contract("d", generic_url(sink.url), dedupe="counted_twice"))
    ground.take(conversion("e"))
    (lease,) = releasing.claim(ground.engine, limit=10, lease_s=0.0, per_lease=10)
    sink.client.hold()
    gun.firing.fire(lease.token, lease.version_id, lease.postback_ids)
    until(sink.client.held)
    assert rescue(ground.engine, gun.renderer) == 0
    sink.client.release()
    gun.settle()
    assert ground.postback("e").state == "delivered"


def test_a_fresh_lease_keeps_its_end_at_the_gate(ground: Ground, gun: Gun, sink: SinkThread) -> None:
    """The indexed column stays as it is, so that the update costs no index entry."""
    ground.apply(contract("d", generic_url(sink.url)))
    ground.take(conversion("e"))
    (lease,) = releasing.claim(ground.engine, limit=10, lease_s=gun.lease_s, per_lease=10)
    ends_at = ground.postback("e").due_at
    sink.client.hold()
    gun.firing.fire(lease.token, lease.version_id, lease.postback_ids)
    until(sink.client.held)
    assert ground.postback("e").due_at == ends_at
    sink.client.release()


def test_an_instant_that_only_validation_can_read_does_not_block_the_gate(
    ground: Ground, gun: Gun, sink: SinkThread
) -> None:
    """A lower-case z is valid RFC 3339: the postback and its neighbours in the lease are fired."""
    ground.apply(contract("d", generic_url(sink.url)))
    ground.take(conversion("z", occurred_at="2026-01-01T00:00:00z"), conversion("neighbour"))
    gun.fire()
    assert ground.states() == {"delivered": 2}


# Answers -------------------------------------------------------------------------------------------


def test_a_200_is_delivered_with_its_evidence(ground: Ground, gun: Gun, sink: SinkThread) -> None:
    """The attempt and its hop say what was sent and what came, byte for byte, and the sink agrees."""
    postback = shoot(ground, gun, generic_url(sink.url))
    assert (postback.state, postback.attempts, postback.due_at) == ("delivered", 1, None)
    (attempt,), (hop,) = ground.attempts("e"), ground.hops("e")
    assert (attempt.verdict, attempt.rule, attempt.state) == ("delivered", "status 200", "delivered")
    assert (attempt.trigger, attempt.number, attempt.status_code) == ("release", 1, 200)
    assert attempt.intent_at <= attempt.ended_at
    (seen,) = sink.client.requests()
    assert seen["raw"].encode("latin-1") == bytes(hop.request_head) + b"\r\n"
    assert seen["credited"]
    assert hop.peer == f"127.0.0.1:{sink.sink.port}"


def test_a_302_is_followed_to_where_the_conversion_counts(ground: Ground, gun: Gun, sink: SinkThread) -> None:
    """Xandr's redirect makes a second hop, and the sink credits the conversion once."""
    postback = shoot(ground, gun, f"{sink.url}/xandr/sspx", **XANDR)
    assert postback.state == "delivered"
    assert [hop.status_code for hop in ground.hops("e")] == [302, 204]
    assert len(sink.client.credits("xandr")) == 1


@pytest.mark.parametrize(
    ("behaviour", "state", "verdict", "rule"),
    [
        ("status:400", "rejected", "rejected", "status 400"),
        ("status:404", "rejected", "rejected", "status 404"),
        ("status:500", "retrying", "retry", "status 500"),
        ("status:304", "rejected", "rejected", "status 304"),
        ("too-many:2", "retrying", "retry", "status 429"),
        ("unavailable:2", "retrying", "retry", "status 503"),
        ("gzip-truncated", "delivered", "delivered", "status 200"),
        ("gzip-invalid", "delivered", "delivered", "status 200"),
        ("length-too-long", "delivered", "delivered", "status 200"),
        ("length-too-short", "delivered", "delivered", "status 200"),
        ("reset-midway", "delivered", "delivered", "status 200"),
        ("huge:50", "delivered", "delivered", "status 200"),
        ("gzip-bomb:50", "delivered", "delivered", "status 200"),
        ("interim", "delivered", "delivered", "status 200"),
        ("reset", "in_doubt", "unknown", "reset after the request was sent"),
        ("hang-up", "in_doubt", "unknown", "reset after the request was sent"),
        ("garbage", "in_doubt", "unknown", "protocol after the request was sent"),
        ("status-missing", "in_doubt", "unknown", "protocol after the request was sent"),
    ],
)
def test_each_answer_leaves_its_state(  # noqa: PLR0917 — four columns of the table and three fixtures
    behaviour: str, state: str, verdict: str, rule: str, ground: Ground, gun: Gun, sink: SinkThread
) -> None:
    """One attempt, one answer, one state; the rule that gave the verdict is on record."""
    began = time.monotonic()
    postback = shoot(ground, gun, generic_url(sink.url, behaviour))
    (attempt,) = ground.attempts("e")
    assert (postback.state, attempt.verdict, attempt.rule) == (state, verdict, rule)
    assert (postback.due_at is not None) == (state == "retrying")
    assert attempt.next_attempt_at == (postback.due_at if state == "retrying" else None)
    assert time.monotonic() - began < 5


def test_a_50_mb_body_is_cut_at_the_cap_and_its_length_is_told(
    ground: Ground, gun: Gun, sink: SinkThread
) -> None:
    """The kept body is as long as the cap; the hop says that it was cut."""
    shoot(ground, gun, generic_url(sink.url, "huge:50"), limits={"body_cap": 1000})
    (hop,) = ground.hops("e")
    assert (len(hop.body), hop.truncated) == (1000, True)
    assert 1000 < hop.body_length < 5_000_000


def test_a_refused_connection_is_certain_and_is_retried(ground: Ground, gun: Gun, sink: SinkThread) -> None:
    """Nothing left this machine, so even a network that counts twice is tried again."""
    port = sink.client.about()["refused_port"]
    postback = shoot(ground, gun, generic_url(f"http://127.0.0.1:{port}"), dedupe="counted_twice")
    (attempt,) = ground.attempts("e")
    assert (postback.state, attempt.rule) == ("retrying", "connect before anything was sent")
    assert not postback.had_unknown


def test_a_connection_reset_unread_is_called_certain_only_if_nothing_was_written(
    ground: Ground, gun: Gun, sink: SinkThread
) -> None:
    """The reset may meet the client before or after it wrote: the state follows what the hop knows."""
    port = sink.client.about()["reset_port"]
    postback = shoot(ground, gun, generic_url(f"http://127.0.0.1:{port}"), dedupe="counted_twice")
    certain = ground.attempts("e")[0].rule.endswith("before anything was sent")
    assert postback.state == ("retrying" if certain else "in_doubt")
    assert postback.had_unknown != certain


@pytest.mark.parametrize(
    ("dedupe", "state"), [("harmless", "retrying"), ("rejected", "retrying"), ("counted_twice", "in_doubt")]
)
def test_a_late_answer_follows_the_dedupe_rule(
    dedupe: str, state: str, ground: Ground, gun: Gun, sink: SinkThread
) -> None:
    """After the deadline nobody knows whether it was counted: fire again where that is safe, else ask a person."""
    postback = shoot(ground, gun, generic_url(sink.url, "late:5"), dedupe=dedupe, limits=SHORT)
    (attempt,) = ground.attempts("e")
    assert (postback.state, attempt.verdict) == (state, "unknown")
    assert attempt.rule == "timeout after the request was sent"
    assert postback.had_unknown


def test_a_slow_drip_of_a_body_is_still_an_answer(ground: Ground, gun: Gun, sink: SinkThread) -> None:
    """A 200 whose body outlasts the deadline is judged by what came, and never sent again for it."""
    began = time.monotonic()
    postback = shoot(ground, gun, generic_url(sink.url, "drip:0.1"), limits=SHORT)
    assert (postback.state, ground.hops("e")[0].status_code) == ("delivered", 200)
    assert ground.hops("e")[0].body_error
    assert time.monotonic() - began < 3


def test_a_slow_drip_of_the_head_is_no_answer(ground: Ground, gun: Gun, sink: SinkThread) -> None:
    """A status line without the end of its headers within the deadline leaves the outcome unknown."""
    shoot(ground, gun, generic_url(sink.url, "drip-head:0.1"), limits=SHORT)
    assert ground.attempts("e")[0].verdict == "unknown"


FOLLOW = {"rules": {"redirects": "follow"}}


def test_a_redirect_loop_counted_nothing_and_is_retried(ground: Ground, gun: Gun, sink: SinkThread) -> None:
    """The loop is seen, not followed for ever."""
    postback = shoot(ground, gun, generic_url(sink.url, "redirect-loop"), **FOLLOW)
    (attempt,) = ground.attempts("e")
    assert (postback.state, attempt.rule) == ("retrying", "redirect_loop")
    assert sink.client.counts()["requests"] == len(ground.hops("e")) <= 2


def test_a_chain_of_redirects_ends_at_five_hops(ground: Ground, gun: Gun, sink: SinkThread) -> None:
    """Ten redirects are too many; five requests leave."""
    postback = shoot(ground, gun, generic_url(sink.url, "redirect-chain:10"), **FOLLOW)
    assert (postback.state, ground.attempts("e")[0].rule) == ("retrying", "too_many_redirects")
    assert sink.client.counts()["requests"] == 5


def test_a_private_address_is_refused_unless_the_destination_allows_it(
    ground: Ground, gun: Gun, sink: SinkThread
) -> None:
    """Loopback is never contacted for a destination that did not say so; not a byte arrives."""
    postback = shoot(ground, gun, generic_url(sink.url), allow_private=False)
    assert (postback.state, ground.attempts("e")[0].verdict) == ("rejected", "rejected")
    assert "egress refused" in ground.attempts("e")[0].rule
    assert sink.client.counts()["requests"] == 0


def test_a_duplicate_after_an_unknown_outcome_says_that_the_first_one_counted(
    ground: Ground, gun: Gun, sink: SinkThread
) -> None:
    """A 409 to the second attempt proves that the first, whose answer never came, had arrived."""
    sink.client.settings({"generic": {"duplicates": "rejected"}})
    try:
        sink.client.plan([{"match": {"profile": "generic"}, "behave": "reset-counted", "times": 1}])
        ground.apply(
            contract("d", generic_url(sink.url), dedupe="rejected", rules={"answer": {"duplicate": ["409"]}})
        )
        ground.take(conversion("e"))
        gun.fire_until_final()
    finally:
        sink.client.settings({"generic": {"duplicates": "counted"}})
    assert [row.verdict for row in ground.attempts("e")] == ["unknown", "duplicate"]
    assert ground.postback("e").state == "delivered"
    assert len(sink.client.credits("generic")) == 1


@pytest.mark.parametrize(("behaviour", "asked_s"), [("too-many:3", 3), ("unavailable:2", 2)])
def test_retry_after_in_seconds_is_never_undercut(
    behaviour: str, asked_s: int, ground: Ground, gun: Gun, sink: SinkThread
) -> None:
    """The next attempt is not due before so many seconds have passed since the answer, by the database's clock."""
    postback = shoot(ground, gun, generic_url(sink.url, behaviour))
    waited_s = (postback.due_at - _answered_at(ground)).total_seconds()
    assert asked_s <= waited_s < 2 * asked_s


def _answered_at(ground: Ground) -> datetime:
    """When the answer's last byte came: the hop's start and its duration."""
    (hop,) = ground.hops("e")
    answered: datetime = hop.started_at + timedelta(milliseconds=hop.total_ms)
    return answered


def test_retry_after_as_an_http_date_is_never_undercut(ground: Ground, gun: Gun, sink: SinkThread) -> None:
    """The next attempt is not due before the instant that the network named."""
    postback = shoot(ground, gun, generic_url(sink.url, "unavailable-date:3"))
    (hop,) = ground.hops("e")
    head = bytes(hop.response_head).decode("latin-1")
    named = next(line for line in head.split("\r\n") if line.startswith("Retry-After: "))
    assert postback.due_at >= parsedate_to_datetime(named.partition(": ")[2])
    assert postback.due_at < datetime.now(UTC) + timedelta(seconds=10)


# Ends ----------------------------------------------------------------------------------------------


def test_attempts_that_are_used_up_leave_it_dead(ground: Ground, gun: Gun, sink: SinkThread) -> None:
    """Three 500s of three: dead, with every attempt on record and its delay between them."""
    ground.apply(contract("d", generic_url(sink.url, "status:500")))
    ground.take(conversion("e"))
    gun.fire_until_final()
    postback, attempts = ground.postback("e"), ground.attempts("e")
    assert (postback.state, postback.attempts) == ("dead", 3)
    assert "attempt 3 of 3 was the last" in postback.reason
    assert [(row.number, row.trigger) for row in attempts] == [(1, "release"), (2, "retry"), (3, "retry")]
    for earlier, later in pairwise(attempts):
        assert later.intent_at >= earlier.next_attempt_at


def test_a_retry_horizon_that_is_too_near_leaves_it_dead(ground: Ground, gun: Gun, sink: SinkThread) -> None:
    """A wait that would end after the horizon is not waited."""
    retry = {"attempts": 5, "base": "10s", "horizon": "1s"}
    postback = shoot(ground, gun, generic_url(sink.url, "status:500"), retry=retry)
    assert postback.state == "dead"
    assert "horizon" in postback.reason


def test_a_postback_past_the_networks_age_limit_expires_at_the_gate(
    ground: Ground, gun: Gun, sink: SinkThread
) -> None:
    """Too old for the network: nothing is sent, no attempt is spent, and the reason names the limit."""
    rules = {"age_limit": {"wait": "30s", "measured_from": "event"}}
    postback = shoot(ground, gun, generic_url(sink.url), rules=rules)
    assert (postback.state, postback.attempts) == ("expired", 0)
    assert "age limit" in postback.reason
    assert sink.client.counts()["requests"] == 0


def test_a_duplicate_takes_the_place_of_a_first_one_that_expired(
    ground: Ground, gun: Gun, sink: SinkThread
) -> None:
    """The later event of the same click is still young enough, so the conversion is reported by it."""
    rules = {"age_limit": {"wait": "30s", "measured_from": "event"}}
    ground.apply(contract("d", generic_url(sink.url), rules=rules))
    same: dict[str, Any] = {"order_id": "o", "click_ids": {"generic": "token-1"}}
    ground.take(conversion("old", **same))
    ground.take(conversion("young", **same, occurred_at=datetime.now(UTC).isoformat()))
    assert ground.postback("young").state == "duplicate"
    gun.fire_until_final()
    assert (ground.postback("old").state, ground.postback("young").state) == ("expired", "delivered")


def test_a_missing_secret_spends_no_attempt_and_is_findable(
    ground: Ground, gun: Gun, sink: SinkThread, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The postback waits, says which variable is missing, and is delivered once it is set."""
    monkeypatch.delenv("HF_TEST_KEY", raising=False)
    auth = {"kind": "header", "name": "X-API-Key", "value": {"env": "HF_TEST_KEY"}}
    postback = shoot(ground, gun, generic_url(sink.url), auth=auth)
    assert (postback.state, postback.attempts) == ("held", 0)
    assert "HF_TEST_KEY" in postback.reason
    assert postback.due_at > postback.now
    monkeypatch.setenv("HF_TEST_KEY", SECRET)
    ground.run("UPDATE postbacks SET due_at = now()")
    gun.fire()
    assert ground.postback("e").state == "delivered"
    assert "HF_TEST_KEY" not in ground.postback("e").reason


def test_a_secret_that_vanishes_between_attempts_keeps_the_postback_retrying(
    ground: Ground, sink: SinkThread, tmp_path: Path
) -> None:
    """An attempted postback goes back to retrying, not to held."""
    key = tmp_path / "key"
    key.write_text(SECRET)
    auth = {"kind": "bearer", "token": {"file": str(key)}}
    ground.apply(contract("d", generic_url(sink.url, "status:500"), auth=auth))
    ground.take(conversion("e"))
    with ground.firing() as first:
        first.fire()
    key.unlink()
    ground.run("UPDATE postbacks SET due_at = now()")
    with ground.firing() as second:
        second.fire()
    postback = ground.postback("e")
    assert (postback.state, postback.attempts) == ("retrying", 1)
    assert str(key) in postback.reason


# Secrets -------------------------------------------------------------------------------------------


def test_secrets_are_masked_in_every_row_and_the_click_id_is_untouched(
    ground: Ground, gun: Gun, sink: SinkThread, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A network that echoes URL, headers and body back does not bring a secret into the store."""
    monkeypatch.setenv("HF_TEST_KEY", SECRET)
    monkeypatch.setenv("HF_TEST_TOKEN", "bearer-" + SECRET)
    url = f"{sink.url}/bad/echo/generic/{{settings.key}}/p?click_id={{click_id}}&key={{settings.key}}"
    postback = shoot(
        ground,
        gun,
        url,
        settings={"key": {"env": "HF_TEST_KEY"}, "method": "POST", "body": '{"k": "{settings.key}"}'},
        headers={"Content-Type": "application/json"},
        auth={"kind": "bearer", "token": {"env": "HF_TEST_TOKEN"}},
    )
    assert postback.state == "delivered"
    assert "k3y-Long" in sink.client.requests()[0]["raw"]
    assert "k3y-Long" not in dump(ground)
    (hop,) = ground.hops("e")
    token = conversion("e")["click_ids"]["generic"]
    assert token.encode() in bytes(hop.request_head)
    assert token.encode() in bytes(hop.body)
    assert b"[secret:" in bytes(hop.body)
    assert ground.attempts("e")[0].click_id == token


def test_a_reason_that_quotes_a_secret_is_masked(
    ground: Ground, gun: Gun, sink: SinkThread, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A parameter that refuses the secret's form says so without the secret."""
    monkeypatch.setenv("HF_TEST_KEY", SECRET)
    parameter = {"name": "k", "value": "{settings.key}", "pattern": "[a-z]+"}
    ground.apply(
        contract(
            "d",
            generic_url(sink.url) + "&x={settings.key}",
            settings={"key": {"env": "HF_TEST_KEY"}},
            parameters=[parameter],
        )
    )
    ground.take(conversion("e"))
    ground.run(
        "UPDATE postbacks SET state = 'held', due_at = now(), settled_at = NULL, reason = NULL"
    )  # as if the secret had only now become one that the parameter refuses
    gun.fire()
    assert ground.postback("e").state == "rejected"
    assert "k3y-Long" not in dump(ground)


def dump(ground: Ground) -> str:
    """Every row of the evidence and of the postbacks, bytes as text."""
    found = []
    for table in ("intents", "attempts", "hops", "postbacks", "conversions", "destination_versions", "audit"):
        for row in ground.rows(f"SELECT * FROM {table}"):
            found += [
                bytes(value).decode("latin-1") if isinstance(value, memoryview) else str(value)
                for value in row
            ]
    return "\n".join(found)


# Side by side --------------------------------------------------------------------------------------


def test_an_attempt_that_outlasts_its_lease_is_not_rescued_while_its_worker_lives(
    ground: Ground, sink: SinkThread
) -> None:
    """With a lease of 1 s and an answer after 2.5 s, renewal keeps rescue away and one attempt settles it."""
    ground.apply(contract("d", generic_url(sink.url, "late:2.5")))
    ground.take(conversion("e"))
    with ground.firing(lease_s=1.0) as gun:
        gun.fire_until_final()
    assert [row.verdict for row in ground.attempts("e")] == ["delivered"]
    assert sink.client.counts()["requests"] == 1


def test_a_slow_destination_does_not_hold_up_another(ground: Ground, sink: SinkThread) -> None:
    """With 300 postbacks due at a destination that answers after a second, one at another goes out in between."""
    slow = contract("slow", generic_url(sink.url, "late:1"), events=["slow"], limits={"concurrency": 5})
    ground.apply(slow, contract("quick", generic_url(sink.url)))
    ground.take(*(conversion(f"s{number}", name="slow") for number in range(300)))
    with ground.firing() as gun:
        gun.fire_due()
        ground.take(conversion("q"))
        began = time.monotonic()
        while ground.postback("q").state != "delivered":
            gun.fire_due()
            assert time.monotonic() - began < 5
        on_the_wire = gun.firing.in_flight
        assert ground.states().get("held", 0) > 250  # deferred, no attempt spent
        assert 0 < on_the_wire <= 15
        ground.run("UPDATE postbacks SET due_at = due_at + interval '1 h' WHERE state = 'held'")
        gun.settle()
    assert ground.one("SELECT max(attempts) FROM postbacks WHERE state = 'held'") == 0


def test_a_hint_for_a_slow_lane_gives_its_thread_back_and_its_postbacks_in_order(
    ground: Ground, sink: SinkThread
) -> None:
    """One place and a second an answer: of fifty a few go out, and the rest come back spread over its pace."""
    ground.apply(contract("d", generic_url(sink.url, "late:1"), limits={"concurrency": 1}))
    ground.take(*(conversion(f"e{number}") for number in range(50)))
    with ground.firing() as gun:
        began = time.monotonic()
        gun.fire_due()
        assert time.monotonic() - began < 5
        deferred = ground.rows("SELECT due_at FROM postbacks WHERE state = 'held' ORDER BY id")
        ground.run("UPDATE postbacks SET due_at = due_at + interval '1 h' WHERE state = 'held'")
        gun.settle()
    assert len(deferred) > 40
    waits = [(later.due_at - earlier.due_at).total_seconds() for earlier, later in pairwise(deferred)]
    assert min(waits) > 0.1
    assert sum(waits) <= LONGEST_DEFER_S


def test_answers_with_large_bodies_are_settled_in_small_batches(
    ground: Ground, sink: SinkThread, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is written down at a time is bounded in bytes, or fifty bodies of a megabyte would be in memory often."""
    sizes: list[int] = []
    settle = store.settle

    def measure(engine: Engine, attempts: Any) -> Any:
        sizes.append(sum(len(hop.body) for attempt in attempts for hop in attempt.hops))
        return settle(engine, attempts)

    monkeypatch.setattr(store, "settle", measure)
    monkeypatch.setattr("workers.firing.SETTLE_BATCH_BYTES", 30_000)
    ground.apply(contract("d", generic_url(sink.url, "huge:1"), limits={"body_cap": 20_000}))
    ground.take(*(conversion(f"e{number}") for number in range(10)))
    with ground.firing() as gun:
        gun.fire()
    assert sum(sizes) == 200_000
    assert max(sizes) <= 40_000
