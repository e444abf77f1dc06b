"""Taking a URL apart without changing it: the request target goes out exactly as it was rendered.

The usual parsers drop an empty query, decode what is percent-encoded or encode what is not. A network
that signs or logs the target byte for byte sees the difference, so this one only splits. Pure.
"""

from __future__ import annotations

import re
from functools import lru_cache
from ipaddress import IPv4Address, IPv6Address
from typing import NamedTuple

from infra.http.addresses import IPAddress

_URL = re.compile(r"(https?)://([^/?#]*)([^#]*)", re.IGNORECASE | re.ASCII)
_NOT_VISIBLE = re.compile(r"[^\x21-\x7e]")
_NAME = re.compile(r"(?:[a-z0-9_][a-z0-9_-]{0,62}\.)*[a-z0-9_][a-z0-9_-]{0,62}\.?", re.ASCII)
_NUMERIC_LABEL = re.compile(r"[0-9]+|0x[0-9a-f]*", re.ASCII)
_AUTHORITY = re.compile(r"(\[[^\]]*\]|[^:\[\]]*)(?::(.*))?")
_PORT = re.compile(r"[0-9]{1,5}", re.ASCII)
_DEFAULT_PORT = {"http": 80, "https": 443}


class BadUrlError(ValueError):
    """A URL that must not be sent as it stands. The message names the part and the remedy, not the URL."""


class Origin(NamedTuple):
    """Scheme, host and port: what a connection belongs to. ``host`` is lower case and without brackets."""

    scheme: str
    host: str
    port: int
    literal: IPAddress | None

    @property
    def authority(self) -> str:
        """The ``Host`` header's value: the port only where it is not the scheme's own."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == _DEFAULT_PORT[self.scheme] else f"{host}:{self.port}"

    @property
    def url(self) -> str:
        return f"{self.scheme}://{self.authority}"


class SplitUrl(NamedTuple):
    """An origin and the request target, verbatim but for the fragment, which is never sent."""

    origin: Origin
    target: str


def split_url(url: str) -> SplitUrl:
    """Split an absolute http(s) URL. Raises `BadUrlError` for anything that could not be sent unchanged."""
    odd = _NOT_VISIBLE.search(url)
    if odd is not None:
        raise BadUrlError(
            f"url: character {odd[0]!r} at offset {odd.start()} cannot be sent; percent-encode it"
        )
    match = _URL.match(url)
    if match is None:
        raise BadUrlError("url: not an absolute http or https URL; write it as https://host/path")
    scheme, authority, target = match.groups()
    if not target.startswith("/"):
        target = f"/{target}"
    return SplitUrl(_origin(scheme.lower(), authority), target)


@lru_cache(maxsize=1024)
def _origin(scheme: str, authority: str) -> Origin:
    if "@" in authority:
        raise BadUrlError("url: a user name or password before the host is refused; send it as a header")
    split = _AUTHORITY.fullmatch(authority.lower())
    if split is None:
        raise BadUrlError("url: the part before the path is not host or host:port")
    host, port_text = split.groups()
    return Origin(scheme, host.strip("[]"), _port(port_text or "", scheme), _literal(host))


def _port(text: str, scheme: str) -> int:
    if not text:
        return _DEFAULT_PORT[scheme]
    if not _PORT.fullmatch(text) or not 0 < int(text) < 65536:
        raise BadUrlError("url: the port is not a number from 1 to 65535")
    return int(text)


def _literal(host: str) -> IPAddress | None:
    """The address if the host is one, None if it is a name. Raises `BadUrlError` if it is neither for sure."""
    if host.startswith("["):
        if "%" in host:
            raise BadUrlError("url: an IPv6 zone id names an interface of this machine; leave it out")
        try:
            return IPv6Address(host[1:-1])
        except ValueError as error:
            raise BadUrlError(f"url: the host in brackets is not an IPv6 address: {error}") from None
    if not _NAME.fullmatch(host) or len(host) > 254:
        raise BadUrlError(
            "url: the host is not a name of letters, digits, '-', '_' and '.'; write it as xn--…"
        )
    # inet_aton() takes 0x7f.1, 0177.0.0.1 and 2130706433 for 127.0.0.1: what a checker reads and what the
    # kernel connects to must not differ, so whatever ends in a number is a plain dotted quad or nothing.
    if not _NUMERIC_LABEL.fullmatch(host.rstrip(".").rpartition(".")[2]):
        return None
    try:
        return IPv4Address(host)
    except ValueError:
        raise BadUrlError("url: an IPv4 host must be four plain decimal numbers, like 192.0.2.1") from None
