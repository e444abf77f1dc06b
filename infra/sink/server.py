"""The sink: a loopback HTTP/1.1 server that plays ad networks, well or badly, and is the witness.

It shares nothing with the code that fires postbacks, so that what it saw can be held against what that
code says it did. One ``asyncio.Protocol`` per connection keeps a request cheap.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Self

from infra.sink import admin
from infra.sink.answers import Answer, Script, status_of
from infra.sink.connection import PLAIN_OK, Connection
from infra.sink.deciding import Arrival, Decision, arrive, decide, judge, refusal, unreached
from infra.sink.errors import SinkConfigError, require_table
from infra.sink.gate import Gate, Hold, Waiting
from infra.sink.judgement import Judgement
from infra.sink.judging import require_strings
from infra.sink.ledger import Book
from infra.sink.plan import Plan, Sighting
from infra.sink.ports import bind, refusing_socket, resetting_server
from infra.sink.profiles import PROFILES
from infra.sink.record import Entry, Record
from infra.sink.wire import MalformedRequestError, Request

FLUSH_AFTER_S = 0.05
"""How long a recorded request may wait before a reader of the record file sees it."""
_ANSWER_KEPT_BYTES = 2048


class Sink:
    """A sink inside the running event loop: ``async with Sink() as sink: … sink.url``.

    ``config`` is ``{"profiles": {name: settings}, "rules": [rule, …]}``. ``plain`` answers 200 OK to
    everything and only counts requests; ``recording=False`` keeps counts and credits but no requests.
    ``tls`` names a certificate and a key file. ``on_entry`` is called with each entry of the record.
    """

    def __init__(  # noqa: PLR0913 — keyword options of one object, each with a default
        self,
        *,
        host: str = "127.0.0.1",
        port: int = 0,
        record: Path | None = None,
        recording: bool = True,
        plain: bool = False,
        config: Mapping[str, Any] | None = None,
        tls: tuple[Path, Path] | None = None,
        tls_port: int = 0,
        on_entry: Callable[[Entry], None] | None = None,
    ) -> None:
        self.host, self.port, self.tls_port = host, port, tls_port
        self.refused_port = self.reset_port = 0
        self.plain = plain
        self.requests = self.malformed = self.connections = self.connections_reset = 0
        self.gate = Gate()
        self.books = {name: Book() for name in PROFILES}
        self._settings = {name: profile.settings for name, profile in PROFILES.items()}
        self._plan = Plan()
        self._recording, self._on_entry, self._tls = recording, on_entry, tls
        self._servers: list[asyncio.Server] = []
        self._open: set[Connection] = set()
        self._refusing: socket.socket | None = None
        self.configure(config or {})
        self.record = Record(record)

    # Settings ------------------------------------------------------------------------------------

    def configure(self, config: Mapping[str, Any]) -> None:
        """Apply settings and, if rules are given, replace the plan. Raises SinkConfigError, changing nothing."""
        table = require_table("config", config, ("profiles", "rules"))
        profiles = require_table("profiles", table.get("profiles", {}), tuple(PROFILES))
        updated = {name: self._settings[name].updated(name, changes) for name, changes in profiles.items()}
        issued = {
            name: require_strings(f"profiles.{name}.issued", changes["issued"])
            for name, changes in profiles.items()
            if "issued" in changes
        }
        plan = Plan(table["rules"]) if "rules" in table else self._plan
        self._plan = plan
        self._settings.update(updated)
        for name, click_ids in issued.items():
            self.books[name].issued.add(click_ids)

    def issue(self, profile: str, click_ids: Iterable[str]) -> None:
        """Give out click ids at a network: from then on it knows only those that were given out."""
        self.configure({"profiles": {profile: {"issued": list(click_ids)}}})

    def forget(self) -> None:
        """Count anew: counts, credits, requests, plan and gate go; settings and issued click ids stay."""
        self.gate.release()
        self._plan = Plan()
        self.record.clear()
        self.requests = self.malformed = self.connections_reset = 0
        for book in self.books.values():
            book.clear()

    # Life ----------------------------------------------------------------------------------------

    @property
    def url(self) -> str:
        """Where the sink listens, without a trailing slash."""
        return f"http://{_bracketed(self.host)}:{self.port}"

    @property
    def tls_url(self) -> str | None:
        """Where it listens with TLS, or None."""
        return f"https://{_bracketed(self.host)}:{self.tls_port}" if self._tls else None

    async def __aenter__(self) -> Self:
        try:
            self.port = await self._listen(self.port, None)
            if self._tls:
                self.tls_port = await self._listen(self.tls_port, _tls_context(*self._tls))
            self._refusing, self.refused_port = refusing_socket(self.host)
            server, self.reset_port = await resetting_server(self.host)
            self._servers.append(server)
        except BaseException:
            await self.close()
            raise
        return self

    async def __aexit__(self, *exception: object) -> None:
        await self.close()

    async def _listen(self, port: int, context: ssl.SSLContext | None) -> int:
        bound = bind(self.host, port)
        server = await asyncio.get_running_loop().create_server(
            lambda: self._new_connection(context is not None), sock=bound, ssl=context, backlog=1024
        )
        self._servers.append(server)
        return int(bound.getsockname()[1])

    def _new_connection(self, is_tls: bool) -> Connection:
        self.connections += 1
        return Connection(self, self.connections, is_tls=is_tls)

    async def close(self) -> None:
        """Stop listening, drop every connection, close the record file."""
        for server in self._servers:
            server.close()
        for connection in list(self._open):
            connection.abort()
        if self._refusing:
            self._refusing.close()
        # One turn of the loop lets the aborted transports say goodbye to their protocols.
        await asyncio.sleep(0)
        self.record.close()

    def connected(self, connection: Connection) -> bool:
        """Note a connection. False when the plan has it reset unread."""
        self._open.add(connection)
        if not self._plan.resets_connection():
            return True
        self.connections_reset += 1
        return False

    def disconnected(self, connection: Connection) -> None:
        """Note that a connection has ended."""
        self._open.discard(connection)

    # Requests ------------------------------------------------------------------------------------

    def receive(self, request: Request, connection: Connection, on_connection: int) -> Script | Waiting:
        """Decide on one request: count it, record it, and say what is sent, or that it waits."""
        if request.target.startswith("/_sink/"):
            answer = admin.answer(self, request)
            return (answer.render(keep_alive=request.keeps_alive, head_only=request.method == "HEAD"),)
        if self.plain:
            self.requests += 1
            return (PLAIN_OK,)
        try:
            arrival = arrive(
                request, host_url=self.url, plain_url=self.url, is_tls=connection.is_tls, now=time.time()
            )
        except SinkConfigError as error:
            return (refusal(error, 404).render(keep_alive=request.keeps_alive),)
        self.requests += 1
        if self._plan or self.gate.is_holding:
            _, found = judge(arrival, self.books[arrival.profile.name], self._settings[arrival.profile.name])
            seen = Sighting(arrival.profile.name, found.click_id, found.order_id, arrival.inner.path)
            if arrival.chosen is None and (planned := self._plan.choose(seen)):
                arrival = replace(arrival, chosen=planned[0], counts=planned[1])
            if hold := self.gate.takes(seen):
                return self._hold(arrival, seen, hold, found, (connection, on_connection))
        decision = self._settle(arrival)
        if self._recording:
            self._keep(self._entry(arrival, decision, connection, on_connection))
        return decision.script

    def _settle(self, arrival: Arrival) -> Decision:
        name = arrival.profile.name
        decision = decide(arrival, self.books[name], self._settings[name])
        self.books[name].enter(decision.judgement, arrival.received_at, reached=decision.reached)
        return decision

    def _hold(
        self, arrival: Arrival, seen: Sighting, hold: Hold, found: Judgement, place: tuple[Connection, int]
    ) -> Waiting:
        undecided = Decision((), unreached(found, "held"), False)
        decision = self._settle(arrival) if hold.counts else undecided
        entry = self._entry(arrival, decision, *place)
        entry.held = True

        def finish(connected: bool) -> Script:
            final = decision
            if decision is undecided:
                if connected:
                    final = self._settle(arrival)
                else:
                    final = Decision((), unreached(found, "gone-before-answer"), False)
                    self.books[seen.profile].enter(final.judgement, time.time(), reached=False)
            entry.judgement, entry.status_code = final.judgement, status_of(final.script)
            entry.held, entry.released_at = False, time.time()
            if self._recording and self.record.add_release(entry):
                self._flush_soon()
            return final.script

        waiting = Waiting(entry.number, seen, finish)
        self.gate.admit(waiting)
        if self._recording:
            self._keep(entry)
        return waiting

    def malformed_request(
        self, error: MalformedRequestError, connection: Connection, on_connection: int
    ) -> Script:
        """Record bytes that are no request, and refuse them."""
        self.requests += 1
        self.malformed += 1
        refused = Answer(error.status_code, error.reason.encode()).render(keep_alive=False)
        if self._recording:
            entry = Entry(
                number=self.requests,
                received_at=time.time(),
                peer=connection.peer,
                connection=connection.number,
                on_connection=on_connection,
                raw=error.raw,
                profile="",
                behaviour="",
                status_code=error.status_code,
                answer=refused,
                judgement=Judgement(False, "malformed-request", detail=error.reason),
            )
            self._keep(entry)
        return (refused,)

    # The record ----------------------------------------------------------------------------------

    def _entry(
        self, arrival: Arrival, decision: Decision, connection: Connection, on_connection: int
    ) -> Entry:
        sent = next((step for step in decision.script if isinstance(step, bytes)), b"")
        return Entry(
            number=self.requests,
            received_at=arrival.received_at,
            peer=connection.peer,
            connection=connection.number,
            on_connection=on_connection,
            raw=arrival.request.raw,
            profile=arrival.profile.name,
            behaviour=arrival.chosen.name if arrival.chosen else "",
            status_code=status_of(decision.script),
            answer=sent[:_ANSWER_KEPT_BYTES],
            judgement=decision.judgement,
        )

    def _keep(self, entry: Entry) -> None:
        if self.record.add(entry):
            self._flush_soon()
        if self._on_entry:
            self._on_entry(entry)

    def _flush_soon(self) -> None:
        asyncio.get_running_loop().call_later(FLUSH_AFTER_S, self.record.flush)


def _bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host else host


def _tls_context(certificate: Path, key: Path) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    try:
        context.load_cert_chain(certificate, key)
    except (OSError, ssl.SSLError) as error:
        remedy = "Give a PEM certificate and its unencrypted PEM key."
        raise SinkConfigError("tls", f"{certificate} and {key} cannot be used ({error})", remedy) from error
    return context
