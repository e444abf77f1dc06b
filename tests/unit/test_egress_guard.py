"""What the egress guard lets out: addresses, hosts, schemes, and what a name resolves to."""

from __future__ import annotations

import asyncio
import socket

import pytest

from infra.http.addresses import judge_address
from infra.http.egress import CACHE_TTL_S, EgressGuard, EgressRefused, PinningResolver
from infra.http.urls import BadUrlError, split_url
from schemas.exchange import FetchLimits

LIMITS = FetchLimits()
PUBLIC = "93.184.215.14"


@pytest.mark.parametrize(
    ("address", "reason"),
    [
        ("127.0.0.1", "loopback"),
        ("127.255.255.254", "loopback"),
        ("10.1.2.3", "private"),
        ("172.16.0.1", "private"),
        ("172.31.255.255", "private"),
        ("192.168.1.1", "private"),
        ("169.254.7.7", "link-local"),
        ("169.254.169.254", "metadata"),
        ("100.64.0.1", "CGNAT"),
        ("100.127.255.255", "CGNAT"),
        ("0.0.0.0", "unspecified"),
        ("0.1.2.3", "unspecified"),
        ("224.0.0.1", "multicast"),
        ("239.255.255.255", "multicast"),
        ("240.0.0.1", "reserved"),
        ("255.255.255.255", "broadcast"),
        ("192.0.0.8", "protocol"),
        ("192.0.2.1", "documentation"),
        ("198.51.100.1", "documentation"),
        ("203.0.113.1", "documentation"),
        ("198.18.0.1", "benchmarking"),
        ("198.19.255.255", "benchmarking"),
        ("192.88.99.1", "6to4"),
        ("::1", "loopback"),
        ("::", "unspecified"),
        ("::ffff:127.0.0.1", "IPv4-mapped"),
        ("::ffff:10.0.0.1", "IPv4-mapped"),
        ("::ffff:169.254.169.254", "metadata"),
        ("::7f00:1", "IPv4-compatible"),
        ("64:ff9b::7f00:1", "NAT64"),
        ("64:ff9b:1::a00:1", "NAT64"),
        ("2002:7f00:1::", "6to4"),
        ("2002:c0a8:101::1", "6to4"),
        ("2001:0:4136:e378:8000:63bf:3fff:fdd2", "Teredo"),
        ("2001:2::1", "benchmarking"),
        ("2001:db8::1", "documentation"),
        ("3fff::1", "documentation"),
        ("fc00::1", "unique local"),
        ("fd12:3456::1", "unique local"),
        ("fe80::1", "link-local"),
        ("fec0::1", "site-local"),
        ("ff02::1", "multicast"),
        ("100::1", "discard"),
        ("4000::1", "not global unicast"),
        ("fd00:ec2::254", "metadata"),
        ("2606:4700::1%eth0", "zone"),
        ("fe80::1%1", "zone"),
        ("localhost", "not an IP address"),
        ("0177.0.0.1", "not an IP address"),
    ],
)
def test_an_address_that_is_not_public_is_refused_with_its_reason(address: str, reason: str) -> None:
    """Every special-purpose block is refused, and the reason names it."""
    assert reason in str(judge_address(address))


@pytest.mark.parametrize(
    "address",
    [
        PUBLIC,
        "8.8.8.8",
        "100.63.255.255",
        "100.128.0.0",
        "172.15.255.255",
        "172.32.0.0",
        "198.20.0.0",
        "223.255.255.255",
        "2606:4700:4700::1111",
        "2a00:1450::1",
        "2001:4860:4860::8888",
        "2003::1",
    ],
)
def test_a_public_address_is_admitted(address: str) -> None:
    """The neighbours of the special blocks are public."""
    assert judge_address(address) is None


@pytest.mark.parametrize("address", ["127.0.0.1", "10.0.0.1", "169.254.7.7", "::1", "fd12::1", "fe80::1"])
def test_private_addresses_are_admitted_where_the_destination_allows_them(address: str) -> None:
    """allow_private opens loopback, private and link-local addresses."""
    assert judge_address(address, allow_private=True) is None


@pytest.mark.parametrize(
    "address", ["169.254.169.254", "::ffff:169.254.169.254", "fd00:ec2::254", "224.0.0.1", "ff02::1"]
)
def test_metadata_and_multicast_are_refused_even_where_private_is_allowed(address: str) -> None:
    """No destination is a metadata service."""
    assert judge_address(address, allow_private=True) is not None


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("https://user:secret@network.test/", "user name"),
        ("https://user@network.test/", "user name"),
        ("https://0x7f.1/", "IPv4"),
        ("https://0x7f000001/", "IPv4"),
        ("https://2130706433/", "IPv4"),
        ("https://0177.0.0.1/", "IPv4"),
        ("https://127.1/", "IPv4"),
        ("https://127.0.0.1./", "IPv4"),
        ("https://evil.0x7f/", "IPv4"),
        ("https://[fe80::1%25eth0]/", "zone"),
        ("https://[::1/", "host or host:port"),
        ("https://[localhost]/", "not an IPv6 address"),
        ("https://ne%74work.test/", "xn--"),
        ("https://-network.test/", "xn--"),
        ("https://network..test/", "xn--"),
        ("https://netw\u00f6rk.test/", "percent-encode"),
        ("https://network.test\\@evil.test/", "user name"),
        ("https://network.test\\evil.test/", "xn--"),
        ("https:///path", "xn--"),
        ("https://network.test:0/", "port"),
        ("https://network.test:65536/", "port"),
        ("https://network.test:+80/", "port"),
        ("https://network.test:80:80/", "port"),
        ("ftp://network.test/", "absolute http"),
        ("network.test/path", "absolute http"),
        ("https:network.test", "absolute http"),
        ("https://network.test/a b", "offset 22"),
        ("https://network.test/a\r\nX: y", "offset 22"),
    ],
)
def test_a_url_that_readers_could_take_two_ways_is_refused(url: str, words: str) -> None:
    """What a checker and the kernel might read differently never leaves, and the error names the part."""
    with pytest.raises(BadUrlError, match=words):
        split_url(url)


@pytest.mark.parametrize(
    ("url", "authority", "target"),
    [
        ("https://Network.TEST", "network.test", "/"),
        ("https://network.test:443/a", "network.test", "/a"),
        ("https://network.test:8443/a", "network.test:8443", "/a"),
        ("https://network.test:/a", "network.test", "/a"),
        ("http://network.test:443/a", "network.test:443", "/a"),
        ("http://[2606:4700::1]:8080/a", "[2606:4700::1]:8080", "/a"),
        ("https://network.test?a=", "network.test", "/?a="),
        ("https://network.test/a?", "network.test", "/a?"),
        (
            "https://network.test/a/../b//c/.?x=%7e&y=%2B+~|#frag?",
            "network.test",
            "/a/../b//c/.?x=%7e&y=%2B+~|",
        ),
    ],
)
def test_splitting_a_url_keeps_its_target_as_written(url: str, authority: str, target: str) -> None:
    """Only the fragment goes; an empty query, dot segments and escapes stay."""
    split = split_url(url)
    assert (split.origin.authority, split.target) == (authority, target)


class Names:
    """A name service of the test's making, which counts what it is asked."""

    def __init__(self, **answers: tuple[str, ...]) -> None:
        self.answers = answers
        self.asked: list[str] = []

    async def __call__(self, host: str) -> tuple[str, ...]:
        self.asked.append(host)
        await asyncio.sleep(0)
        if host not in self.answers:
            raise socket.gaierror(socket.EAI_NONAME, "unknown name")
        return self.answers[host]


def admit(guard: EgressGuard, url: str, limits: FetchLimits = LIMITS) -> tuple[str, ...]:
    return asyncio.run(guard.admit(split_url(url).origin, limits)).addresses


def test_a_name_is_admitted_with_all_its_addresses_in_the_resolvers_order() -> None:
    """The addresses are what the connection is then pinned to."""
    names = Names(**{"network.test": (PUBLIC, "2606:4700::1")})
    assert admit(EgressGuard(names), "https://network.test/") == (PUBLIC, "2606:4700::1")


def test_one_private_address_among_public_ones_refuses_the_name() -> None:
    """Mixed answers are how rebinding is done, so the name is refused as a whole."""
    names = Names(**{"network.test": (PUBLIC, "10.0.0.7")})
    with pytest.raises(EgressRefused, match=r"network\.test: resolves to 10\.0\.0\.7: private"):
        admit(EgressGuard(names), "https://network.test/")


def test_what_was_admitted_for_a_private_destination_is_judged_anew_for_another() -> None:
    """The cache holds addresses, not permissions."""
    guard = EgressGuard(Names(**{"sink.test": ("127.0.0.1",)}))
    assert admit(guard, "https://sink.test/", FetchLimits(allow_private=True)) == ("127.0.0.1",)
    with pytest.raises(EgressRefused, match="loopback"):
        admit(guard, "https://sink.test/")


def test_the_connectors_resolver_gives_only_judged_addresses() -> None:
    """A connector that looks a name up again meets the same judgement."""
    guard = EgressGuard(Names(**{"sink.test": ("127.0.0.1",)}))
    with pytest.raises(EgressRefused, match="loopback"):
        asyncio.run(PinningResolver(guard, allow_private=False).resolve("sink.test", 443))


def test_a_name_is_asked_for_once_while_its_answer_is_fresh() -> None:
    """Within the time to live the addresses stay those that were judged, whatever the name says by then."""
    now = 0.0
    names = Names(**{"network.test": (PUBLIC,)})
    guard = EgressGuard(names, clock=lambda: now)
    admit(guard, "https://network.test/")
    names.answers["network.test"] = ("10.0.0.7",)
    now = CACHE_TTL_S - 0.001
    assert admit(guard, "https://network.test/") == (PUBLIC,)
    now = CACHE_TTL_S
    with pytest.raises(EgressRefused, match="private"):
        admit(guard, "https://network.test/")
    assert names.asked == ["network.test"] * 2


def test_many_who_ask_at_once_share_one_lookup_and_survive_anothers_cancellation() -> None:
    """The first asker may be cancelled; the lookup goes on for the rest."""
    names = Names(**{"network.test": (PUBLIC,)})
    guard = EgressGuard(names)

    async def main() -> list[tuple[str, ...]]:
        tasks = [asyncio.create_task(guard.addresses("network.test", allow_private=False)) for _ in range(9)]
        await asyncio.sleep(0)
        tasks[0].cancel()
        answers = await asyncio.gather(*tasks, return_exceptions=True)
        assert isinstance(answers.pop(0), asyncio.CancelledError)
        return [answer for answer in answers if isinstance(answer, tuple)]

    assert asyncio.run(main()) == [(PUBLIC,)] * 8
    assert names.asked == ["network.test"]


@pytest.mark.parametrize(
    ("host", "admitted"),
    [
        ("ib.adnxs.com", True),
        ("a.b.adnxs.com", True),
        ("IB.adnxs.com.", True),
        ("secure.network.test", True),
        ("adnxs.com", False),
        ("evil-adnxs.com", False),
        ("ib.adnxs.com.evil.test", False),
        ("network.test", False),
    ],
)
def test_allowed_hosts_admit_names_and_the_subdomains_of_a_wildcard(host: str, admitted: bool) -> None:
    """``*.adnxs.com`` covers what lies below it and nothing that merely ends alike."""
    limits = FetchLimits(allowed_hosts=("*.adnxs.com", "secure.network.test"))
    guard = EgressGuard(Names(**{host.lower(): (PUBLIC,)}))
    if admitted:
        assert admit(guard, f"https://{host}/", limits) == (PUBLIC,)
    else:
        with pytest.raises(EgressRefused, match="allowed_hosts"):
            admit(guard, f"https://{host}/", limits)


def test_plain_http_is_refused_unless_the_destination_allows_it() -> None:
    """The refusal says which setting would allow it."""
    guard = EgressGuard(Names(**{"network.test": (PUBLIC,)}))
    with pytest.raises(EgressRefused, match="allow_http"):
        admit(guard, "http://network.test/")
    assert admit(guard, "http://network.test/", FetchLimits(allow_http=True)) == (PUBLIC,)


def test_an_address_written_as_the_host_is_judged_without_asking_anyone() -> None:
    """No name service stands between the URL and the judgement."""
    names = Names()
    with pytest.raises(EgressRefused, match="IPv4-mapped"):
        admit(EgressGuard(names), "https://[::ffff:7f00:1]/")
    assert names.asked == []
