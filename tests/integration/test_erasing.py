"""A person asks to be forgotten: afterwards no byte of them is readable anywhere, and nothing brings them back."""

from __future__ import annotations

import base64
import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from sqlalchemy import Engine, text

from infra.archives.reading import ArchiveReader
from infra.store import deliveries, inbox, intake, outbox
from infra.store.destinations import Destinations
from infra.store.evidence import read_life
from infra.store.keeping import legal_holds, tombstones
from infra.store.keeping.erasing import NotErasableError, Order
from infra.store.ledger import read_ledger
from infra.store.reports.report_writing import write_rows
from infra.store.searching.search import Criteria
from investigations.next_step import next_step
from schemas.arrival import Arrival, Candidate, Refused
from schemas.click import Click
from schemas.erasing import Kind
from schemas.event import read_event
from schemas.keeping import Keeping, Policy
from schemas.lifecycle import State
from schemas.problem import Problem
from schemas.reconciling.rows import ReadRow
from schemas.verdict import VerdictKind
from tests.integration.aged import age
from tests.integration.scenes import Scene, contract, conversion, hop, refund
from tests.integration.test_retention import emptied
from workers import erasing
from workers.retaining import retain

ORDER = "Ö-1234/77 x"
CLICK = "nym1CJjYiJ3oq6LkMxACGIHey7vM0vGDRyIJMTAuMS4xMi42KAE.person"
EVENT = "shop:order:Ö-1234/77 x"
LEAD, CUSTOMER = "lead-998877", "customer-445566"
SECRETS = (ORDER, CLICK, EVENT, LEAD, CUSTOMER, "alice@example.com", "stripe:evt_r1")
PERSON: dict[str, Any] = {
    "order_id": ORDER, "lead_id": LEAD, "customer_id": CUSTOMER, "params": {"mail": "alice@example.com"},
    "click_ids": {"push": CLICK, "xandr": CLICK + "2"},
}  # fmt: skip


@pytest.fixture
def scene(engine: Engine) -> Scene:
    """The person's order, delivered to one destination and held for another, with a refund; and somebody else's."""
    emptied(engine)
    scene = Scene(engine)
    scene.apply(contract("push-eu"), contract("xandr-main", wait="14d"))
    scene.take(conversion("first", "push"))
    scene.settle(scene.fire_one("first"))
    scene.take(conversion(EVENT, "push", **PERSON))
    prepared = scene.fire_one(EVENT)
    scene.settle(
        prepared, hops=[told_hop()], notes=(f"it said {CLICK}",), rule=f"the body has {CLICK}",
        error_message=f"about {ORDER}", error_class="Odd",
    )  # fmt: skip
    scene.take(
        refund("stripe:evt_r1", ORDER, amount="5.00", currency="EUR", reason=f"{CUSTOMER} was unhappy")
    )
    scene.take(conversion(EVENT, "push", **PERSON))
    return scene


def told_hop() -> Any:
    """A hop that repeats the person in every place and writing."""
    body = f"<p>{CLICK}</p>{base64.b64encode(ORDER.encode()).decode()}".encode()
    return hop(
        url=f"https://push-eu.example.com/p?c={quote(CLICK)}&o={quote(ORDER)}",
        request_head=f"GET /p?c={quote(CLICK)}&o={quote(ORDER).lower()} HTTP/1.1\r\nHost: a\r\n".encode(),
        response_head=f"HTTP/1.1 200 OK\r\nLocation: /{quote(ORDER)}\r\n".encode(),
        request_body=json.dumps({"order": ORDER}).encode(), body=body, body_length=len(body), body_error=f"x {CLICK}",
    )  # fmt: skip


def arrival(*events: dict[str, Any], body: bytes | None = None, **more: Any) -> Arrival:
    """A request to the door with these events, all of them good."""
    now = datetime.now(UTC)
    candidates = []
    for index, raw in enumerate(events):
        event = read_event(raw, now)
        candidates.append(
            Candidate(
                index, (event.source, event.event_id), event.model_dump_json(exclude_none=True).encode()
            )
        )
    values: dict[str, Any] = {
        "kind": "events", "source": "shop", "method": "POST", "target": "/v1/events",
        "headers": [("content-type", "application/json")], "peer": "10.0.0.9:1", "candidates": candidates,
        "body": json.dumps(list(events)).encode() if body is None else body,
    }  # fmt: skip
    return Arrival(**values | more)


def dump(engine: Engine) -> list[tuple[str, str]]:
    """Every value of every column of every table, as text."""
    found = []
    with engine.connect() as connection:
        columns = connection.execute(
            text("""
            SELECT c.relname AS of_table, a.attname AS name, format_type(a.atttypid, NULL) AS type FROM pg_class c
                JOIN pg_attribute a ON a.attrelid = c.oid
            WHERE c.relnamespace = current_schema()::regnamespace AND c.relkind IN ('r', 'p', 'v', 'm') AND a.attnum > 0
                AND NOT a.attisdropped""")
        ).all()
        for column in columns:
            shown = f"encode({column.name}, 'escape')" if column.type == "bytea" else f"{column.name}::text"
            rows = connection.execute(
                text(f"SELECT {shown} FROM {column.of_table} WHERE {column.name} IS NOT NULL")
            )
            found += [(f"{column.of_table}.{column.name}", value) for value in rows.scalars()]
    return found


def escaped(data: bytes) -> str:
    return "".join("\\\\" if b == 0x5C else chr(b) if 0 < b < 0x80 else f"\\{b:03o}" for b in data)


def writings(word: str) -> set[str]:
    """The writings of a word, none of which may be found: made in another way than the code makes them."""
    forms = {word, quote(word), quote(word, safe=""), quote(quote(word, safe=""), safe=""), json.dumps(word)[1:-1],
             json.dumps(json.dumps(word))[3:-3], word.replace(" ", "+"), quote(word, safe="").replace("%20", "+")}  # fmt: skip
    for lead in range(3):
        encoded = base64.b64encode(b"x" * lead + word.encode()).decode().rstrip("=")
        forms.add(encoded[4:-2] if lead else encoded[:-2])
    forms |= {escaped(form.encode()) for form in forms}
    return {form.lower() for form in forms if len(form) > 3}


def readable(engine: Engine, folder: Path | None = None, words: tuple[str, ...] = SECRETS) -> list[str]:
    """Where any of the person's words can still be read, in tables and archives."""
    values = dump(engine)
    for path in [] if folder is None else folder.iterdir():
        with ArchiveReader(path) as reader:
            for block in reader.directory.blocks:
                for table, rows in reader.rows(block).items():
                    values += [
                        (
                            f"{path.name}:{table}.{name}",
                            escaped(value) if isinstance(value, bytes) else str(value),
                        )
                        for row in rows
                        for name, value in row.items()
                    ]
    forms = {form for word in words for form in writings(word)}
    return sorted({f"{place}: {form}" for place, value in values for form in forms if form in value.lower()})


def forget(scene: Scene, kind: Kind = "order", value: str = ORDER, **more: Any) -> erasing.Erased:
    return erasing.erase(scene.engine, Order(kind, value, "dpo", "a request", **more))


def take(scene: Scene, raw: dict[str, Any]) -> intake.IntakeResult:
    """As a worker takes a message of one event."""
    taken = [intake.Taken(read_event(raw, datetime.now(UTC)), raw)]
    return intake.commit_message(scene.engine, "m", taken, [], Destinations(scene.engine))


def one(scene: Scene, query: str, **values: Any) -> Any:
    with scene.engine.connect() as connection:
        return connection.execute(text(query), values).scalar_one()


def test_the_person_can_be_read_before(scene: Scene) -> None:
    """Else the other tests would prove nothing: in many places, and every word of them."""
    found = readable(scene.engine)
    assert len({place.partition(":")[0] for place in found}) > 15
    for word in SECRETS:
        assert any(word.lower() in each for each in found)


def test_no_byte_of_the_person_is_left_anywhere(scene: Scene, tmp_path: Path) -> None:
    """In no table's column and no archive, in no writing; the other order is untouched, and the ledger balances."""
    age(scene.engine)
    scene.take(conversion("later", "push"))
    scene.settle(scene.fire_one("later"))
    others = [read_life(scene.engine, number) for number in (1,)]
    retain(scene.engine, Policy(Keeping(evidence=timedelta(days=365)), {}), tmp_path)
    inbox.commit(
        scene.engine,
        [
            arrival(conversion("a", "push"), conversion(EVENT, "push", **PERSON), conversion("b", "push"),
                    idempotency_key=ORDER, dedupe_id=ORDER),
            arrival(kind="hook", target=f"/hooks/shop?o={quote(ORDER)}", body=json.dumps({"deep": [{"o": ORDER}]}).encode(),
                    headers=[("referer", f"https://x/{quote(ORDER)}")]),
            arrival(kind="click", click=Click({"push": CLICK}, datetime.now(UTC), {"customer_id": CUSTOMER})),
        ],
    )  # fmt: skip
    scene.run(
        "INSERT INTO audit (who, action, detail) VALUES ('x', 'y', CAST(:d AS jsonb))",
        d=json.dumps({"reason": f"for {ORDER}"}),
    )
    done = forget(scene)
    assert readable(scene.engine, tmp_path) == []
    assert done.archives
    assert [path.name for path in tmp_path.iterdir() if ".e1." in path.name] == [
        path.name for path in tmp_path.iterdir() if "push-eu" in path.name
    ]
    life = read_life(scene.engine, 1)
    assert life is not None
    assert others[0] is not None
    assert [a.hops for a in life.postbacks[0].attempts] == [a.hops for a in others[0].postbacks[0].attempts]
    assert read_ledger(scene.engine).balances


def test_what_is_left_says_when_what_and_how_much(scene: Scene) -> None:
    """States, times, sums and the number of attempts; and that it was erased, by whom."""
    before = read_life(scene.engine, 2)
    forget(scene)
    life = read_life(scene.engine, 2)
    assert life is not None
    assert before is not None
    assert life.conversion.erased_by == "dpo"
    assert life.conversion.event.value == before.conversion.event.value
    assert life.conversion.net_value == before.conversion.net_value
    assert [p.state for p in life.postbacks] == [State.DELIVERED, State.VOIDED]
    assert [len(p.attempts) for p in life.postbacks] == [1, 0]
    assert len(life.signals) == 1
    assert life.postbacks[0].attempts[0].hops[0].status_code == 200
    assert life.postbacks[0].attempts[0].outcome is not None
    assert life.postbacks[0].attempts[0].outcome.verdict is VerdictKind.DELIVERED
    assert read_ledger(scene.engine).balances


def test_what_is_held_never_fires(scene: Scene) -> None:
    """It is voided as erased, and no signal reinstates it."""
    forget(scene)
    assert one(scene, "SELECT void_reason FROM postbacks WHERE state = 'voided'") == "erased"


COMES_BACK = {
    "the same event": conversion(EVENT, "push", **PERSON),
    "another event of the order": conversion("other-id", "push", order_id=ORDER),
    "another event of the click": conversion("click-id", "push", click_ids={"push": CLICK}),
    "a late refund": refund("late", ORDER),
    "a refund by the event's id": refund("late2", "", conversion_event_id=EVENT),
}


@pytest.mark.parametrize("raw", COMES_BACK.values(), ids=COMES_BACK)
def test_nothing_brings_it_back(scene: Scene, raw: dict[str, Any]) -> None:
    """It is counted as received and refused, and nothing of it is kept, whoever sends it."""
    raw = {key: value for key, value in raw.items() if value != ""}
    forget(scene)
    result = take(scene, raw)
    assert (result.conversions, result.signals, result.rejected) == (0, 0, 1)
    assert one(scene, "SELECT count(*) FROM rejects WHERE code = 'erased'") == 1
    assert readable(scene.engine) == []
    assert read_ledger(scene.engine).balances


def test_who_asks_whether_it_was_committed_is_told_that_it_was(scene: Scene) -> None:
    """So that `holdfire enqueue` does not send it for ever."""
    forget(scene)
    take(scene, conversion(EVENT, "push", **PERSON))
    take(scene, conversion("other-id", "push", order_id=ORDER))
    keys = {("shop", EVENT), ("shop", "other-id"), ("shop", "unknown")}
    assert intake.committed(scene.engine, keys) == {("shop", EVENT), ("shop", "other-id")}


def test_an_invalid_event_about_it_is_not_kept_either(scene: Scene) -> None:
    """What is refused for another reason is kept verbatim otherwise."""
    forget(scene)
    raw = {"order_id": ORDER, "version": 1, "value": 1.5}
    refused = [intake.Refused(raw, [Problem("missing", "event_id", "is missing", "Add it")])]
    intake.commit_message(scene.engine, "m", [], refused, Destinations(scene.engine))
    assert readable(scene.engine) == []


def test_the_door_takes_the_others_and_refuses_it(scene: Scene) -> None:
    """Of a request with several events, each other one stays to the byte."""
    forget(scene)
    good = conversion("good", "push")
    body = (
        b"[ "
        + json.dumps(conversion(EVENT, "push", **PERSON)).encode()
        + b" ,\n "
        + json.dumps(good, indent=1).encode()
        + b"]"
    )
    (receipt,) = inbox.commit(
        scene.engine, [arrival(conversion(EVENT, "push", **PERSON), good, body=body)]
    ).receipts
    assert receipt.status_code == 202
    assert receipt.answer["accepted"] == 1
    assert [each["problems"][0]["code"] for each in receipt.answer["rejected"]] == ["erased"]
    kept = bytes(one(scene, "SELECT body FROM inbox"))
    assert kept == b'[ {"erased": true} ,\n ' + json.dumps(good, indent=1).encode() + b"]"
    assert readable(scene.engine) == []


def test_the_door_answers_so_that_nobody_sends_it_again(scene: Scene) -> None:
    """202 with the reason, also where nothing else was in the request; a hook's sender gets what it likes."""
    forget(scene)
    alone = arrival(conversion(EVENT, "push", **PERSON), idempotency_key="key")
    hook = arrival(
        conversion(EVENT, "push", **PERSON), kind="hook", status_code=200, dedupe_id="d", body=b'{"id": "x"}',
        target=f"/hooks/shop?o={quote(ORDER)}",
    )  # fmt: skip
    click = arrival(
        kind="click", click=Click({"push": CLICK}, datetime.now(UTC), {"lead_id": "l"}), body=b"{}"
    )
    bad = arrival(
        body=json.dumps([{"order_id": ORDER}]).encode(),
        refused=[Refused(0, [Problem("missing", "event_id", "is missing", "Add it")])],
    )
    receipts = inbox.commit(scene.engine, [alone, alone, hook, click, bad]).receipts
    assert [receipt.status_code for receipt in receipts] == [202, 202, 200, 202, 422]
    assert one(scene, "SELECT count(*) FROM clicks") == 0
    assert one(scene, "SELECT count(*) FROM outbox") == 0
    assert readable(scene.engine) == []


def test_a_message_on_its_way_is_cleared_and_refused(scene: Scene) -> None:
    """The door had taken it before the erasure, and intake had not."""
    again = conversion("again", "push", order_id=ORDER)
    inbox.commit(scene.engine, [arrival(again, conversion("good", "push"))])
    original = json.loads(one(scene, "SELECT events FROM outbox"))
    forget(scene)
    assert readable(scene.engine) == []
    (message,) = outbox.overdue(scene.engine, grace_s=0)
    for events in (json.loads(message.json), original):
        taken, refused = [], []
        for raw in events:
            try:
                taken.append(intake.Taken(read_event(raw, datetime.now(UTC)), raw))
            except ValueError:
                refused.append(intake.Refused(raw, [Problem("unknown_version", "version", "is None", "")]))
        intake.commit_message(scene.engine, message.message_id, taken, refused, Destinations(scene.engine))
    assert one(scene, "SELECT count(*) FROM rejects WHERE code = 'erased'") == 2
    assert one(scene, "SELECT count(*) FROM conversions WHERE event_id = 'good'") == 1
    assert readable(scene.engine) == []
    assert read_ledger(scene.engine).balances


def test_a_delivery_that_is_mapped_again_is_refused(scene: Scene) -> None:
    """As `holdfire inbox rerun` maps it."""
    (receipt,) = inbox.commit(scene.engine, [arrival(kind="hook", body=b"{}")]).receipts
    forget(scene)
    candidate = arrival(conversion(EVENT, "push", **PERSON)).candidates[0]
    again = deliveries.enqueue_again(scene.engine, receipt.request_id, [candidate], [], None, who="x")
    assert again.enqueued == []
    assert [each.problems[0].code for each in again.refused] == ["erased"]
    assert readable(scene.engine) == []


def test_a_network_that_reports_it_does_not_bring_it_back_either(scene: Scene) -> None:
    """Its row finds ours by the order's new name, and nothing else of it is kept; what was read before is cleared."""
    rows = [
        ReadRow(1, click_id=CLICK, order_id=ORDER, value="49.90", raw=f"{CLICK};{ORDER};49.90"),
        ReadRow(2, order_id="order-first", raw="order-first;49.90"),
    ]
    with scene.engine.connect() as connection:
        write_rows(connection, 1, rows)
    forget(scene)
    assert readable(scene.engine) == []
    with scene.engine.connect() as connection:
        write_rows(connection, 2, rows)
    assert readable(scene.engine) == []
    assert one(scene, "SELECT order_id FROM report_rows WHERE report_id = 2 AND line = 2") == "order-first"
    query = "SELECT count(*) FROM report_rows r JOIN conversions c USING (order_id) WHERE report_id = 2 AND line = 1"
    assert one(scene, query) == 1
    scene.run("TRUNCATE report_rows")


def test_a_new_order_of_the_same_customer_is_taken(scene: Scene) -> None:
    """Unless they asked never to be taken in again."""
    forget(scene)
    new = conversion("new", "push", customer_id=CUSTOMER, lead_id=LEAD)
    assert take(scene, new).conversions == 1
    forget(scene, "customer", CUSTOMER, never_again=True)
    assert take(scene, conversion("newer", "push", customer_id=CUSTOMER)).conversions == 0
    assert readable(scene.engine) == []


def test_by_customer_all_their_orders_are_erased(scene: Scene) -> None:
    """And an identifier that somebody else has too stays where it is theirs."""
    scene.take(conversion("second", "push", customer_id=CUSTOMER, order_id="order-second-9"))
    scene.take(conversion("sharing", "push", order_id="order-third-9", click_ids={"push": CLICK}))
    done = forget(scene, "customer", CUSTOMER)
    assert len(done.reach.conversions) == 2
    assert done.reach.shared["click"] == {CLICK}
    assert (
        one(scene, "SELECT count(*) FROM conversions WHERE order_id = 'order-third-9' AND erasure_id IS NULL")
        == 1
    )
    assert take(scene, conversion("more", "push", click_ids={"push": CLICK})).conversions == 1
    assert not [each for each in dump(scene.engine) if CUSTOMER in each[1] or ORDER in each[1]]


def test_a_legal_hold_stands_against_it(scene: Scene) -> None:
    """By name, with nothing changed."""
    hold = legal_holds.place(scene.engine, Criteria(order_id=ORDER), None, who="c", reason="case", until=None)
    before = dump(scene.engine)
    with pytest.raises(NotErasableError, match=f"legal hold {hold.id}"):
        forget(scene)
    assert dump(scene.engine) == before


def test_what_is_on_the_wire_is_waited_for(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    """And if that takes too long nothing is done, and it says so."""
    monkeypatch.setattr(erasing, "WIRE_PATIENCE_S", 0.1)
    scene.take(conversion("more", "push", order_id=ORDER))
    prepared = scene.fire_one("more")
    with pytest.raises(NotErasableError, match="on the wire"):
        forget(scene)
    assert one(scene, "SELECT count(*) FROM tombstones") == 0
    scene.settle(prepared)
    forget(scene)
    assert readable(scene.engine) == []


def test_an_archive_that_cannot_be_read_stands_against_it(scene: Scene, tmp_path: Path) -> None:
    """What cannot be read cannot be erased: it says so before anything is changed."""
    age(scene.engine)
    retain(scene.engine, Policy(Keeping(evidence=timedelta(days=365)), {}), tmp_path)
    path = next(tmp_path.glob("*push-eu*"))
    path.rename(tmp_path / "away")
    with pytest.raises(NotErasableError, match="cannot be read"):
        forget(scene)
    assert one(scene, "SELECT count(*) FROM tombstones") == 0
    (tmp_path / "away").rename(path)
    forget(scene)
    assert readable(scene.engine, tmp_path) == []


def test_a_dry_run_changes_nothing_and_counts_the_same(scene: Scene) -> None:
    """Rows by table, and what it reaches."""
    inbox.commit(scene.engine, [arrival(conversion(EVENT, "push", **PERSON))])
    before = dump(scene.engine)
    foreseen = erasing.foresee(scene.engine, Order("order", ORDER, "dpo", ""))
    assert dump(scene.engine) == before
    done = forget(scene)
    assert {table: done.counts[table] for table in foreseen.counts} == foreseen.counts
    assert foreseen.counts["inbox"] == 1


def test_an_interrupted_erasure_goes_on(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    """Sealed is sealed: nothing comes back in between, and the same order finds the rest and ends it."""

    def fail(*_: Any, **__: Any) -> Any:
        raise KeyboardInterrupt

    monkeypatch.setattr(erasing, "scrub", fail)
    with pytest.raises(KeyboardInterrupt):
        forget(scene)
    monkeypatch.undo()
    assert take(scene, conversion("more", "push", order_id=ORDER)).conversions == 0
    done = forget(scene)
    assert done.number == 1
    assert one(scene, "SELECT count(*) FROM erasures WHERE ended_at IS NULL") == 0
    assert readable(scene.engine) == []
    assert read_ledger(scene.engine).balances


def test_tombstones_tell_nothing_without_their_key(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    """Given by the environment, it is not in the database; and without it nothing is let in."""
    monkeypatch.setenv("HOLDFIRE_ERASURE_KEY", "a long enough key for tests")
    forget(scene)
    assert one(scene, "SELECT key FROM erasure_keys") is None
    assert tombstones.told(scene.engine, "order", ORDER) is not None
    assert take(scene, conversion("x", "push", order_id=ORDER)).rejected == 1
    monkeypatch.setenv("HOLDFIRE_ERASURE_KEY", "another key that is as long")
    with pytest.raises(ValueError, match="not the key"):
        take(scene, conversion("y", "push", order_id=ORDER))
    monkeypatch.delenv("HOLDFIRE_ERASURE_KEY")
    with pytest.raises(ValueError, match="is not set"):
        take(scene, conversion("y", "push", order_id=ORDER))


def test_what_nobody_knows_is_said_to_be_unknown(scene: Scene) -> None:
    """A mistyped id is sealed as well: whoever typed it should see that nothing was behind it."""
    assert not forget(scene, value="no such order").found
    assert forget(scene).found


def test_what_was_erased_is_not_offered_for_firing_again(scene: Scene) -> None:
    scene.run("UPDATE postbacks SET state = 'dead' WHERE state = 'delivered'")
    (number,) = forget(scene).reach.conversions
    life = read_life(scene.engine, number)
    assert life is not None
    assert {next_step(life, each) for each in life.postbacks} == {
        "nothing: it was erased at a person's request, and never fires again"
    }
