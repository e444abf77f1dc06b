"""Every network file keeps its contract: adding one is all it takes for it to be tested here."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from urllib.parse import unquote, unquote_to_bytes

import pytest

from infra.catalogue import load_catalogue, load_config
from schemas.macros import ADJUSTMENT_MACROS, names_in, render
from schemas.network import Adjustment, AdjustmentKind, Example, Network
from schemas.support import FIELDS, USUAL_FIELDS, Support, field_table, support_table
from schemas.verdict import Dedupe, VerdictKind

FOLDER = Path(__file__).parents[2] / "schemas" / "networks"
NETWORKS = load_catalogue()
SEEDS = {"xandr", "ad-personam", "knorex-xpo", "pushground", "ezmob"}
FURTHER = {
    "taboola",
    "outbrain",
    "exoclick",
    "trafficstars",
    "propellerads",
    "adsterra",
    "richads",
    "mgid",
    "zeropark",
    "voluum",
    "redtrack",
    "binom",
    "keitaro",
    "bemob",
    "everflow",
    "tune",
    "cake",
    "affise",
    "scaleo",
    "sourceknowledge",
}
EXAMPLES = [
    pytest.param(network, example, id=f"{network.slug}-{number}")
    for network in NETWORKS.values()
    for number, example in enumerate(network.examples, 1)
]
each_network = pytest.mark.parametrize("network", NETWORKS.values(), ids=NETWORKS.keys())

# Copied from the networks' own pages, not from our files: a slip in a file must not be a slip here.
PAGE_EXAMPLES = {
    "https://sspx-router.adnxs.com/sspx?id=25619&order_id=1234&value=5678"
    "&sspdata=ams1AAAAAAAAkQC8rFPulI3JKKU9tUKckv1Oj1WFMAAAAAGULAAA3AAAAUQIAAD4AAA": {"xandr", "ad-personam"},
    "https://sspx-router.adnxs.com/sspx?id=78874&sspdata=nym1CJjYiJ3oq6LkMxACGIHey7vM0vGDRyIJMTAuMS4xMi42KAE.": {
        "xandr",
        "ad-personam",
    },
}


CORRECTIONS = [
    pytest.param(network, kind, example, id=f"{network.slug}-{kind}-{number}")
    for network in NETWORKS.values()
    for kind, adjustment in network.adjustments.all().items()
    for number, example in enumerate(adjustment.examples, 1)
]
each_adjustment = pytest.mark.parametrize(
    ("network", "kind", "adjustment"),
    [
        pytest.param(network, kind, adjustment, id=f"{network.slug}-{kind}")
        for network in NETWORKS.values()
        for kind, adjustment in network.adjustments.all().items()
    ],
)


def _values(
    network: Network, example: Example, adjustment: Adjustment | None = None
) -> dict[str, str | None]:
    own = adjustment.defaults if adjustment else {}
    defaults = {f"settings.{name}": setting.default for name, setting in network.settings.items()}
    defaults |= {f"settings.{name}": text for name, text in own.items()}
    return defaults | {f"settings.{name}": text for name, text in example.settings.items()} | example.event


def _texts(network: Network) -> list[str]:
    parts = [part for parameter in network.parameters for part in (parameter.name, parameter.value)]
    corrections = [text for each in network.adjustments.all().values() for text in each.texts()]
    return [network.method, network.url, network.body, *network.headers.values(), *parts, *corrections]


def test_every_network_of_this_release_is_in_the_catalogue() -> None:
    """The five seeds, the generic endpoint, and the further ones."""
    assert NETWORKS.keys() == SEEDS | FURTHER | {"generic"}


@pytest.mark.parametrize(("network", "example"), EXAMPLES)
def test_an_example_renders_byte_for_byte(network: Network, example: Example) -> None:
    """What is rendered is what the example says, to the byte."""
    rendered = render(network.template((), example.headers), _values(network, example))
    assert (rendered.method, rendered.url, rendered.body) == (example.method, example.url, example.body)


@pytest.mark.parametrize(("network", "example"), EXAMPLES)
def test_the_click_id_can_be_read_back_from_an_example(network: Network, example: Example) -> None:
    """Decoding the URL once, or the body as it stands, gives the click id byte for byte."""
    click_id = example.event.get("click_id")
    if click_id is None:
        assert "partner" in network.protocols
        assert example.event.get("partner_id")
        return
    in_query = [pair.partition("=")[2] for pair in example.url.partition("?")[2].split("&")]
    in_path = example.url.partition("?")[0].split("/")
    found = {unquote_to_bytes(piece) for piece in (*in_query, *in_path)}
    assert click_id.encode() in found or click_id in example.body


@pytest.mark.parametrize(("network", "kind", "example"), CORRECTIONS)
def test_an_example_of_a_correction_renders_byte_for_byte(
    network: Network, kind: AdjustmentKind, example: Example
) -> None:
    """What takes a conversion back, or gives it another value, is what its example says, to the byte."""
    adjustment = network.adjustments.of(kind)
    assert adjustment is not None
    rendered = render(adjustment.template(example.headers), _values(network, example, adjustment))
    assert (rendered.method, rendered.url, rendered.body) == (example.method, example.url, example.body)
    assert rendered.notes == ()


@each_adjustment
def test_a_correction_has_an_example_and_its_grounds(
    network: Network, kind: AdjustmentKind, adjustment: Adjustment
) -> None:
    """A page is quoted, and where it does not say what a repeat does, the safe rule is taken."""
    assert adjustment.examples
    assert '"' in adjustment.basis
    assert ("safe rule" in adjustment.basis) == (adjustment.dedupe is Dedupe.COUNTED_TWICE)


@each_adjustment
def test_a_correction_names_the_conversion_by_its_click_id(
    network: Network, kind: AdjustmentKind, adjustment: Adjustment
) -> None:
    """Whatever else it carries, it says which click's conversion is meant."""
    assert any("click_id" in names_in(text) for text in adjustment.texts())


@each_adjustment
def test_a_restatement_tells_an_amount_and_a_retraction_none(
    network: Network, kind: AdjustmentKind, adjustment: Adjustment
) -> None:
    """The new total or the change, never both, since they mean different things."""
    told = {name for text in adjustment.texts() for name in names_in(text)} & {"value", "delta"}
    assert len(told) == (1 if kind == "restatement" else 0)


@each_adjustment
def test_the_page_says_how_corrections_are_set_up(
    network: Network, kind: AdjustmentKind, adjustment: Adjustment
) -> None:
    """Under a heading of its own, with every setting that only corrections need."""
    page = (FOLDER / f"{network.slug}.md").read_text("utf-8")
    _, _, section = page.partition("## Corrections")
    own = {name for name in adjustment.needed_settings if not network.settings[name].required}
    own -= {name for name in own if network.settings[name].default is not None}
    assert section
    assert all(f"`{name}`" in section or f"settings.{name}" in section for name in own)


@each_network
def test_a_network_has_examples(network: Network) -> None:
    """A contract without an example is not tested."""
    assert network.examples


@each_network
def test_every_macro_of_a_template_is_known(network: Network) -> None:
    """A macro is filled by the event, its params, or a setting that the file documents."""
    known = ADJUSTMENT_MACROS | {f"settings.{name}" for name in network.settings}
    used = frozenset().union(*(names_in(text) for text in _texts(network)))
    assert {name for name in used if not name.startswith("params.")} <= known


@each_network
def test_every_setting_is_described_and_used(network: Network) -> None:
    """What an account has to give says what it is, and goes somewhere."""
    used = frozenset().union(*(names_in(text) for text in _texts(network)))
    assert all(len(setting.about) > 10 for setting in network.settings.values())
    assert {f"settings.{name}" for name in network.settings} <= used


@each_network
def test_a_default_keeps_its_own_pattern(network: Network) -> None:
    """What is taken when nothing is given is something that could have been given."""
    for setting in network.settings.values():
        if setting.default is not None and setting.pattern is not None:
            assert re.fullmatch(setting.pattern, setting.default)


@each_network
def test_the_click_id_is_sent(network: Network) -> None:
    """The click id is in the template, or the template is the account's own."""
    used = frozenset().union(*(names_in(text) for text in _texts(network)))
    assert "click_id" in used or network.url == "{settings.url}"


@each_network
def test_the_dedupe_rule_gives_its_grounds(network: Network) -> None:
    """A page that is silent has the safe rule, and one that is not is quoted."""
    basis = network.dedupe_basis
    silent = "silent" in basis or "Nothing is known" in basis
    assert silent == ("safe rule" in basis)
    assert not silent or network.dedupe is Dedupe.COUNTED_TWICE
    assert silent or '"' in basis


@each_network
def test_a_page_of_ours_says_how_to_set_it_up(network: Network, tmp_path: Path) -> None:
    """The .md names the documentation, and its configuration passes the check as it stands."""
    page = (FOLDER / f"{network.slug}.md").read_text("utf-8")
    assert network.docs in page or network.slug == "generic"
    assert "## What must not go wrong" in page
    snippet = "\n".join(re.findall(r"```toml\n(.*?)```", page, re.DOTALL))
    file = tmp_path / "holdfire.toml"
    file.write_text(snippet, "utf-8")
    config = load_config(file)
    assert {contract.network.slug for contract in config.contracts.values()} == {network.slug}


@each_network
def test_a_file_holds_no_secret_and_no_unknown_key(network: Network) -> None:
    """The file is exactly what the model reads back from it; what support asks for is not kept with contracts."""
    data = tomllib.loads((FOLDER / f"{network.slug}.toml").read_text("utf-8"))
    assert Network.model_validate(data) == network
    kept = Network.model_validate_json(network.model_dump_json())
    assert kept == network.model_copy(update={"support": Support()})


@each_network
def test_an_answered_success_is_never_resent(network: Network) -> None:
    """No 2xx, whatever its number, leads to another attempt."""
    kinds = {network.answer.by_status(status) for status in range(200, 300)}
    assert VerdictKind.RETRY not in kinds


@each_network
def test_a_server_that_failed_is_tried_again(network: Network) -> None:
    """429 and every 5xx are worth repeating."""
    assert {network.answer.by_status(status) for status in (429, 500, 502, 503)} == {VerdictKind.RETRY}


@pytest.mark.parametrize(
    ("slug", "url"), [(slug, url) for url, slugs in PAGE_EXAMPLES.items() for slug in sorted(slugs)]
)
def test_the_example_urls_of_the_pages_are_among_the_examples(slug: str, url: str) -> None:
    """The page's URL stands in the file as the page writes it."""
    assert url in {example.url for example in NETWORKS[slug].examples}


def test_ad_personams_own_url_is_filled_and_not_rewritten() -> None:
    """Scheme, host and order of the page's http URL stay; only the placeholder is replaced."""
    page = "http://sspx-router.adnxs.net/sspx?id=59633&sspdata=[SSPDATA]"
    assert any(
        page.replace("[SSPDATA]", example.event["click_id"]) == example.url
        for example in NETWORKS["ad-personam"].examples
    )


def test_pushgrounds_own_click_id_and_payout_are_sent() -> None:
    """The page's token and its payout of $5.00 go out as the page writes them."""
    url = NETWORKS["pushground"].examples[0].url
    assert url.partition("?")[2] == "click_id=push_71872t38713891u12u0313&payout=5.00"


def test_pushgrounds_200_is_worth_no_more_than_tried() -> None:
    """The page: 200 comes even if unsuccessful; 4xx and 5xx may be resubmitted."""
    network = NETWORKS["pushground"]
    assert network.delivered_means == "tried"
    assert network.answer.by_status(200) is VerdictKind.DELIVERED
    assert {network.answer.by_status(status) for status in (400, 404, 422, 500)} == {VerdictKind.RETRY}


def test_pushground_is_never_called_without_a_payout() -> None:
    """It would answer 200 and count nothing, so the postback is refused here instead."""
    payout = next(p for p in NETWORKS["pushground"].parameters if p.value == "{value}")
    assert not payout.optional
    assert not payout.keep_empty


@pytest.mark.parametrize("slug", ["xandr", "ad-personam"])
def test_the_pixel_networks_follow_redirects_within_their_hosts(slug: str) -> None:
    """Unfollowed, the 302 counts nothing; followed anywhere, it would be an open door."""
    network = NETWORKS[slug]
    assert network.redirects == "follow"
    assert network.allowed_hosts
    assert all(host.startswith("*.adnxs.") for host in network.allowed_hosts)


@pytest.mark.parametrize("slug", ["xandr", "ad-personam"])
def test_sspdata_is_last_and_has_no_limit(slug: str) -> None:
    """The token's length is the network's to change, and nothing stands behind it."""
    sspdata = NETWORKS[slug].parameters[-1]
    assert (sspdata.name, sspdata.value, sspdata.last) == ("sspdata", "{click_id}", True)
    assert sspdata.max_length is None
    assert sspdata.pattern is None


def test_knorex_xpo_rejects_what_it_has_already() -> None:
    """Both protocols are there, and a second identical transaction is refused by the platform."""
    network = NETWORKS["knorex-xpo"]
    assert network.protocols == ("transaction", "partner")
    assert network.dedupe is Dedupe.REJECTED
    assert network.answer.by_status(409) is VerdictKind.DUPLICATE


def test_knorex_xpo_gets_the_name_in_its_own_case() -> None:
    """The name is encoded once and otherwise left as it is configured in XPO."""
    urls = [example.url for example in NETWORKS["knorex-xpo"].examples]
    assert any("goal=Loan%20Approved" in url and unquote(url).count("Loan Approved") == 1 for url in urls)


@each_network
def test_what_support_asks_for_is_quoted_or_the_usual(network: Network) -> None:
    """Nothing is made up: what differs from the usual stands on the network's page, in its words."""
    support = network.support
    said = (support.contact, support.time_zone, support.fields) != ("", "UTC", USUAL_FIELDS)
    assert not said or '"' in support.basis
    assert set(support.fields) <= FIELDS.keys()


def test_the_seeds_that_ask_for_logs_are_quoted() -> None:
    """Two pages say what an investigation needs; the other three are silent, and their files say so."""
    asking = {slug for slug in SEEDS if "verbose logs" in NETWORKS[slug].support.basis}
    assert asking == {"xandr", "ad-personam"}
    assert all(not NETWORKS[slug].support.basis for slug in SEEDS - asking)


def test_the_page_on_evidence_shows_what_each_network_asks_for() -> None:
    """Both of its tables are made from the files."""
    page = (FOLDER.parents[1] / "docs" / "evidence.md").read_text("utf-8")
    assert support_table((slug, network.support) for slug, network in sorted(NETWORKS.items())) in page
    assert field_table() in page
