"""What a conversion event is made into: routing, the window, the dedupe key and the macro values."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest

from infra.catalogue import load_catalogue
from schemas.conversion import click_id_for, dedupe_key, event_values, route, takes, why_unrouted
from schemas.destination import Contract, Destination, DestinationVersion, join
from schemas.event import ConversionEvent, read_event
from schemas.lifecycle import State
from schemas.macros import render
from schemas.network import AgeLimit

NOW = datetime(2026, 11, 22, 12, tzinfo=UTC)
RECEIVED = NOW + timedelta(minutes=1)
SETTINGS: dict[str, dict[str, Any]] = {
    "xandr": {"id": "1"},
    "pushground": {"url": "https://postback.example/p"},
    "knorex-xpo": {"url": "https://postback.example/x"},
    "generic": {"url": "https://postback.example/g?c={click_id}"},
}


def _contract(network: str, name: str = "main", **keys: Any) -> Contract:
    table = {"network": network, "events": ["purchase"], "settings": SETTINGS[network]} | keys
    return join(name, Destination.model_validate(table), load_catalogue()[network])


def _version(contract: Contract, number: int = 1) -> DestinationVersion:
    return DestinationVersion(number, number, contract)


def _event(**fields: Any) -> ConversionEvent:
    raw = {
        "version": 1,
        "type": "conversion",
        "event_id": "e1",
        "source": "shop",
        "name": "purchase",
        "occurred_at": "2026-11-22T10:00:00Z",
        "clicked_at": "2026-11-20T09:00:00Z",
        "value": "49.90",
        "currency": "EUR",
        "click_ids": {"xandr": "x.", "pushground": "push_1", "knorex-xpo": "k1", "generic": "g1"},
    }
    event = read_event(raw | fields, NOW)
    assert isinstance(event, ConversionEvent)
    return event


def test_every_destination_that_takes_an_event_gets_its_own_postback() -> None:
    """Two networks for one order, each under its own name."""
    versions = [_version(_contract("xandr", "a")), _version(_contract("pushground", "b"), 2)]
    planned = route(_event(), versions, RECEIVED)
    assert [one.version_id for one in planned] == [1, 2]
    assert [click_id_for(version.contract, _event()) for version in versions] == ["x.", "push_1"]
    assert all(one.state is State.HELD for one in planned)


def test_an_event_whose_name_is_not_listed_is_not_taken() -> None:
    """Names are compared with case and all."""
    assert not takes(_contract("xandr"), _event(name="Purchase"))


def test_an_event_without_a_click_id_for_the_network_is_not_taken() -> None:
    """Another network's token is none."""
    assert not takes(_contract("xandr"), _event(click_ids={"pushground": "push_1"}))


def test_a_click_id_may_name_the_account_instead_of_the_network() -> None:
    """Two accounts at one network have a token each; the account's own goes first."""
    event = _event(click_ids={"xandr": "x.", "b": "y."})
    assert click_id_for(_contract("xandr", "b"), event) == "y."


def test_the_partner_protocol_wants_a_partner_id() -> None:
    """A click id alone attributes nothing there, and is not kept as if it did."""
    contract = _contract("knorex-xpo", protocol="partner")
    assert not takes(contract, _event())
    assert takes(contract, _event(partner_id="p1"))
    assert click_id_for(contract, _event(partner_id="p1")) is None


def test_a_rebill_is_sent_by_its_partner_id_alone() -> None:
    """With its click id the platform would refuse it as that click's duplicate, and the other way round."""
    event = _event(partner_id="p1")
    by_partner = _contract("knorex-xpo", protocol="partner")
    by_click = _contract("knorex-xpo")
    urls = [
        render(contract.template, contract.plain_settings() | event_values(contract, event, "pb_1", None)).url
        for contract in (by_partner, by_click)
    ]
    assert urls == [
        "https://postback.example/x?partner_id=p1&event=purchase",
        "https://postback.example/x?kcid=k1&event=purchase",
    ]


@pytest.mark.parametrize(
    ("measured_from", "start"),
    [
        ("event", datetime(2026, 11, 22, 10, tzinfo=UTC)),
        ("click", datetime(2026, 11, 20, 9, tzinfo=UTC)),
        ("receipt", RECEIVED),
    ],
)
def test_the_window_is_measured_from_where_the_policy_says(measured_from: str, start: datetime) -> None:
    """Event, click or receipt, and fourteen days on."""
    hold = {"kind": "refund", "wait": "14d", "measured_from": measured_from}
    [planned] = route(_event(), [_version(_contract("xandr", hold=hold))], RECEIVED)
    assert planned.release_at == start + timedelta(days=14)


def test_a_click_window_without_a_click_instant_starts_at_the_event() -> None:
    """What is not known is not invented."""
    hold = {"kind": "refund", "wait": "14d", "measured_from": "click"}
    [planned] = route(_event(clicked_at=None), [_version(_contract("xandr", hold=hold))], RECEIVED)
    assert planned.release_at == datetime(2026, 12, 6, 10, tzinfo=UTC)


@pytest.mark.parametrize(
    ("measured_from", "clicked_at", "start"),
    [
        ("click", "2026-11-20T09:00:00Z", datetime(2026, 11, 20, 9, tzinfo=UTC)),
        ("click", None, datetime(2026, 11, 22, 10, tzinfo=UTC)),
        ("event", "2026-11-20T09:00:00Z", datetime(2026, 11, 22, 10, tzinfo=UTC)),
    ],
)
def test_an_age_limit_ends_where_the_network_stops_listening(
    measured_from: str, clicked_at: str | None, start: datetime
) -> None:
    """From the click or from the event, as the network counts."""
    limit = AgeLimit.model_validate({"wait": "14d", "measured_from": measured_from})
    contract = _contract("generic", rules={"age_limit": limit.model_dump()})
    [planned] = route(_event(clicked_at=clicked_at), [_version(contract)], RECEIVED)
    assert planned.expires_at == start + timedelta(days=14)


def test_what_can_never_be_rendered_is_rejected_at_once_with_its_reason() -> None:
    """Pushground without a payout would answer 200 and count nothing."""
    [planned] = route(_event(value=None, currency=None), [_version(_contract("pushground"))], RECEIVED)
    assert planned.state is State.REJECTED
    assert planned.reason is not None
    assert "{value} has no value" in planned.reason


def test_a_secret_setting_does_not_keep_an_event_from_being_planned() -> None:
    """Secrets are read where it is fired, not where it is planned."""
    settings = {"url": "https://h.example/{settings.key}?c={click_id}", "key": {"env": "KEY"}}
    [planned] = route(_event(), [_version(_contract("generic", settings=settings))], RECEIVED)
    assert planned.state is State.HELD


def test_the_same_click_and_name_share_a_dedupe_key() -> None:
    """Another event id, value or source makes no other conversion of it."""
    contract = _contract("pushground")
    again = _event(event_id="e2", source="crm", value="1.00", order_id="77")
    assert dedupe_key(contract, _event()) == dedupe_key(contract, again)
    assert len(dedupe_key(contract, again)) == 16


@pytest.mark.parametrize(
    "other",
    [
        {"click_ids": {"xandr": "x"}},
        {"click_ids": {"xandr": "X."}},
        {"name": "signup"},
        {"order_id": "2"},
    ],
)
def test_what_the_network_tells_apart_has_another_key(other: dict[str, Any]) -> None:
    """A token without its period, or in another case, is another token; Xandr also tells orders apart."""
    contract = _contract("xandr")
    assert dedupe_key(contract, _event(order_id="1")) != dedupe_key(
        contract, _event(**{"order_id": "1"} | other)
    )


def test_destinations_have_keys_of_their_own() -> None:
    """One conversion at two accounts is two postbacks."""
    assert dedupe_key(_contract("xandr", "a"), _event()) != dedupe_key(_contract("xandr", "b"), _event())


def test_names_that_the_network_calls_alike_share_a_key() -> None:
    """The network sees only its own name for both."""
    contract = _contract(
        "pushground", events=["purchase", "order"], event_names={"purchase": "Sale", "order": "Sale"}
    )
    assert dedupe_key(contract, _event()) == dedupe_key(contract, _event(name="order"))


def test_rebills_are_told_apart_by_order_or_sequence() -> None:
    """The same partner converts again and again; the same rebill sent twice is one."""
    contract = _contract("knorex-xpo", protocol="partner")
    rebills = [
        {"order_id": "1"},
        {"order_id": "2"},
        {"sequence": 0},
        {"sequence": 1},
        {"order_id": "1", "sequence": 1},
    ]
    keys = [dedupe_key(contract, _event(partner_id="p", **rebill)) for rebill in rebills]
    again = [dedupe_key(contract, _event(partner_id="p", event_id="e2", **rebill)) for rebill in rebills]
    assert len(set(keys)) == len(rebills)
    assert keys == again


def test_a_rebill_that_names_neither_stands_for_itself() -> None:
    """Each event is its own conversion; the same event again is the same."""
    contract = _contract("knorex-xpo", protocol="partner")
    first, second = (_event(partner_id="p", event_id=number) for number in ("e1", "e2"))
    assert dedupe_key(contract, first) == dedupe_key(contract, _event(partner_id="p", event_id="e1"))
    assert dedupe_key(contract, first) != dedupe_key(contract, second)


def test_the_values_are_the_events_own_words() -> None:
    """Money keeps its places, the name is the network's, absent is absent."""
    contract = _contract("xandr", event_names={"purchase": "Sale"})
    values = event_values(contract, _event(params={"other": "vip"}), "pb_7", Decimal("12.50"))
    assert values["value"] == "12.50"
    assert values["name"] == "Sale"
    assert values["params.other"] == "vip"
    assert values["postback_id"] == "pb_7"
    assert values["occurred_unix"] == "1795341600"
    assert values["order_id"] is None


@pytest.mark.parametrize(
    ("versions", "event", "said"),
    [
        ([], {}, "destinations apply"),
        (
            [_version(_contract("xandr"))],
            {"name": "install"},
            "no destination lists the event name 'install'",
        ),
        ([_version(_contract("xandr"))], {"click_ids": {}}, "a click id for xandr"),
        ([_version(_contract("knorex-xpo", protocol="partner"))], {}, "a partner_id"),
    ],
)
def test_what_nobody_takes_says_why(
    versions: list[DestinationVersion], event: dict[str, Any], said: str
) -> None:
    """The reason names what is missing and what would change it."""
    found = _event(**event)
    assert route(found, versions, RECEIVED) == []
    assert said in why_unrouted(found, versions)
