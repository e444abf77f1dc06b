"""Hooks: what shops, CRMs, payment providers and app trackers send, one pure mapper file each."""
