"""Any sender that signs by Standard Webhooks, as Svix does: https://www.standardwebhooks.com

Its payload is our event envelope, alone or as ``data``, unless rules say what to make of it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from producers.hooks.checking_rules import check_rules
from producers.hooks.fields import at
from producers.hooks.hook import Delivery, Hook, Mapped, MappingError, Options
from producers.hooks.rules import OPTIONS, apply_rules, found_text, rules_of
from producers.hooks.verifying import StandardWebhooks
from schemas.problem import Problem


def _map(payload: Any, delivery: Delivery, options: Options) -> Mapped:
    if rules_of(options):
        return apply_rules(payload, delivery, options)
    for found in (payload, at(payload, "data")):
        if isinstance(found, Mapping) and "version" in found and "event_id" in found:
            if found["version"] != 1:
                raise MappingError("version", f"is {found['version']!r}", "Send version 1")
            return Mapped([dict(found)])
    raise MappingError("body", "is no event, and no rule says what to make of it", "Add map or rules")


def _dedupe(payload: Any, delivery: Delivery, options: Options) -> str | None:
    if "dedupe" in options.values:
        return found_text(options.text("dedupe", "id"), payload, "dedupe")
    return delivery.header("webhook-id") or delivery.header("svix-id")


def _check(options: Options) -> Sequence[Problem]:
    return check_rules(options, needed=False)


HOOK = Hook(
    slug="standard-webhooks",
    title="Standard Webhooks",
    docs="https://www.standardwebhooks.com",
    payload="json",
    verifier=StandardWebhooks(),
    map=_map,
    dedupe=lambda _, delivery: delivery.header("webhook-id") or delivery.header("svix-id"),
    dedupe_by=_dedupe,
    options=OPTIONS,
    check=_check,
)
