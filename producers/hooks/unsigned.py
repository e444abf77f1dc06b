"""What hooks of senders that sign nothing have in common: a key in the URL they call, an allow list, or better both."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from producers.hooks.attribution import text_only
from producers.hooks.hook import Options, Verifier
from producers.hooks.verifying import KeyInUrl, check_networks, networks_of
from schemas.problem import Problem

OPTIONS: Final = {
    "allow": "a list of the addresses or networks that the sender's requests come from",
    "key": "the URL's parameter that carries the secret; key otherwise",
}


def verifier_for(options: Options) -> Verifier:
    return KeyInUrl(options.text("key", "key"), networks_of(options))


def check(options: Options) -> Sequence[Problem]:
    """What is wrong with them."""
    return [*check_networks(options), *text_only(options, "key")]
