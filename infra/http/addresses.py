"""Which IP addresses a postback may be sent to. Pure: text or an address in, a reason to refuse out.

Sources: the IANA IPv4 and IPv6 Special-Purpose Address Registries (RFC 6890 and its updates). Written
out rather than left to ``ipaddress.is_global``, whose answer for a block changes between Python versions.
"""

from __future__ import annotations

from functools import lru_cache
from ipaddress import (
    IPv4Address,
    IPv4Network,
    IPv6Address,
    IPv6Network,
    ip_address,
    ip_network,
)

IPAddress = IPv4Address | IPv6Address
_Table = tuple[tuple[IPv4Network | IPv6Network, str], ...]


def _table(*rows: tuple[str, str]) -> _Table:
    return tuple((ip_network(block), reason) for block, reason in rows)


_NEVER = _table(
    # No destination is served from these, so allow_private does not open them: a redirect from a test
    # sink into a cloud's credential service would be somebody else's doing.
    ("169.254.169.254/32", "cloud metadata service"),
    ("169.254.170.2/32", "cloud credential service"),
    ("fd00:ec2::254/128", "cloud metadata service"),
    ("224.0.0.0/4", "multicast"),
    ("255.255.255.255/32", "broadcast"),
    ("ff00::/8", "multicast"),
)

_NOT_PUBLIC_V4 = _table(
    ("0.0.0.0/8", "unspecified: this network"),
    ("10.0.0.0/8", "private"),
    ("100.64.0.0/10", "shared with the carrier (CGNAT)"),
    ("127.0.0.0/8", "loopback"),
    ("169.254.0.0/16", "link-local"),
    ("172.16.0.0/12", "private"),
    ("192.0.0.0/24", "reserved for protocol assignments"),
    ("192.0.2.0/24", "documentation"),
    ("192.88.99.0/24", "6to4 relay anycast"),
    ("192.168.0.0/16", "private"),
    ("198.18.0.0/15", "benchmarking"),
    ("198.51.100.0/24", "documentation"),
    ("203.0.113.0/24", "documentation"),
    ("240.0.0.0/4", "reserved"),
)

# IPv6 is judged the other way round: only 2000::/3 is routed on the public internet, and these are the
# exceptions inside it. The rows outside it serve only to name the reason. Forms that carry an IPv4 address
# are refused whatever they carry: a resolver has no business giving them out for a public service, and
# what the kernel or a gateway makes of them is not what was checked.
_NOT_PUBLIC_V6 = _table(
    ("::1/128", "loopback"),
    ("::/128", "unspecified"),
    ("::ffff:0:0/96", "IPv4-mapped"),
    ("::/96", "IPv4-compatible"),
    ("64:ff9b::/96", "NAT64"),
    ("64:ff9b:1::/48", "local-use NAT64"),
    ("100::/64", "discard-only"),
    ("2001::/32", "Teredo"),
    ("2001:2::/48", "benchmarking"),
    ("2001::/23", "reserved for protocol assignments"),
    ("2001:db8::/32", "documentation"),
    ("2002::/16", "6to4"),
    ("3fff::/20", "documentation"),
    ("5f00::/16", "segment routing"),
    ("fc00::/7", "private (unique local)"),
    ("fe80::/10", "link-local"),
    ("fec0::/10", "site-local"),
)
_PUBLIC_V6 = IPv6Network("2000::/3")


def _reason(address: IPAddress, table: _Table) -> str | None:
    # Networks of the other IP version never contain the address, so the tables need no sorting by version.
    return next((reason for block, reason in table if address in block), None)


@lru_cache(maxsize=4096)
def judge_address(address: str | IPAddress, *, allow_private: bool = False) -> str | None:
    """Say why ``address`` must not be contacted, or None if it may be.

    Text that is not an address is itself a reason, and so is an IPv6 zone id (``fe80::1%eth0``), which
    names an interface of this machine. ``allow_private`` admits everything but multicast, broadcast and
    the clouds' metadata services.
    """
    if isinstance(address, str):
        try:
            address = ip_address(address)
        except ValueError:
            return "not an IP address"
    if isinstance(address, IPv6Address):
        if address.scope_id is not None:
            return "an IPv6 zone id names an interface of this machine"
        carried = address.ipv4_mapped
        if carried is not None and (refusal := _reason(carried, _NEVER)):
            return f"IPv4-mapped {refusal}"  # the kernel connects to the address that is carried
    never = _reason(address, _NEVER)
    if never or allow_private:
        return never
    if isinstance(address, IPv4Address):
        return _reason(address, _NOT_PUBLIC_V4)
    return _reason(address, _NOT_PUBLIC_V6) or (None if address in _PUBLIC_V6 else "not global unicast")
