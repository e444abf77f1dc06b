"""Evidence of every kind there is, for those who hand it over: what was answered, refused, cut, masked or never sent."""

from __future__ import annotations

import gzip
from dataclasses import replace
from datetime import timedelta
from hashlib import sha256
from typing import Any

from sqlalchemy import Engine, text

from schemas.exchange import Failure, FailureKind, Hop
from schemas.lifecycle import State
from schemas.verdict import VerdictKind
from tests.integration.hostile import HOSTILE, HOSTILE_BYTES
from tests.integration.scenes import TIMED_OUT, TOKEN, Scene, contract, conversion, hop

SECRET = "[secret:9f86d081]"
HTML = b"HTTP/1.1 200 OK\r\nContent-Type: text/html; charset=utf-8\r\n"


def answered(body: bytes, head: bytes = HTML, **fields: Any) -> Hop:
    """A hop with this body."""
    return hop(
        body=body, body_length=len(body), body_sha256=sha256(body).hexdigest(), response_head=head, **fields
    )


def hung_with(hostile: str) -> Hop:
    """A hop whose answer says something hostile wherever an answer can say something."""
    said = hostile.encode("utf-8", "surrogatepass")
    one_line = said.replace(b"\r", b" ").replace(b"\n", b" ").replace(b"\0", b" ")[:4000]
    head = b"HTTP/1.1 200 " + one_line + b"\r\nContent-Type: text/html\r\nX-Said: " + one_line + b"\r\n"
    return answered(said, head, body_error=f"ClientPayloadError: {hostile[:200]}".replace("\0", " "))


def set_out(engine: Engine) -> Scene:
    """A database with one conversion a kind, at two destinations of one network and one of another."""
    scene = Scene(engine)
    scene.apply(contract("push-eu"), contract("twice-us", dedupe="counted_twice"))
    for kind, (hops, how) in _EXHIBITS.items():
        scene.take(conversion(kind, "push"))
        fired = scene.fire_one(kind)
        scene.settle(fired, hops=hops, **how)
    scene.take(conversion("again", "push"))
    first = scene.fire_one("again")
    scene.settle(
        first,
        State.RETRYING,
        VerdictKind.RETRY,
        "status 503",
        [answered(b"busy", b"HTTP/1.1 503 Service Unavailable\r\n", status_code=503)],
        next_attempt_at=first.gated.now + timedelta(seconds=5),
        delay_s=5.25,
    )
    scene.make_due(first.gated.postback_id)
    scene.settle(scene.fire_one("again"))
    scene.take(conversion("lost", "push"))
    scene.fire_one("lost", lease_s=0)
    scene.lose()
    scene.take(conversion("elsewhere", "twice"))
    scene.settle(scene.fire_one("elsewhere"))
    return scene


def set_traps(scene: Scene) -> list[str]:
    """One conversion for each hostile answer there is; returns their event ids."""
    scene.apply(contract("push-eu"))
    ids = []
    exhibits = [hung_with(text) for text in HOSTILE.values()]
    exhibits += [answered(raw) for raw in HOSTILE_BYTES.values()]
    for number, exhibit in enumerate(exhibits):
        event_id = f"trap-{number}"
        scene.take(conversion(event_id, "push"))
        scene.settle(scene.fire_one(event_id), hops=[exhibit])
        ids.append(event_id)
    return ids


Exhibit = tuple[list[Hop], dict[str, Any]]
"""The hops of one attempt, and how it was settled where that is not as delivered."""


def _exhibits() -> dict[str, Exhibit]:
    zipped = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Encoding: gzip\r\n"
    whole = b"x" * 20_000
    nobody = Failure(FailureKind.DNS, sent=False, error_class="DnsError", message="no such name")
    unsent = {"request_head": b"", "peer": None, "local": None, "connect_ms": None}
    return {
        "plain": ([hop()], {}),
        "redirected": (_redirected(), {}),
        "zipped": ([answered(gzip.compress(b'{"ok":true}' * 50, mtime=0), zipped)], {}),
        "binary": ([answered(bytes(range(256)), b"HTTP/1.1 200 OK\r\nContent-Type: image/gif\r\n")], {}),
        "truncated": ([replace(answered(whole), body=whole[:16_384], truncated=True)], {}),
        "masked": ([_masked()], {}),
        "posted": ([_posted()], {}),
        "nameless": (
            [_unanswered(nobody, **unsent)],
            {"state": State.DEAD, "verdict": VerdictKind.RETRY, "rule": "dns"},
        ),
        "silent": (
            [_unanswered(TIMED_OUT)],
            {
                "state": State.IN_DOUBT,
                "verdict": VerdictKind.UNKNOWN,
                "rule": "timeout after the request was sent",
            },
        ),
        "refused": (
            [answered(b"no", b"HTTP/1.1 403 Forbidden\r\nContent-Type: text/plain\r\n", status_code=403)],
            {"state": State.REJECTED, "verdict": VerdictKind.REJECTED, "rule": "status 403"},
        ),
        "empty": ([answered(b"", b"HTTP/1.1 204 No Content\r\n", status_code=204)], {}),
    }


def _unanswered(failure: Failure, **fields: Any) -> Hop:
    silent = hop(
        status_code=None,
        response_head=b"",
        body=b"",
        body_length=0,
        body_sha256=None,
        first_byte_ms=None,
        total_ms=10_001.5,
        failure=failure,
    )
    return replace(silent, **fields)


def _redirected() -> list[Hop]:
    away = answered(b"", b"HTTP/1.1 302 Found\r\nLocation: https://b.example.com/x?y=1\r\n", status_code=302)
    there = hop(
        2,
        url="https://b.example.com/x?y=1",
        request_head=b"GET /x?y=1 HTTP/1.1\r\nHost: b.example.com\r\n",
        peer="[2001:db8::1]:8443",
        local="[2001:db8::2]:50000",
        reused=True,
        dns_ms=None,
        connect_ms=None,
        first_byte_ms=3.5,
        total_ms=4.25,
    )
    return [away, there]


def _masked() -> Hop:
    head = (
        f"GET /p/{SECRET}?click={TOKEN} HTTP/1.1\r\nHost: push-eu.example.com\r\n"
        f"Authorization: Bearer {SECRET}\r\n"
    )
    return hop(url=f"https://push-eu.example.com/p/{SECRET}?click={TOKEN}", request_head=head.encode())


def _posted() -> Hop:
    body = b"click=" + TOKEN.encode() + b"&name=M%C3%BCller&empty="
    head = (
        b"POST /p HTTP/1.1\r\nHost: push-eu.example.com\r\nContent-Type: application/x-www-form-urlencoded\r\n"
        b"Cookie: a=1; b=2\r\nContent-Length: " + str(len(body)).encode() + b"\r\n"
    )
    return hop(method="POST", url="https://push-eu.example.com/p", request_head=head, request_body=body)


_EXHIBITS = _exhibits()
KINDS = tuple(_EXHIBITS)


def many(engine: Engine, count: int, body: bytes) -> list[int]:
    """Copies of the plain conversion with its attempt, each answered with ``body``; returns their ids.

    Written straight into the tables: what is measured is reading.
    """
    first = 1_000_000
    with engine.begin() as connection:
        connection.execute(text("SET LOCAL session_replication_role = replica"))
        query = text("""
            SELECT c.id AS conversions, p.id AS postbacks, a.id AS attempts FROM conversions c
            JOIN postbacks p ON p.conversion_id = c.id JOIN attempts a ON a.postback_id = p.id
            WHERE c.event_id = 'plain'""")
        plain = connection.execute(query).one()
        name = f"to_jsonb('many-' || ({first} + g))"
        event = f"jsonb_set(jsonb_set(t.event::jsonb, '{{event_id}}', {name}), '{{order_id}}', {name})"
        number = f"{first} + g"
        other = {
            "conversions": {"id": number, "event_id": f"'many-' || ({number})", "event": event},
            "postbacks": {
                "id": number,
                "conversion_id": number,
                "attempt_id": number,
                "dedupe_key": "decode(md5(g::text), 'hex')",
            },
            "attempts": {"id": number, "postback_id": number},
            "hops": {"attempt_id": number, "body": ":body", "body_length": str(len(body))},
        }
        for table, values in other.items():
            columns = connection.execute(
                text(
                    "SELECT column_name FROM information_schema.columns WHERE table_name = :table AND is_generated = 'NEVER'"
                ),
                {"table": table},
            ).scalars()
            named = {column: values.get(column, f"t.{column}") for column in columns}
            key = "attempt_id" if table == "hops" else "id"
            copied = f"""
                INSERT INTO {table} ({", ".join(named)}) OVERRIDING SYSTEM VALUE
                SELECT {", ".join(named.values())} FROM {table} t, generate_series(1, {count}) g
                WHERE t.{key} = {plain.attempts if table == "hops" else getattr(plain, table)}"""
            connection.execute(text(copied), {"body": body} if table == "hops" else {})
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(text("ANALYZE"))
    return list(range(first + 1, first + count + 1))
