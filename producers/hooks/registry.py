"""Every hook there is, by its slug."""

from __future__ import annotations

from producers.hooks import generic, shopify, standard_webhooks, stripe, woocommerce
from producers.hooks.hook import Hook

_ALL: tuple[Hook, ...] = (
    generic.HOOK,
    shopify.HOOK,
    standard_webhooks.HOOK,
    stripe.HOOK,
    woocommerce.HOOK,
)

HOOKS: dict[str, Hook] = {hook.slug: hook for hook in _ALL}
