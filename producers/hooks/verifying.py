"""How senders prove that a delivery is theirs. Each compares in constant time, under any of several secrets."""

from __future__ import annotations

import base64
import binascii
import hmac
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network
from typing import Final, Literal
from urllib.parse import parse_qs, urlsplit

from producers.hooks.hook import Delivery, Options, Verifier
from schemas.problem import Problem

Algorithm = Literal["sha1", "sha256", "sha512"]
Encoding = Literal["hex", "base64"]
TOLERANCE_S: Final = 300
"""How old a signed timestamp may be, and how far ahead, as Stripe and Standard Webhooks say."""


def digest(secret: bytes, message: bytes, algorithm: Algorithm = "sha256", encoding: Encoding = "hex") -> str:
    """The HMAC of a message, as its sender writes it."""
    raw = hmac.new(secret, message, algorithm).digest()
    return raw.hex() if encoding == "hex" else base64.b64encode(raw).decode()


def same(expected: str, given: str) -> bool:
    """Whether two texts are the same, in a time that tells nothing of where they differ."""
    return hmac.compare_digest(expected.encode(), given.encode("utf-8", "replace"))


def any_same(expected: Sequence[str], given: Sequence[str]) -> bool:
    """Whether any of the given is any of the expected; every pair is compared, whatever the first ones say."""
    found = [same(one, other) for one in expected for other in given]
    return any(found)


def stale(timestamp: str, now: datetime, tolerance_s: int = TOLERANCE_S, per_second: int = 1) -> str | None:
    """None if unix time ``timestamp`` is within the tolerance, else why it is refused."""
    if not (timestamp.isascii() and timestamp.isdigit() and len(timestamp) <= 15):
        return "the signed timestamp is no unix time"
    age_s = now.timestamp() - int(timestamp) / per_second
    if abs(age_s) <= tolerance_s:
        return None
    told = f"{age_s:.0f} s old" if age_s > 0 else f"{-age_s:.0f} s ahead"
    return f"the signed timestamp is {told}, and {tolerance_s} s are allowed"


@dataclass(frozen=True, slots=True)
class Hmac:
    """An HMAC of the raw body in a header."""

    header: str
    algorithm: Algorithm = "sha256"
    encoding: Encoding = "hex"
    prefix: str = ""

    def verify(self, delivery: Delivery, secrets: Sequence[str]) -> str | None:
        given = delivery.header(self.header)
        if not given:
            return f"there is no {self.header} header"
        if not given.startswith(self.prefix):
            return f"{self.header} does not begin with {self.prefix}"
        signature = given.removeprefix(self.prefix).strip()
        if self.encoding == "hex":
            signature = signature.lower()
        expected = [
            digest(secret.encode(), delivery.body, self.algorithm, self.encoding) for secret in secrets
        ]
        return None if any_same(expected, [signature]) else f"{self.header} does not match the body"


@dataclass(frozen=True, slots=True)
class Timestamped:
    """Stripe's scheme: ``t=UNIX,v1=HEX,v1=HEX``, HMAC-SHA256 of ``t.body``; two v1 while its secret is rotated."""

    header: str
    tolerance_s: int = TOLERANCE_S

    def verify(self, delivery: Delivery, secrets: Sequence[str]) -> str | None:
        given = delivery.header(self.header)
        if not given:
            return f"there is no {self.header} header"
        pairs = [part.strip().partition("=") for part in given.split(",")]
        timestamps = [value for name, _, value in pairs if name == "t"]
        signatures = [value for name, _, value in pairs if name == "v1"]
        if len(timestamps) != 1 or not signatures:
            return f"{self.header} is not of the form t=…,v1=…"
        message = timestamps[0].encode() + b"." + delivery.body
        expected = [digest(secret.encode(), message) for secret in secrets]
        if not any_same(expected, signatures):
            return f"{self.header} does not match the body"
        # Asked last: the age of a timestamp that nobody vouches for says nothing.
        return stale(timestamps[0], delivery.received_at, self.tolerance_s)


@dataclass(frozen=True, slots=True)
class StandardWebhooks:
    """https://www.standardwebhooks.com: HMAC-SHA256 of ``id.timestamp.body``; several signatures, space separated.

    Svix sends the same headers under names of its own. Signatures of version ``v1a`` (ed25519) are passed over.
    """

    prefixes: tuple[str, ...] = ("webhook", "svix")
    tolerance_s: int = TOLERANCE_S

    def verify(self, delivery: Delivery, secrets: Sequence[str]) -> str | None:
        prefix = next((name for name in self.prefixes if delivery.header(f"{name}-signature")), None)
        if prefix is None:
            return f"there is no {self.prefixes[0]}-signature header"
        id_, timestamp = delivery.header(f"{prefix}-id"), delivery.header(f"{prefix}-timestamp")
        if not id_ or not timestamp:
            return f"there is no {prefix}-id or {prefix}-timestamp header"
        versions = [part.partition(",") for part in (delivery.header(f"{prefix}-signature") or "").split()]
        signatures = [value for version, _, value in versions if version == "v1"]
        if not signatures:
            return "it carries no signature of version v1, the only one that is read (v1a, ed25519, is not)"
        message = f"{id_}.{timestamp}.".encode() + delivery.body
        expected = [digest(key, message, encoding="base64") for key in map(standard_key, secrets) if key]
        if not expected:
            return "the secret is no base64, with or without whsec_ before it"
        if not any_same(expected, signatures):
            return f"{prefix}-signature does not match the body"
        return stale(timestamp, delivery.received_at, self.tolerance_s)


def standard_key(secret: str) -> bytes | None:
    """The key of a Standard Webhooks secret: base64 after ``whsec_``. None if it is not."""
    try:
        return base64.b64decode(secret.removeprefix("whsec_"), validate=True)
    except (binascii.Error, ValueError):
        return None


@dataclass(frozen=True, slots=True)
class Basic:
    """Basic authentication (RFC 7617); the secret is ``user:password``."""

    def verify(self, delivery: Delivery, secrets: Sequence[str]) -> str | None:
        scheme, _, given = (delivery.header("authorization") or "").partition(" ")
        if scheme.lower() != "basic":
            return "there are no Basic credentials"
        expected = [base64.b64encode(secret.encode()).decode() for secret in secrets]
        return None if any_same(expected, [given.strip()]) else "the Basic credentials are wrong"


@dataclass(frozen=True, slots=True)
class HeaderValue:
    """A header whose value is the secret, after ``prefix`` (such as ``Bearer``) if there is one."""

    header: str
    prefix: str = ""

    def verify(self, delivery: Delivery, secrets: Sequence[str]) -> str | None:
        given = delivery.header(self.header)
        if not given:
            return f"there is no {self.header} header"
        expected = [f"{self.prefix}{secret}" for secret in secrets]
        return None if any_same(expected, [given.strip()]) else f"{self.header} is not what is expected"


@dataclass(frozen=True, slots=True)
class AllowList:
    """The networks a sender's requests come from, where that is all it proves itself by."""

    networks: tuple[IPv4Network | IPv6Network, ...]

    def verify(self, delivery: Delivery, secrets: Sequence[str]) -> str | None:
        try:
            peer = ip_address(delivery.peer or "")
        except ValueError:
            return "it does not come from an address"
        if any(peer in network for network in self.networks):
            return None
        return f"{peer} is not in the source's allow list"


@dataclass(frozen=True, slots=True)
class Both:
    """Two proofs, each of which must hold."""

    first: Verifier
    second: Verifier

    def verify(self, delivery: Delivery, secrets: Sequence[str]) -> str | None:
        return self.first.verify(delivery, secrets) or self.second.verify(delivery, secrets)


def networks_of(options: Options, key: str = "allow") -> tuple[IPv4Network | IPv6Network, ...]:
    """The networks of an option such as ``allow = ["203.0.113.0/24", "2001:db8::1"]``, those that are in order."""
    found = []
    for each in options.texts(key):
        try:
            found.append(ip_network(each))
        except ValueError:
            continue
    return tuple(found)


def check_networks(options: Options, key: str = "allow", *, needed: bool = False) -> list[Problem]:
    """What is wrong with the networks of an option."""
    remedy = f'Write it like {key} = ["203.0.113.0/24"]'
    given = options.values.get(key)
    if given is None:
        reason = "is missing: without it nobody could tell whose deliveries they are"
        return [Problem("no_networks", key, reason, remedy)] if needed else []
    if not isinstance(given, list) or not given or len(networks_of(options, key)) != len(given):
        return [Problem("networks", key, "is no list of addresses and networks", remedy)]
    return []


@dataclass(frozen=True, slots=True)
class HubSpotV3:
    """Base64 HMAC-SHA256 of method, URI, body and timestamp (milliseconds), within 5 minutes.

    https://developers.hubspot.com/docs/apps/developer-platform/build-apps/authentication/request-validation: of the
    URI's percent-encodings these twelve are decoded before it is signed, and no others.
    """

    decoded: tuple[str, ...] = (":", "/", "?", "@", "!", "$", "'", "(", ")", "*", ",", ";")

    def verify(self, delivery: Delivery, secrets: Sequence[str]) -> str | None:
        given = delivery.header("x-hubspot-signature-v3")
        timestamp = delivery.header("x-hubspot-request-timestamp")
        if not given or not timestamp:
            return "there is no x-hubspot-signature-v3 or x-hubspot-request-timestamp header"
        uri = delivery.url
        for character in self.decoded:
            code = f"%{ord(character):02X}"
            uri = uri.replace(code, character).replace(code.lower(), character)
        message = f"{delivery.method}{uri}".encode() + delivery.body + timestamp.encode()
        expected = [digest(secret.encode(), message, encoding="base64") for secret in secrets]
        if not any_same(expected, [given.strip()]):
            return (
                "x-hubspot-signature-v3 does not match the request; it covers the address that HubSpot called, "
                f"which is {delivery.url.partition('?')[0]} here"
            )
        return stale(timestamp, delivery.received_at, per_second=1000)


@dataclass(frozen=True, slots=True)
class SegmentSignature:
    """Hexadecimal HMAC-SHA1 of the body in ``X-Signature``.

    https://segment.com/docs/connections/destinations/catalog/webhooks/: of a batch only the first event is signed, so
    a list of several is refused: nobody vouches for the others.
    """

    def verify(self, delivery: Delivery, secrets: Sequence[str]) -> str | None:
        body = delivery.body.strip()
        if not body.startswith(b"["):
            return Hmac("x-signature", "sha1").verify(delivery, secrets)
        first = _only(body)
        if first is None:
            return "it is a batch, of which Segment signs the first event only: set the batch size to 1"
        return Hmac("x-signature", "sha1").verify(replace(delivery, body=first), secrets)


def _only(body: bytes) -> bytes | None:
    """The one element of a JSON list as it was written, or None where there is not exactly one."""
    inner = body.decode("utf-8", "replace")[1:].lstrip()
    try:
        _, end = json.JSONDecoder().raw_decode(inner)
    except (ValueError, RecursionError):
        return None
    return inner[:end].encode() if inner[end:].strip() == "]" else None


@dataclass(frozen=True, slots=True)
class KeyInUrl:
    """For senders that sign nothing: the secret as a parameter of the URL they call, an allow-list, or better both."""

    parameter: str = "key"
    networks: tuple[IPv4Network | IPv6Network, ...] = ()

    def verify(self, delivery: Delivery, secrets: Sequence[str]) -> str | None:
        if not secrets and not self.networks:
            return "the source has neither a secret nor an allow list to know its sender by"
        given = parse_qs(urlsplit(delivery.url).query).get(self.parameter, [])
        if secrets and not any_same(secrets, given):
            return f"the URL's parameter {self.parameter} is {'wrong' if given else 'missing'}"
        return AllowList(self.networks).verify(delivery, secrets) if self.networks else None
