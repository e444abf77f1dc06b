"""Every hook there is, by its slug."""

from __future__ import annotations

from producers.hooks.hook import Hook

_ALL: tuple[Hook, ...] = ()

HOOKS: dict[str, Hook] = {hook.slug: hook for hook in _ALL}
