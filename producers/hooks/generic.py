"""Any sender of JSON: an API key, Basic credentials or an HMAC in a header of your choice, and rules for its fields."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, Final, cast

from producers.hooks.attribution import one_of
from producers.hooks.checking_rules import check_rules
from producers.hooks.hook import Delivery, Hook, Options, Verifier
from producers.hooks.rules import OPTIONS, apply_rules, found_text
from producers.hooks.verifying import (
    Algorithm,
    AllowList,
    Basic,
    Both,
    Encoding,
    HeaderValue,
    Hmac,
    check_networks,
    networks_of,
)
from schemas.problem import Problem

_AUTHS: Final = ("api_key", "hmac", "basic")
_HEADERS: Final = {"api_key": "x-api-key", "hmac": "x-signature", "basic": "authorization"}


def _verifier_for(options: Options) -> Verifier:
    auth = options.text("auth", "api_key")
    header = options.text("header", _HEADERS.get(auth, "")).lower()
    prefix = options.text("prefix", "")
    verifier: Verifier
    match auth:
        case "hmac":
            algorithm = cast("Algorithm", options.text("algorithm", "sha256"))
            verifier = Hmac(header, algorithm, cast("Encoding", options.text("encoding", "hex")), prefix)
        case "basic":
            verifier = Basic()
        case _:
            verifier = HeaderValue(header, prefix)
    networks = networks_of(options)
    return Both(AllowList(networks), verifier) if networks else verifier


def _dedupe(payload: Any, _: Delivery, options: Options) -> str | None:
    if "dedupe" not in options.values:
        return None
    return found_text(options.text("dedupe", "id"), payload, "dedupe")


def _check(options: Options) -> Sequence[Problem]:
    problems = [
        *one_of(options, "auth", _AUTHS),
        *one_of(options, "algorithm", ("sha1", "sha256", "sha512")),
        *one_of(options, "encoding", ("hex", "base64")),
        *check_networks(options),
        *check_rules(options, needed=True),
    ]
    header = options.values.get("header", "x-api-key")
    if not isinstance(header, str) or not re.fullmatch(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+", header):
        problems.append(Problem("option", "header", "is no name of a header", 'Write it like "X-Signature"'))
    if not isinstance(options.values.get("prefix", ""), str):
        problems.append(Problem("option", "prefix", "is no text", 'Write it like "sha256="'))
    return problems


HOOK = Hook(
    slug="generic",
    title="Any sender of JSON",
    docs="https://jmespath.org",
    payload="json",
    verifier=HeaderValue("x-api-key"),
    map=apply_rules,
    dedupe=lambda _, __: None,
    dedupe_by=_dedupe,
    options={
        "auth": "how it proves itself: api_key (the default), hmac or basic",
        "header": "the header of the key (X-API-Key) or signature (X-Signature)",
        "prefix": "what stands before the key or signature, such as 'Bearer ' or 'sha256='",
        "algorithm": "of the HMAC: sha256 (the default), sha1 or sha512",
        "encoding": "of the HMAC: hex (the default) or base64",
        "allow": "networks its requests must come from, besides; any if it is not given",
        **OPTIONS,
    },
    verifier_for=_verifier_for,
    check=_check,
)
