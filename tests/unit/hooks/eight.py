"""What the tests of one sender share: a delivery of a fixture, and what the door's own pipeline makes of it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from producers.hooks.hook import Delivery, Options
from producers.hooks.meaning import KEYS
from producers.hooks.pipeline import Understood, understand
from producers.hooks.registry import HOOKS
from producers.hooks.sources import Opened

FIXTURES = Path(__file__).parents[2] / "fixtures" / "hooks"
NOW = datetime(2026, 11, 22, 10, tzinfo=UTC)


def fixture(name: str) -> bytes:
    return (FIXTURES / name).read_bytes()


def changed(name: str, /, **values: Any) -> bytes:
    """A JSON fixture with values set at dotted paths, whose points are written ``__``."""
    body = json.loads(fixture(name))
    for path, value in values.items():
        *way, last = path.split("__")
        place = body
        for step in way:
            place = place[int(step) if isinstance(place, list) else step]
        place[int(last) if isinstance(place, list) else last] = value
    return json.dumps(body).encode()


def delivery(
    body: bytes = b"",
    *,
    url: str = "https://door.example.com/hooks/it",
    method: str = "POST",
    headers: Mapping[str, str] | None = None,
    peer: str | None = None,
    now: datetime = NOW,
) -> Delivery:
    return Delivery(method, url, dict(headers or {}), body, now, peer)


def taken(slug: str, body: bytes | Delivery, **options: Any) -> Understood:
    """What the door makes of a delivery to a source with these options; its events are valid, as it reads them."""
    hook = HOOKS[slug]
    checked = list(hook.check(Options("it", options)))
    assert checked == [], checked
    sent = delivery(body) if isinstance(body, bytes) else body
    return understand(Opened("it", hook, Options("it", options)), sent, NOW)


def events(slug: str, body: bytes | Delivery, **options: Any) -> list[dict[str, Any]]:
    """The events of a delivery that has nothing wrong, without what every event has and the keys to the register."""
    understood = taken(slug, body, **options)
    assert understood.refused == []
    read = [json.loads(candidate.body) for candidate in understood.candidates]
    assert all(event.pop("version") == 1 and event.pop("source") == "it" for event in read)
    return [{key: value for key, value in event.items() if value != {} and key not in KEYS} for event in read]


def event(slug: str, body: bytes | Delivery, **options: Any) -> dict[str, Any]:
    """The one event of a delivery."""
    (one,) = events(slug, body, **options)
    return one


def refusals(slug: str, body: bytes | Delivery, **options: Any) -> list[str]:
    """What is wrong with a delivery, in words."""
    return [str(problem) for refused in taken(slug, body, **options).refused for problem in refused.problems]


def verified(slug: str, sent: Delivery, *secrets: str, **options: Any) -> str | None:
    """None if the delivery is genuine, else why it is not."""
    return HOOKS[slug].verifier_of(Options("it", options)).verify(sent, secrets)
