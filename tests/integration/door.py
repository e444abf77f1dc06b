"""A door for tests: the real application behind a real server and socket, in a thread of the test's own process."""

from __future__ import annotations

from types import TracebackType
from typing import Any, Self

import httpx
import orjson

from producers.door.app import Door
from producers.door.callers import Anyone, Gatekeeper
from tests.integration.served import Served

Content = bytes | str | list[Any] | dict[str, Any]


class DoorThread:
    """``with DoorThread(database_url, broker_url) as door: door.client.post("/v1/events", json=event)``.

    Lets everyone in unless a gatekeeper is given; further options go to ``Door``. Ends as the real one does: what waits
    is committed and sent first. A broker that is away is ``NO_BROKER``.
    """

    def __init__(
        self, database_url: str, broker_url: str, gatekeeper: Gatekeeper | None = None, **options: Any
    ) -> None:
        self.application = Door(database_url, broker_url, gatekeeper or Anyone(), **options)
        self._served = Served(self.application, "door", graceful_s=10)
        self.url = self._served.url
        self.client = httpx.Client(base_url=self.url, timeout=30, trust_env=False)

    def __enter__(self) -> Self:
        self._served.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """End it, as SIGTERM ends the real one. May be called twice."""
        self.client.close()
        self._served.close()

    def post(self, content: Content, **headers: str) -> httpx.Response:
        """Send events: bytes as they are, anything else as JSON. ``content_encoding="gzip"`` names a header."""
        body = content.encode() if isinstance(content, str) else content
        payload = body if isinstance(body, bytes) else orjson.dumps(body)
        named = {"content-type": "application/json"} | {
            name.replace("_", "-"): value for name, value in headers.items()
        }
        return self.client.post("/v1/events", content=payload, headers=named)


NO_BROKER = "redis://127.0.0.1:9/0"
"""Nothing listens there: a broker that is away."""
