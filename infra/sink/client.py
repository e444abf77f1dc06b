"""A small blocking client for a sink's own endpoints."""

from __future__ import annotations

import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterable, Mapping, Sequence
from decimal import Decimal
from typing import Any

import orjson

from infra.sink.errors import SinkConfigError

POLL_EVERY_S = 0.02


class SinkClient:
    """Talks to the sink at ``url`` (as in ``http://127.0.0.1:8900``)."""

    def __init__(self, url: str, *, timeout_s: float = 10.0) -> None:
        self.url = url.rstrip("/")
        self._timeout_s = timeout_s
        # A proxy from the environment must not stand between a test and its witness.
        self._opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))

    def about(self) -> dict[str, Any]:
        """Addresses, the ports that refuse and reset, profiles and behaviours."""
        return self._ask("about")

    def counts(self) -> dict[str, Any]:
        """Totals and, per profile, what was requested, credited and not."""
        return self._ask("counts")

    def credits(self, profile: str = "") -> list[dict[str, Any]]:
        """Every credited conversion, at one network or at all."""
        query = f"?{urllib.parse.urlencode({'profile': profile})}" if profile else ""
        return list(self._ask(f"credits{query}")["credits"])

    def totals(self, profile: str) -> dict[str, Decimal | None]:
        """By click id, what the network counts it for after every correction; None when it was taken back.

        A conversion that was credited twice counts twice; one without a value is 0.
        """
        found = self._ask(f"totals?{urllib.parse.urlencode({'profile': profile})}")["totals"]
        return {click_id: None if total is None else Decimal(total) for click_id, total in found.items()}

    def report(self, profile: str, zone: str = "UTC", currency: str = "EUR") -> str:
        """What the network counted, as CSV, dated in its own time zone."""
        query = urllib.parse.urlencode({"profile": profile, "zone": zone, "currency": currency})
        return self._get(f"report?{query}").decode()

    def requests(self, since: int = 0, limit: int = 1000) -> list[dict[str, Any]]:
        """Recorded requests numbered above ``since``, oldest first; ``raw`` is Latin-1 text."""
        return list(self._ask(f"requests?since={since}&limit={limit}")["requests"])

    def held(self) -> list[dict[str, Any]]:
        """Requests that wait at the gate."""
        return list(self._ask("held")["held"])

    def plan(self, rules: Sequence[Mapping[str, Any]]) -> None:
        """Replace the plan. Raises SinkConfigError if a rule cannot be used."""
        self._ask("plan", {"rules": list(rules)})

    def settings(self, profiles: Mapping[str, Mapping[str, Any]]) -> None:
        """Change settings: ``{profile: {setting: value}}``. Raises SinkConfigError."""
        self._ask("settings", profiles)

    def issue(self, profile: str, click_ids: Iterable[str]) -> None:
        """Give out click ids at a network: from then on it knows only those that were given out."""
        self.settings({profile: {"issued": list(click_ids)}})

    def hold(
        self, match: Mapping[str, Any] | None = None, *, limit: int | None = None, counts: bool = True
    ) -> None:
        """Receive what matches and answer nothing until it is released."""
        self._ask("hold", {"match": dict(match or {}), "limit": limit, "counts": counts})

    def release(self, click_id: str = "") -> int:
        """Answer those held with ``click_id``, or all, ending every hold. Returns how many were let go."""
        return int(self._ask("release", {"click_id": click_id})["released"])

    def reset(self) -> None:
        """Count anew; settings and issued click ids stay."""
        self._ask("reset", {})

    def wait_for(
        self, condition: Callable[[dict[str, Any]], bool], timeout_s: float = 10.0
    ) -> dict[str, Any]:
        """Poll ``counts()`` until ``condition(counts)`` holds. Raises TimeoutError with the last counts."""
        deadline = time.monotonic() + timeout_s
        while True:
            found = self.counts()
            if condition(found):
                return found
            if time.monotonic() > deadline:
                raise TimeoutError(f"the sink did not get there within {timeout_s:g} s; it counted {found}")
            time.sleep(POLL_EVERY_S)

    def _ask(self, path: str, body: object = None) -> dict[str, Any]:
        data = None if body is None else orjson.dumps(body)
        # S310: the scheme is the caller's own http address of a test server.
        asked = urllib.request.Request(  # noqa: S310 — see above
            f"{self.url}/_sink/{path}", data, {"Content-Type": "application/json"}
        )
        answered: dict[str, Any] = orjson.loads(self._open(asked))
        return answered

    def _get(self, path: str) -> bytes:
        return self._open(urllib.request.Request(f"{self.url}/_sink/{path}"))  # noqa: S310 — as in _ask

    def _open(self, asked: urllib.request.Request) -> bytes:
        try:
            with self._opener.open(asked, timeout=self._timeout_s) as response:
                answered: bytes = response.read()
        except urllib.error.HTTPError as error:
            told = orjson.loads(error.read())
            raise SinkConfigError(told["field"], told["reason"], told["remedy"]) from error
        return answered
