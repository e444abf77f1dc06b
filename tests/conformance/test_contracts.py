"""What must not go wrong at single networks: answers, currencies, windows, and what is known only by halves."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from infra.catalogue import load_catalogue, load_config
from schemas.checking import check
from schemas.conversion import route, unrenderable
from schemas.destination import Contract, Destination, DestinationVersion, join
from schemas.exchange import Answer, Hop
from schemas.lifecycle import State
from schemas.macros import render
from schemas.network import Network, catalogue_table
from schemas.verdict import Dedupe, VerdictKind, judge
from workers.trying import example_event, read_for

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "schemas" / "networks"
NETWORKS = load_catalogue()
NOW = datetime(2026, 11, 22, 12, tzinfo=UTC)
each_network = pytest.mark.parametrize("network", NETWORKS.values(), ids=NETWORKS.keys())

DELIVERED, REJECTED = VerdictKind.DELIVERED, VerdictKind.REJECTED
DUPLICATE, IN_DOUBT, RETRY = VerdictKind.DUPLICATE, VerdictKind.IN_DOUBT, VerdictKind.RETRY

# Copied from the networks' own pages, not from our files: a slip in a file must not be a slip here.
PAGE_EXAMPLES = {
    "taboola": "https://trc.taboola.com/actions-handler/log/3/s2s-action?click-id={cid}&name={name}"
    "&revenue={value}&currency={currency}&orderid={order}",
    "trafficstars": "https://tsyndicate.com/api/v1/cpa/action/c86b8a88b91228911e723b93c65a5900bb49bc99"
    "?value=2.1&lead_code=abcd1234567890&key=123456789012345678",
    "adsterra": "https://www.pbterra.com/name/NAMEOFADVERTISER/at?subid_short=CLICK_ID&atpay=1.5",
    "tune": "https://examplenetwork.go2cloud.org/aff_lsr?offer_id=26"
    "&transaction_id=1027c887059b47bc69c699f45466b9",
    "sourceknowledge": "https://upx.provenpixel.com/postback.php?clk=CLICK_ID",
}


def _contracts(slug: str, folder: Path) -> list[Contract]:
    """The destinations that the network's page shows."""
    page = (FOLDER / f"{slug}.md").read_text("utf-8")
    file = folder / "holdfire.toml"
    file.write_text("\n".join(re.findall(r"```toml\n(.*?)```", page, re.DOTALL)), "utf-8")
    return list(load_config(file).contracts.values())


def _contract(slug: str, **keys: Any) -> Contract:
    """A destination with the settings of the network's first example."""
    settings = {
        name: {"env": "SECRET"} if NETWORKS[slug].settings[name].secret else text
        for name, text in NETWORKS[slug].examples[0].settings.items()
    }
    table = {"network": slug, "events": ["purchase"], "settings": settings} | keys
    return join("main", Destination.model_validate(table), NETWORKS[slug])


def _event(contract: Contract, **fields: Any) -> Any:
    return read_for(contract, example_event(contract, NOW) | fields, NOW)


def _verdict(slug: str, status: int, body: str) -> VerdictKind:
    hop = Hop(
        number=1,
        url="https://network.example/",
        method="GET",
        started_at=NOW,
        request_head=b"GET / HTTP/1.1\r\n",
        status_code=status,
    )
    return judge(NETWORKS[slug].answer, Answer((hop,)), body).kind


# All of them ---------------------------------------------------------------------------------------


@each_network
def test_a_destination_of_the_page_takes_the_networks_own_example(network: Network, tmp_path: Path) -> None:
    """What a person copies from the page can be tried at once: nothing is missing, no rule is broken."""
    for contract in _contracts(network.slug, tmp_path):
        assert unrenderable(contract, _event(contract)) is None


@each_network
def test_a_repeat_that_is_safe_says_so_in_the_networks_words(network: Network) -> None:
    """Only a quotation allows an attempt whose answer was lost to be sent again."""
    if network.dedupe is not Dedupe.COUNTED_TWICE:
        assert '"' in network.dedupe_basis


@each_network
def test_a_network_from_memory_names_what_is_unverified(network: Network) -> None:
    """A reader sees which rules to check, not only that there are some."""
    assert network.unverified or network.confidence != "unverified"


@each_network
def test_what_is_unverified_is_said_on_the_page(network: Network) -> None:
    """Who sets it up learns of it before the first postback."""
    page = (FOLDER / f"{network.slug}.md").read_text("utf-8")
    assert bool(network.unverified) <= any(
        word in page for word in ("unverified", "not on the page", "Nothing is known")
    )


def test_the_page_of_networks_is_the_catalogue() -> None:
    """docs/networks.md lists every network, and nothing that is not so."""
    page = (ROOT / "docs" / "networks.md").read_text("utf-8")
    assert catalogue_table(NETWORKS.values()) in page


@pytest.mark.parametrize("place", ["parameters.payuot", "settings.nobody", "answer.colour", "colour"])
def test_an_unverified_rule_that_does_not_exist_is_refused(place: str) -> None:
    """A slip would mark nothing."""
    data = NETWORKS["tune"].model_dump() | {"unverified": [place]}
    with pytest.raises(ValidationError, match="is no rule of this network"):
        Network.model_validate(data)


@pytest.mark.parametrize(("slug", "shape"), PAGE_EXAMPLES.items())
def test_the_urls_of_the_pages_are_what_is_rendered(slug: str, shape: str) -> None:
    """Host, path, names and order of the parameters are the page's."""
    event = NETWORKS[slug].examples[0].event
    url = (
        shape.replace("{cid}", event["click_id"])
        .replace("{name}", event.get("name", ""))
        .replace("{value}", event.get("value", ""))
        .replace("{currency}", event.get("currency", ""))
        .replace("{order}", event.get("order_id", ""))
    )
    assert NETWORKS[slug].examples[0].url == url


# Answers -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("slug", "status", "body", "kind"),
    [
        ("exoclick", 200, "OK", DELIVERED),
        ("exoclick", 200, "ERROR: This conversion has already been notified and saved.", DUPLICATE),
        ("exoclick", 200, "ERROR: Tag is invalid!", REJECTED),
        ("exoclick", 200, "ERROR : Goal value is invalid.", REJECTED),
        ("exoclick", 200, "<html>Sign in</html>", IN_DOUBT),
        ("exoclick", 200, "NOT OK", IN_DOUBT),
        ("exoclick", 503, "", RETRY),
        ("trafficstars", 200, '{"ok": true}', DELIVERED),
        ("trafficstars", 200, '{\n"ok":true\n}', DELIVERED),
        ("trafficstars", 200, '{"ok": false, "error": "no such click"}', REJECTED),
        ("trafficstars", 200, "", IN_DOUBT),
        ("tune", 200, "success=true;", DELIVERED),
        ("tune", 200, "success=false; err_msg=Invalid Trans. ID #1027c887059b47b.;", REJECTED),
        ("tune", 200, "success=false; err_msg=Duplicate conversion;", DUPLICATE),
        ("tune", 200, "<html></html>", IN_DOUBT),
        ("tune", 502, "", RETRY),
        ("affise", 200, '{"status":1,"message":"Conversion exists"}', DUPLICATE),
        ("affise", 200, "", DELIVERED),
        ("taboola", 204, "", DELIVERED),
        ("taboola", 400, "", REJECTED),
    ],
)
def test_an_answer_is_read_as_the_network_means_it(
    slug: str, status: int, body: str, kind: VerdictKind
) -> None:
    """Where the status is 200 either way, the body decides, and what it does not say is in doubt."""
    assert _verdict(slug, status, body) is kind


def test_everflows_200_is_worth_no_more_than_tried() -> None:
    """Its allow-list refuses behind a 200."""
    assert NETWORKS["everflow"].delivered_means == "tried"


# Currencies ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("slug", ["adsterra", "richads"])
def test_a_value_that_is_not_in_dollars_is_rejected_at_intake(slug: str) -> None:
    """It would be counted as so many dollars; the reason names what is wrong and what to send."""
    contract = _contract(slug)
    (planned,) = route(_event(contract, currency="EUR"), [DestinationVersion(1, 1, contract)], NOW)
    assert planned.state is State.REJECTED
    assert planned.reason is not None
    assert all(word in planned.reason for word in ("EUR", contract.network.title, "USD only", "Convert it"))


@pytest.mark.parametrize("slug", ["adsterra", "richads"])
@pytest.mark.parametrize("fields", [{"currency": "USD"}, {"value": None, "currency": None}])
def test_dollars_and_no_value_at_all_are_held(slug: str, fields: dict[str, Any]) -> None:
    """The currency matters only to an amount."""
    contract = _contract(slug)
    (planned,) = route(_event(contract, **fields), [DestinationVersion(1, 1, contract)], NOW)
    assert (planned.state, planned.reason) == (State.HELD, None)


def test_a_currency_that_taboola_does_not_list_is_rejected() -> None:
    """Without a currency Taboola would take the account's own, so leaving it out is no way out."""
    contract = _contract("taboola")
    assert unrenderable(contract, _event(contract, currency="EUR")) is None
    assert "value is in CHF" in (unrenderable(contract, _event(contract, currency="CHF")) or "")


def test_a_currency_that_is_none_is_refused_in_a_network_file() -> None:
    """A slip would refuse every value."""
    with pytest.raises(ValidationError, match="ISO 4217"):
        Network.model_validate(NETWORKS["adsterra"].model_dump() | {"currencies": ["DOLLARS"]})


# Windows -------------------------------------------------------------------------------------------


def test_exoclicks_repeat_must_come_while_it_remembers_the_first() -> None:
    """After 24 hours a repeat counts again, so a horizon of a day or more is refused, unless no repeat is sent."""
    assert check(_contract("exoclick")).problems == []
    assert _contract("exoclick").retry.horizon < timedelta(hours=24)
    for horizon in ("24h", "3d"):
        (problem,) = check(_contract("exoclick", retry={"horizon": horizon})).problems
        assert (problem.code, problem.field) == ("dedupe_window", "destinations.main.retry.horizon")
    assert check(_contract("exoclick", retry={"horizon": "3d"}, dedupe="counted_twice")).problems == []


@pytest.mark.parametrize(
    ("slug", "wait", "refused"),
    [
        ("sourceknowledge", "11d", False),
        ("sourceknowledge", "12d", True),
        ("everflow", "87d", False),
        ("everflow", "88d", True),
    ],
)
def test_a_hold_must_fit_into_the_days_a_network_remembers_a_click(
    slug: str, wait: str, refused: bool
) -> None:
    """Wait and retry horizon (3 days) together: two weeks at SourceKnowledge, 90 days at Everflow."""
    hold = {"kind": "refund", "wait": wait, "measured_from": "click"}
    problems = check(_contract(slug, hold=hold)).problems
    assert [problem.code for problem in problems] == (["age_limit"] if refused else [])


def test_sourceknowledge_ignores_a_conversion_two_weeks_after_the_click() -> None:
    """The limit is the click's, not the order's."""
    contract = _contract("sourceknowledge")
    event = _event(contract, clicked_at="2026-11-20T09:00:00Z")
    (planned,) = route(event, [DestinationVersion(1, 1, contract)], NOW)
    assert planned.expires_at == datetime(2026, 12, 4, 9, tzinfo=UTC)


# Parameters and secrets ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("slug", "settings"),
    [
        ("trafficstars", {"key"}),
        ("zeropark", {"uuid"}),
        ("keitaro", {"key"}),
        ("exoclick", {"skey"}),
        ("tune", {"security_token"}),
        ("everflow", {"verification_token"}),
        ("affise", {"secure"}),
        ("scaleo", {"token"}),
        ("cake", {"api_key"}),
    ],
)
def test_what_lets_others_report_conversions_is_a_secret(slug: str, settings: set[str]) -> None:
    """It is named by environment variable or file and masked in all evidence, also in a path."""
    assert {name for name, setting in NETWORKS[slug].settings.items() if setting.secret} == settings


def test_mgids_id_may_be_a_secret_and_may_be_too_short_for_one() -> None:
    """Six digits cannot be masked safely, so the id stands in the file or is named by variable, as it can."""
    for given in ("123456", {"env": "MGID_ID"}):
        assert check(_contract("mgid", settings={"id": given})).problems == []


def test_propellerads_keeps_its_empty_pid() -> None:
    """The account's URL has it, and nothing of it is to be edited."""
    contract = _contract("propellerads")
    values = contract.plain_settings() | {"click_id": "y893"}
    assert render(contract.template, values).url.endswith("?aid=12345&pid=&tid=1234&visitor_id=y893")


@pytest.mark.parametrize("amount", ["1234567.89", "0.10", "100000"])
def test_everflow_gets_a_point_and_no_separators(amount: str) -> None:
    """It reads 12,34 as 12.34."""
    contract = _contract("everflow")
    values = contract.plain_settings() | {"click_id": "t", "value": amount}
    assert render(contract.template, values).url.endswith(f"&amount={amount}")


@pytest.mark.parametrize(("cpa", "sent"), [("0", True), ("99.5", True), ("100", True), ("100.01", False)])
def test_exoclicks_bid_is_between_0_and_100(cpa: str, sent: bool) -> None:
    """What it would refuse as an invalid price is left out, and the conversion still counts."""
    contract = _contract("exoclick")
    rendered = render(contract.template, contract.plain_settings() | {"click_id": "t", "params.cpa": cpa})
    assert (f"&cpa={cpa}" in rendered.url) is sent
    assert bool(rendered.notes) is not sent
