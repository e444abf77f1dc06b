"""Every hook there is, by its slug."""

from __future__ import annotations

from producers.hooks import (
    adjust,
    appsflyer,
    branch,
    chargebee,
    generic,
    hubspot,
    revenuecat,
    salesforce,
    segment,
    shopify,
    standard_webhooks,
    stripe,
    woocommerce,
)
from producers.hooks.hook import Hook

_ALL: tuple[Hook, ...] = (
    adjust.HOOK,
    appsflyer.HOOK,
    branch.HOOK,
    branch.HOOK_GET,
    chargebee.HOOK,
    generic.HOOK,
    hubspot.HOOK,
    revenuecat.HOOK,
    salesforce.HOOK,
    segment.HOOK,
    shopify.HOOK,
    standard_webhooks.HOOK,
    stripe.HOOK,
    woocommerce.HOOK,
)

HOOKS: dict[str, Hook] = {hook.slug: hook for hook in _ALL}
