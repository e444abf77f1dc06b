"""The click register: conversions that come without a click id get the one that a click left, before or after them."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from sqlalchemy import Engine, event, text

from infra.sink import SinkThread
from infra.store import inbox, matching, rerouting
from infra.store.destinations import Destinations
from infra.store.evidence import read_life
from infra.store.ledger import read_ledger
from infra.store.searching.search import Criteria, find_postbacks
from investigations.jsonable import life_json
from investigations.trail_page import life_page
from schemas.arrival import Arrival
from schemas.click import KEYS, Click
from tests.integration.ground import Ground, cleared, contract, conversion, generic_url, signal, until

NOWHERE = generic_url("http://127.0.0.1:9")
HOLD = {"kind": "refund", "wait": "14d"}


@pytest.fixture
def ground(engine: Engine) -> Iterator[Ground]:
    """An empty database; whatever a test did, the books balance at its end."""
    ground = cleared(engine)
    yield ground
    unbalanced = [entry for entry in read_ledger(engine).entries if not entry.balances]
    assert unbalanced == []


def ago(**wait: float) -> datetime:
    return datetime.now(UTC) - timedelta(**wait)


def click(
    ground: Ground, token: str, clicked_at: datetime | None = None, network: str = "generic", **keys: str
) -> int:
    """A click as the door commits it, an hour ago unless it says otherwise. Returns its number in the register."""
    registered = Click({network: token}, clicked_at or ago(hours=1), keys)  # type: ignore[arg-type] # names of keys
    arrival = Arrival("click", None, "POST", "/v1/clicks", [], b"{}", None, [], click=registered)
    inbox.commit(ground.engine, [arrival])
    number: int = ground.one("SELECT max(id) FROM clicks")
    return number


def bare(event_id: str, **fields: Any) -> dict[str, Any]:
    """A conversion without a click id."""
    return conversion(event_id, click_ids={}, **fields)


def told(sink: SinkThread) -> list[str]:
    """The click ids that the network was sent."""
    targets = [each["raw"].split(" ", 2)[1] for each in sink.client.requests()]
    return [parse_qs(urlsplit(target).query)["click_id"][0] for target in targets]


def look(ground: Ground) -> rerouting.Rerouted:
    return rerouting.route_again(ground.engine, Destinations(ground.engine))


def matched(ground: Ground, event_id: str) -> dict[str, tuple[str, str]]:
    """By destination: the token that was found, and by which key."""
    rows = ground.rows(
        """SELECT m.destination, m.click_id, m.key FROM matches m JOIN conversions c ON c.id = m.conversion_id
        WHERE c.event_id = :event_id""",
        event_id=event_id,
    )
    return {row.destination: (row.click_id, row.key) for row in rows}


@pytest.mark.parametrize("key", KEYS)
def test_a_conversion_finds_its_click_by_any_key(key: str, ground: Ground) -> None:
    """Each of the four keys leads to the click, and the postback is held as if the event had said it."""
    ground.apply(contract("d", NOWHERE, hold=HOLD))
    click(ground, "token.", **{key: "K"})
    ground.take(bare("c", **{"order_id": "c", key: "K"}))
    assert matched(ground, "c") == {"d": ("token.", key)}
    assert ground.postback("c").state == "held"
    assert look(ground).conversions == 0


def test_what_was_found_is_what_the_network_gets(ground: Ground) -> None:
    """The token reaches the network byte for byte, the event stays as it came, and the token can be searched for."""
    token = "a+b/c%2F=é."
    with SinkThread() as sink:
        ground.apply(contract("d", generic_url(sink.url)))
        click(ground, token, lead_id="L1")
        sent = bare("c", lead_id="L1")
        ground.take(sent)
        with ground.firing() as gun:
            gun.fire()
        assert told(sink) == [token]
    assert ground.one("SELECT event FROM conversions") == sent
    found = find_postbacks(ground.engine, Criteria(click_id=token), None).rows
    assert [each.click_ids for each in found] == [{"d": token}]


def test_the_most_telling_key_decides_and_under_it_the_last_click(ground: Ground) -> None:
    """Order before lead before customer before device; then the latest click that was not after the conversion."""
    ground.apply(contract("d", NOWHERE, hold=HOLD))
    occurred_at = ago(hours=2)
    for token, hours, keys in (
        ("device", 3, {"device_id": "D"}), ("customer", 3, {"customer_id": "C"}), ("old-lead", 5, {"lead_id": "L"}),
        ("lead", 4, {"lead_id": "L"}), ("after", 1, {"lead_id": "L"}),
    ):  # fmt: skip
        click(ground, token, ago(hours=hours), **keys)
    keys = {
        "order_id": "O",
        "lead_id": "L",
        "customer_id": "C",
        "device_id": "D",
        "occurred_at": occurred_at.isoformat(),
    }
    ground.take(bare("all", **keys), bare("no-lead", **keys | {"lead_id": "other"}))
    assert matched(ground, "all") == {"d": ("lead", "lead_id")}
    assert matched(ground, "no-lead") == {"d": ("customer", "customer_id")}


def test_a_click_at_the_same_instant_counts_and_one_after_it_never_does(ground: Ground) -> None:
    """The boundary belongs to the click, at intake and later."""
    ground.apply(contract("d", NOWHERE, hold=HOLD))
    occurred_at = ago(hours=2)
    click(ground, "same", occurred_at, lead_id="same")
    click(ground, "after", occurred_at + timedelta(microseconds=1), lead_id="after")
    for lead in ("same", "after"):
        ground.take(bare(lead, lead_id=lead, occurred_at=occurred_at.isoformat()))
    look(ground)
    click(ground, "later", occurred_at + timedelta(microseconds=1), lead_id="after")
    look(ground)
    assert matched(ground, "same") == {"d": ("same", "lead_id")}
    assert matched(ground, "after") == {}


def test_only_networks_without_a_click_id_of_their_own_are_matched(ground: Ground) -> None:
    """What the event says stands; each other network is matched by itself, from a click that has its token."""
    ground.apply(
        contract("said", NOWHERE, hold=HOLD),
        contract("found", NOWHERE, network="knorex-xpo", hold=HOLD, settings={"url": "https://x.example/p"}),
    )
    click(ground, "registered", lead_id="L")
    click(ground, "kcid", ago(hours=2), network="knorex-xpo", lead_id="L")
    ground.take(conversion("c", click_ids={"generic": "said"}, lead_id="L"))
    assert matched(ground, "c") == {"found": ("kcid", "lead_id")}
    assert len(ground.rows("SELECT FROM postbacks")) == 2


def test_a_destination_with_parameters_of_its_own_has_its_own_tokens(ground: Ground) -> None:
    """Two accounts at networks that share a parameter's name are told apart by the destination's."""
    ground.apply(
        contract("mine", NOWHERE, hold=HOLD, click_parameters=["my_cid"]),
        contract("other", NOWHERE, hold=HOLD),
    )
    click(ground, "network's", lead_id="L1")
    click(ground, "mine", network="mine", lead_id="L2")
    ground.take(bare("c1", lead_id="L1"), bare("c2", lead_id="L2"))
    assert matched(ground, "c1") == {"other": ("network's", "lead_id")}
    assert matched(ground, "c2") == {"mine": ("mine", "lead_id")}


def test_the_clicks_instant_is_where_its_window_and_age_limit_begin(ground: Ground) -> None:
    """The hold and the network's age limit are measured from the click that was found."""
    limit = {"wait": "30d", "measured_from": "click"}
    ground.apply(contract("d", NOWHERE, hold=HOLD | {"measured_from": "click"}, rules={"age_limit": limit}))
    clicked_at = ago(days=2)
    click(ground, "t", clicked_at, lead_id="L")
    ground.take(bare("c", lead_id="L"))
    row = ground.postback("c")
    assert row.release_at == clicked_at + timedelta(days=14)
    assert row.expires_at == clicked_at + timedelta(days=30)


def test_two_conversions_of_one_click_are_told_apart_as_the_network_does(ground: Ground) -> None:
    """A found click id has its place in the dedupe key: the second one is a duplicate of the first."""
    ground.apply(contract("d", NOWHERE, hold=HOLD, rules={"sub_id": False}))
    click(ground, "t", customer_id="C")
    ground.take(bare("first", customer_id="C"), bare("second", customer_id="C"))
    assert (ground.postback("first").state, ground.postback("second").state) == ("held", "duplicate")
    ground.take(signal("chargeback", "o", "first", outcome="opened"))
    assert (ground.postback("first").state, ground.postback("second").state) == ("voided", "held")
    ground.take(signal("chargeback", "w", "first", outcome="won"))
    assert (ground.postback("first").state, ground.postback("second").state) == ("duplicate", "held")


def test_a_click_that_comes_late_routes_its_conversion(ground: Ground) -> None:
    """Held from the same instants as if the click had been there, and the conversion says so no longer that it is not."""
    ground.apply(contract("d", NOWHERE, hold=HOLD))
    ground.take(bare("c", lead_id="L"), bare("other", lead_id="M"))
    assert "a click id for generic" in ground.one(
        "SELECT unrouted_reason FROM conversions WHERE event_id = 'c'"
    )
    click(ground, "t", lead_id="L")
    assert look(ground) == rerouting.Rerouted(clicks=1, conversions=1, postbacks=1, voided=0)
    row = ground.postback("c")
    occurred_at = ground.one("SELECT occurred_at FROM conversions WHERE event_id = 'c'")
    assert (row.state, row.release_at, row.due_at) == (
        "held",
        occurred_at + timedelta(days=14),
        row.release_at,
    )
    assert ground.rows("SELECT routed, unrouted_reason FROM conversions ORDER BY id") == [
        (1, None), (0, ground.one("SELECT unrouted_reason FROM conversions WHERE event_id = 'other'")),
    ]  # fmt: skip
    assert [each.event_id for each in find_postbacks(ground.engine, Criteria(click_id="t"), None).rows] == [
        "c"
    ]
    assert look(ground) == rerouting.Rerouted()


def test_a_late_click_whose_window_has_ended_is_due_at_once(ground: Ground) -> None:
    """The window is not begun anew."""
    with SinkThread() as sink:
        ground.apply(contract("d", generic_url(sink.url), hold={"kind": "refund", "wait": "1h"}))
        ground.take(bare("c", lead_id="L", occurred_at=ago(days=1).isoformat()))
        click(ground, "late", ago(days=2), lead_id="L")
        look(ground)
        with ground.firing() as gun:
            gun.fire()
        assert told(sink) == ["late"]
    assert ground.postback("c").state == "delivered"


@pytest.mark.parametrize(
    ("table", "days", "routed"),
    [
        ({}, 89, 1),
        ({}, 91, 0),
        ({"register_horizon": "10d"}, 11, 0),
        ({"rules": {"age_limit": {"wait": "30d", "measured_from": "event"}}}, 29, 1),
        ({"rules": {"age_limit": {"wait": "30d", "measured_from": "event"}}}, 31, 0),
        ({"rules": {"age_limit": {"wait": "100d", "measured_from": "click"}}}, 98, 1),
        ({"rules": {"age_limit": {"wait": "30d", "measured_from": "click"}}}, 29.5, 0),
    ],
)
def test_a_late_click_routes_only_what_may_still_be_reported(
    table: dict[str, Any], days: float, routed: int, ground: Ground
) -> None:
    """The network's age limit, from event or click; without one, the register's horizon."""
    ground.apply(contract("d", NOWHERE, **table))
    ground.take(bare("c", lead_id="L", occurred_at=ago(days=days).isoformat()))
    click(ground, "t", ago(days=days + 1), lead_id="L")
    assert look(ground).postbacks == routed
    assert ground.one("SELECT routed FROM conversions") == routed


@pytest.mark.parametrize("first", ["signal", "click"])
def test_signals_that_came_before_the_click_hold_of_what_it_routes(first: str, ground: Ground) -> None:
    """A refund voids it, a partial one leaves its net value; and what stood before is not ruled on again."""
    ground.apply(
        contract("d", NOWHERE, hold=HOLD),
        contract("k", "https://x.example/p", network="knorex-xpo", hold=HOLD),
    )
    ground.take(conversion("full", click_ids={"knorex-xpo": "k1"}, lead_id="L1"), bare("part", lead_id="L2"))
    signals = [signal("refund", "r1", "full"), signal("refund", "r2", "part", amount="10.00", currency="EUR")]
    steps = [lambda: ground.take(*signals), lambda: [click(ground, f"t{n}", lead_id=f"L{n}") for n in (1, 2)]]
    for step in steps if first == "signal" else steps[::-1]:
        step()
        look(ground)
    assert (ground.postback("full", "d").state, ground.postback("full", "d").void_reason) == (
        "voided",
        "refunded",
    )
    assert ground.postback("full", "k").state == "voided"
    assert ground.postback("part", "d").state == "held"
    assert str(ground.one("SELECT net_value FROM conversions WHERE event_id = 'part'")) == "39.90"


def test_a_late_click_leaves_postbacks_alone_that_are_there(ground: Ground) -> None:
    """An approval that ended a window before does not end it again after a person extended it."""
    policy = {"kind": "credit_check", "wait": "30d"}
    ground.apply(
        contract("d", NOWHERE, hold=policy),
        contract("k", "https://x.example/p", network="knorex-xpo", hold=policy),
    )
    ground.take(conversion("c", click_ids={"knorex-xpo": "k"}, lead_id="L"))
    ground.take(signal("credit_check", "s", "c", outcome="approved"))
    later = ago(days=-60)
    ground.run("UPDATE postbacks SET release_at = :later, due_at = :later", later=later)
    click(ground, "t", lead_id="L")
    assert look(ground).postbacks == 1
    assert ground.postback("c", "k").release_at == later
    assert ground.postback("c", "d").release_at <= datetime.now(UTC)


def test_a_conversion_is_matched_once_for_a_destination(ground: Ground) -> None:
    """A click that comes later still, and a repeated event, change nothing."""
    ground.apply(contract("d", NOWHERE, hold=HOLD))
    click(ground, "first", ago(hours=3), lead_id="L")
    sent = bare("c", lead_id="L")
    ground.take(sent)
    click(ground, "second", ago(hours=2), lead_id="L")
    look(ground)
    assert ground.take(sent).duplicates == 1
    assert matched(ground, "c") == {"d": ("first", "lead_id")}
    assert len(ground.rows("SELECT FROM postbacks")) == 1


def test_a_late_click_takes_the_place_that_a_later_conversion_did_not_get(ground: Ground) -> None:
    """Of two conversions of one click the first to be routed reports it, whichever came first."""
    ground.apply(contract("d", NOWHERE, hold=HOLD, rules={"sub_id": False}))
    ground.take(bare("early", lead_id="L"))
    ground.take(conversion("later", click_ids={"generic": "t"}))
    click(ground, "t", lead_id="L")
    look(ground)
    assert (ground.postback("later").state, ground.postback("early").state) == ("held", "duplicate")


REQUIRING = {"require": ["click_id", "lead_id"]}


def test_what_a_destination_requires_it_gets_or_does_not_take_the_event(ground: Ground) -> None:
    """A click id that was found counts; what is lacking is named, for the conversion or for the one destination."""
    ground.apply(
        contract("strict", NOWHERE, hold=HOLD, **REQUIRING),
        contract("k", "https://x.example/p", network="knorex-xpo"),
    )
    click(ground, "t", lead_id="L")
    click(ground, "t2", order_id="no-lead")
    both = {"generic": "t3", "knorex-xpo": "k"}
    ground.take(
        bare("all", lead_id="L"), bare("no-lead"), bare("no-click", lead_id="M"),
        conversion("partly", click_ids=both), conversion("said", click_ids={"generic": "t4"}, lead_id="N"),
    )  # fmt: skip
    rows = {
        row.event_id: row
        for row in ground.rows("SELECT event_id, routed, unrouted_reason, refusals FROM conversions")
    }
    assert {name: row.routed for name, row in rows.items()} == {
        "all": 1, "no-lead": 0, "no-click": 0, "partly": 1, "said": 1,
    }  # fmt: skip
    assert "strict requires click_id, lead_id" in rows["no-lead"].unrouted_reason
    assert "strict requires click_id" in rows["no-click"].unrouted_reason
    assert rows["partly"].refusals == {"strict": "requires lead_id"}
    assert rows["all"].refusals is None
    click(ground, "t5", lead_id="M")
    look(ground)
    assert ground.one("SELECT routed FROM conversions WHERE event_id = 'no-click'") == 1


def test_the_trail_says_which_click_gave_the_click_id(ground: Ground) -> None:
    """The key, the click and when it came are evidence, in words and as JSON."""
    ground.apply(contract("d", NOWHERE, hold=HOLD))
    before = click(ground, "t-before.", lead_id="L1")
    ground.take(bare("before", lead_id="L1"), bare("after", lead_id="L2"))
    after = click(ground, "t-after.", lead_id="L2")
    look(ground)
    pages = {}
    for event_id in ("before", "after"):
        life = read_life(
            ground.engine, ground.one("SELECT id FROM conversions WHERE event_id = :e", e=event_id)
        )
        assert life is not None
        pages[event_id] = "\n".join(str(line) for line in life_page(life))
        (match,) = life_json(life)["matches"]
        assert (match["key"], match["key_value"]) == ("lead_id", "L1" if event_id == "before" else "L2")
        assert life_json(life)["postbacks"][0]["click_id"] == f"t-{event_id}."
    assert f"click id of generic found by lead_id L1, from click {before}" in pages["before"]
    assert "received, routed to d" in pages["before"]
    assert f"click id of generic found by lead_id L2, from click {after}" in pages["after"]
    assert "no destination took it until its click came" in pages["after"]
    assert "routed to d by it" in pages["after"]


def test_clicks_that_wait_are_taken_in_portions(ground: Ground) -> None:
    """A pass takes as many as it may, oldest first, and the next one goes on."""
    ground.apply(contract("d", NOWHERE, hold=HOLD))
    ground.take(*(bare(f"c{n}", lead_id=f"L{n}") for n in range(5)))
    for n in range(5):
        click(ground, f"t{n}", lead_id=f"L{n}")
    destinations = Destinations(ground.engine)
    passes = [rerouting.route_again(ground.engine, destinations, limit=2).postbacks for _ in range(4)]
    assert passes == [2, 2, 1, 0]


def test_a_click_and_its_conversion_that_commit_at_the_same_time_find_each_other(ground: Ground) -> None:
    """The conversion has looked, the click is committed, and only then is the conversion: it is routed all the same."""
    ground.apply(contract("d", NOWHERE, hold=HOLD))
    looked, go_on = threading.Event(), threading.Event()

    def pause(_: Any, __: Any, statement: str, *___: Any) -> None:
        if statement == str(matching.FIND.text).replace(":rows", "%(rows)s"):
            looked.set()
            assert go_on.wait(10)

    event.listen(ground.engine, "after_cursor_execute", pause)
    try:
        intake = threading.Thread(target=lambda: ground.take(bare("c", lead_id="L")))
        intake.start()
        assert looked.wait(10)
        click(ground, "t", lead_id="L")
        rerouted: list[rerouting.Rerouted] = []
        looking = threading.Thread(target=lambda: rerouted.append(look(ground)))
        looking.start()
        until(lambda: ground.one("SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted"))
        go_on.set()
        for thread in (intake, looking):
            thread.join(10)
    finally:
        event.remove(ground.engine, "after_cursor_execute", pause)
        go_on.set()
    assert [each.postbacks for each in rerouted] == [1]
    assert matched(ground, "c") == {"d": ("t", "lead_id")}


def test_clicks_and_conversions_in_a_crowd_all_find_each_other(ground: Ground) -> None:
    """However the commits of clicks, conversions and looks fall, each conversion gets its own click id, once."""
    ground.apply(contract("d", NOWHERE, hold=HOLD))
    count, errors = 60, []

    def run(work: Any) -> None:
        try:
            for n in range(count):
                work(n)
        except Exception as error:
            errors.append(error)

    done = threading.Event()

    def keep_looking() -> None:
        while not done.is_set():
            look(ground)

    looking = threading.Thread(target=keep_looking)
    writers = [
        threading.Thread(target=run, args=[lambda n: click(ground, f"t{n}", lead_id=f"L{n}")]),
        threading.Thread(target=run, args=[lambda n: ground.take(bare(f"c{n}", lead_id=f"L{n}"))]),
    ]
    for thread in (looking, *writers):
        thread.start()
    for thread in writers:
        thread.join(60)
    done.set()
    looking.join(60)
    look(ground)
    assert errors == []
    found = ground.rows(
        "SELECT c.event_id, m.click_id FROM matches m JOIN conversions c ON c.id = m.conversion_id"
    )
    assert {row.event_id: row.click_id for row in found} == {f"c{n}": f"t{n}" for n in range(count)}
    assert ground.states() == {"held": count}


def test_the_register_is_append_only(ground: Ground) -> None:
    """Clicks and matches are evidence."""
    click(ground, "t", lead_id="L")
    with ground.engine.connect() as connection, pytest.raises(Exception, match="append-only"):
        connection.execute(text("UPDATE clicks SET lead_id = 'M'"))
