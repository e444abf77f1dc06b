"""Laws of the egress guard and of URL splitting, for any address and any printable URL."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address

from hypothesis import example, given
from hypothesis import strategies as st

from infra.http.addresses import judge_address
from infra.http.urls import split_url

VISIBLE = st.text(st.characters(min_codepoint=0x21, max_codepoint=0x7E, exclude_characters="#"))


@given(st.ip_addresses())
@example(IPv6Address("2001:20::1"))
def test_what_is_admitted_is_global_and_unicast(address: IPv4Address | IPv6Address) -> None:
    """The guard admits nothing that Python's own registry calls anything but global unicast."""
    if judge_address(address) is None:
        assert address.is_global
        assert not address.is_multicast


@given(st.ip_addresses(v=4))
def test_no_disguise_of_an_ipv4_address_is_admitted(address: IPv4Address) -> None:
    """Mapped, compatible, NAT64 and 6to4 forms are refused whatever they carry."""
    carried = int(address)
    prefixes = (0xFFFF << 32, 0, 0x0064FF9B << 96, 0x0064FF9B0001 << 80)
    disguises = [IPv6Address(prefix | carried) for prefix in prefixes] + [
        IPv6Address(0x2002 << 112 | carried << 80)
    ]
    assert all(judge_address(disguise) for disguise in disguises)


@given(st.ip_addresses())
def test_the_judgement_is_the_same_for_text_and_for_values(address: IPv4Address | IPv6Address) -> None:
    """An address may come from a URL as text or from the parser as a value."""
    assert judge_address(str(address)) == judge_address(address)


@given(VISIBLE)
def test_a_target_goes_out_exactly_as_it_was_written(path_and_query: str) -> None:
    """Any visible text after the first slash is the request target, byte for byte."""
    assert split_url(f"https://network.test/{path_and_query}").target == f"/{path_and_query}"
