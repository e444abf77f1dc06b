"""Who may use the door: keys made by the command line, held by real callers, rotated, revoked and run out."""

from __future__ import annotations

import gzip
import json
import shlex
import subprocess
import time
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any

import httpx
import orjson
import pytest
from sqlalchemy import Engine
from typer.testing import CliRunner

import holdfire
from infra.db.engine import open_engine
from infra.embedded.use import Engines
from infra.store import keys
from infra.store.keys import Made
from producers.door.gatekeeping import TRUSTED_FOR_S, KeyRing
from producers.door.problems import RefusedError
from producers.door.serving import NotLoopbackError
from schemas.keys import Grant, sign
from tests.integration.door import DoorThread
from tests.integration.ground import Ground, conversion, signal, until

QUICK_S = 0.05
Run = Callable[..., str]


@pytest.fixture(scope="module")
def door(database_url: str, broker_url: str) -> Iterator[DoorThread]:
    """A door that knows keys, and reads them often."""
    with DoorThread(database_url, broker_url, _ring(database_url)) as running:
        yield running


@pytest.fixture
def ground(engine: Engine) -> Ground:
    return Ground(engine)


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, database_url: str) -> Run:
    """``holdfire keys …``; what it prints."""
    monkeypatch.setenv("HOLDFIRE_DATABASE_URL", database_url)

    def command(*arguments: str) -> str:
        result = CliRunner().invoke(holdfire.app, ["keys", *arguments], catch_exceptions=False)
        assert result.exit_code == 0, result.output
        return result.stdout

    return command


def _ring(database_url: str) -> KeyRing:
    return KeyRing(open_engine(database_url, pool_size=1), read_every_s=QUICK_S)


def _bearer(token: str) -> dict[str, str]:
    return {"authorization": f"Bearer {token}"}


def _signed(made: Made, body: bytes, at_s: float | None = None) -> dict[str, str]:
    t = int(time.time() if at_s is None else at_s)
    return {"x_holdfire_signature": f"t={t},key={made.key_id},v1={sign(made.token, t, body)}"}


@pytest.fixture
def make(engine: Engine, door: DoorThread) -> Callable[..., Made]:
    """A key that the door knows already."""

    def made(name: str, **grant: Any) -> Made:
        good_for = grant.pop("good_for", None)
        key = keys.create(engine, Grant(name, **grant), good_for=good_for, who="test")
        _wait_for(door, key)
        return key

    return made


def _wait_for(door: DoorThread, key: Made) -> None:
    ring = door.application._gatekeeper  # the one that ``door`` made
    assert isinstance(ring, KeyRing)
    until(lambda: key.key_id in ring._keys)


def _refused(answer: httpx.Response, code: str) -> bool:
    """Whether the answer is a 401 with that code, challenge and words."""
    problem = answer.json()
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.headers["www-authenticate"].startswith('Bearer realm="holdfire"')
    assert (answer.status_code, problem["status"]) == (401, 401)
    return bool(problem["code"] == code and problem["detail"])


def test_no_key_gets_nowhere(door: DoorThread, ground: Ground) -> None:
    """401 with a challenge, and nothing in the inbox."""
    before = ground.one("SELECT count(*) FROM inbox")
    for headers in ({}, {"authorization": "Basic YTpi"}, {"authorization": "Bearer"}):
        assert _refused(door.post(conversion("nobody"), **headers), "no_credentials")
    assert ground.one("SELECT count(*) FROM inbox") == before


def test_a_wrong_key_gets_nowhere(door: DoorThread, make: Callable[..., Made]) -> None:
    """The right id with another secret, an id that is not there, a part of a key, another text."""
    token = make("wrong").token
    other = token[:-1] + ("0" if token[-1] != "0" else "1")
    for wrong in (other, token.replace(token[3:-64], "999999_"), token[:-1], "é", "x" * 5000):
        assert _refused(door.post(conversion("x"), authorization=f"Bearer {wrong}".encode()), "wrong_key")  # type: ignore[arg-type] # httpx takes bytes too
    assert _refused(door.post(conversion("x"), x_api_key=other), "wrong_key")


def test_a_key_opens_the_door_in_either_header(
    door: DoorThread, make: Callable[..., Made], ground: Ground
) -> None:
    """The inbox tells by which key a request came."""
    made = make("either")
    for headers in (
        _bearer(made.token),
        {"x_api_key": made.token},
        {"authorization": f"bearer  {made.token}"},
    ):
        answer = door.post(conversion("either"), **headers)
        assert answer.status_code == 202
        row = ground.rows(
            "SELECT key_id, headers FROM inbox WHERE id = :id", id=answer.json()["request_id"][3:]
        )[0]
        assert row.key_id == made.key_id


def test_secrets_are_kept_nowhere(
    door: DoorThread, make: Callable[..., Made], ground: Ground, capfd: pytest.CaptureFixture[str]
) -> None:
    """Neither of a plain key in any table, nor of any key in the inbox's headers or a log line."""
    plain, signing = make("secret-plain"), make("secret-signing", signs=True)
    body = orjson.dumps(conversion("secret"))
    door.post(body, **_bearer(plain.token))
    door.post(body, x_api_key=plain.token)
    door.post(body, **_signed(signing, body))
    door.post(body, x_api_key=signing.token)
    out, err = capfd.readouterr()
    everything = out + err
    tables = ground.rows("SELECT tablename FROM pg_tables WHERE schemaname = 'public'")
    for (table,) in tables:
        rows = "".join(line for (line,) in ground.rows(f"SELECT each::text FROM {table} each"))
        if table == "api_key_secrets":
            assert plain.token[-64:] not in rows
        else:
            everything += rows
    assert "[secret]" in everything
    for made in (plain, signing):
        assert made.token[-64:] not in everything


def test_a_revoked_key_is_refused_within_moments(
    door: DoorThread, make: Callable[..., Made], run: Run
) -> None:
    """Its holder is told so, and nobody else is told anything about it."""
    made = make("revoked")
    assert door.post(conversion("r"), **_bearer(made.token)).status_code == 202
    assert run("revoke", "revoked").startswith(f"Revoked revoked (hf_{made.key_id})")
    until(lambda: door.post(conversion("r"), **_bearer(made.token)).status_code == 401, 5)
    assert _refused(door.post(conversion("r"), **_bearer(made.token)), "revoked_key")
    other = made.token[:-1] + ("0" if made.token[-1] != "0" else "1")
    assert _refused(door.post(conversion("r"), **_bearer(other)), "wrong_key")


def test_a_revoked_signing_key_signs_nothing_more(
    door: DoorThread, make: Callable[..., Made], run: Run, ground: Ground
) -> None:
    """Its secret is gone from the database too."""
    made = make("signer-revoked", signs=True)
    body = orjson.dumps(conversion("s"))
    assert door.post(body, **_signed(made, body)).status_code == 202
    run("revoke", "signer-revoked")
    until(lambda: door.post(body, **_signed(made, body)).status_code == 401, 5)
    query = "SELECT count(signing_secret) FROM api_key_secrets WHERE key_id = :id"
    assert ground.one(query, id=made.key_id) == 0


def test_a_rotated_key_has_two_secrets_until_the_grace_ends(
    door: DoorThread, make: Callable[..., Made], run: Run
) -> None:
    """Old and new are good within the grace; after it the old one is told that it was rotated."""
    old = make("rotated").token
    new = json.loads(run("rotate", "rotated", "--grace", "2s", "--json"))["secret"]
    assert new != old
    until(lambda: door.post(conversion("g"), **_bearer(new)).status_code == 202, 2)
    assert door.post(conversion("g"), **_bearer(old)).status_code == 202
    until(lambda: door.post(conversion("g"), **_bearer(old)).status_code == 401, 5)
    assert _refused(door.post(conversion("g"), **_bearer(old)), "rotated_key")
    assert door.post(conversion("g"), **_bearer(new)).status_code == 202


def test_a_rotation_without_grace_ends_the_old_secret_at_once(
    door: DoorThread, make: Callable[..., Made], run: Run
) -> None:
    """For a key that leaked, also one that signs."""
    made = make("leaked", signs=True)
    body = orjson.dumps(conversion("l"))
    answer = json.loads(run("rotate", "leaked", "--grace", "0s", "--json"))
    assert answer["old_until"] is None
    fresh = Made(made.key_id, made.grant, None, answer["secret"])
    until(lambda: door.post(body, **_signed(fresh, body)).status_code == 202, 5)
    assert _refused(door.post(body, **_signed(made, body)), "wrong_signature")


def test_a_second_rotation_does_not_lengthen_the_first_grace(engine: Engine) -> None:
    """The oldest secret ends when it was said to end."""
    keys.create(engine, Grant("twice"), good_for=None, who="test")
    first = keys.rotate(engine, "twice", grace=timedelta(seconds=60), who="test")
    keys.rotate(engine, "twice", grace=timedelta(seconds=3600), who="test")
    ends = Ground(engine).rows(
        "SELECT ends_at FROM api_key_secrets WHERE key_id = :id ORDER BY created_at", id=first.key_id
    )
    assert len(ends) == 3
    assert ends[0].ends_at == first.old_until
    assert ends[2].ends_at is None


def test_a_key_expires(door: DoorThread, make: Callable[..., Made], run: Run) -> None:
    """To the second, without anyone doing anything; and it cannot be rotated back to life."""
    made = make("brief", good_for=timedelta(seconds=1.5))
    assert door.post(conversion("b"), **_bearer(made.token)).status_code == 202
    until(lambda: door.post(conversion("b"), **_bearer(made.token)).status_code == 401, 5)
    assert _refused(door.post(conversion("b"), **_bearer(made.token)), "expired_key")
    with pytest.raises(keys.KeyNameError, match="has expired; revoke it"):
        run("rotate", "brief")


def test_what_a_key_may_not_send_is_refused_by_event(door: DoorThread, make: Callable[..., Made]) -> None:
    """Part of a batch is taken; each of the others says which names would do."""
    made = make("scoped", sources=frozenset({"shop"}), events=frozenset({"purchase", "refund"}))
    batch = [
        conversion("scoped-1"),
        conversion("scoped-2", source="elsewhere"),
        conversion("scoped-3", name="signup"),
        signal("refund", "scoped-4", "scoped-1", source="shop"),
        signal("cancel", "scoped-5", "scoped-1", source="shop"),
    ]
    answer = door.post(batch, **_bearer(made.token))
    assert (answer.status_code, answer.json()["accepted"]) == (202, 2)
    said = {each["index"]: each["problems"][0] for each in answer.json()["rejected"]}
    assert {index: (each["code"], each["field"]) for index, each in said.items()} == {
        1: ("not_allowed", "source"),
        2: ("not_allowed", "name"),
        4: ("not_allowed", "type"),
    }
    assert "shop" in said[1]["remedy"]
    alone = door.post(conversion("scoped-6", source="elsewhere"), **_bearer(made.token))
    assert (alone.status_code, alone.json()["code"]) == (422, "nothing_accepted")


def test_a_rate_is_kept_and_the_wait_is_told(door: DoorThread, make: Callable[..., Made]) -> None:
    """Three at once, the fourth is told how long to wait, and another key is not held up."""
    limited, free = make("limited", per_second=3), make("free")
    answers = [door.post(conversion(f"l{n}"), **_bearer(limited.token)) for n in range(5)]
    assert [each.status_code for each in answers] == [202, 202, 202, 429, 429]
    assert answers[3].headers["retry-after"] == "1"
    assert answers[3].json()["code"] == "too_many_requests"
    assert door.post(conversion("f"), **_bearer(free.token)).status_code == 202
    until(lambda: door.post(conversion("l9"), **_bearer(limited.token)).status_code == 202, 3)


def test_a_signed_request_is_taken_and_its_body_is_what_was_signed(
    door: DoorThread, make: Callable[..., Made]
) -> None:
    """Plain or compressed, the signature is over the body as it travels; over another one it is worth nothing."""
    made = make("signer", signs=True)
    body = orjson.dumps(conversion("signed"))
    packed = gzip.compress(body)
    assert door.post(body, **_signed(made, body)).status_code == 202
    assert door.post(packed, content_encoding="gzip", **_signed(made, packed)).status_code == 202
    assert _refused(door.post(body + b" ", **_signed(made, body)), "wrong_signature")
    assert _refused(door.post(packed, content_encoding="gzip", **_signed(made, body)), "wrong_signature")


def test_an_old_or_broken_signature_is_refused(door: DoorThread, make: Callable[..., Made]) -> None:
    """Five minutes either way; and the three parts must be there."""
    made = make("signer-old", signs=True)
    body = orjson.dumps(conversion("old"))
    for off in (-310, 310):
        assert _refused(door.post(body, **_signed(made, body, time.time() + off)), "old_signature")
    assert door.post(body, **_signed(made, body, time.time() - 290)).status_code == 202
    assert _refused(door.post(body, x_holdfire_signature="v1=00"), "malformed_signature")


def test_a_plain_key_signs_nothing_and_a_signing_key_does_not_travel(
    door: DoorThread, make: Callable[..., Made]
) -> None:
    """Its database row cannot check a signature; and a signing key that is sent is refused, for it is leaking."""
    plain, signing = make("kind-plain"), make("kind-signing", signs=True)
    body = orjson.dumps(conversion("kinds"))
    assert _refused(door.post(body, **_signed(plain, body)), "wrong_signature")
    assert _refused(door.post(body, **_bearer(signing.token)), "signing_key")


def test_what_is_printed_with_a_new_key_works_as_it_stands(door: DoorThread, run: Run) -> None:
    """The curl lines, in a shell, for both kinds, with an apostrophe in a name."""
    for arguments in (["usage-plain"], ["usage-signing", "--hmac"]):
        said = run("create", *arguments, "--event", "it's done", "--source", "shop")
        script = (
            "body=" + said.split("body=", 1)[1] if "body=" in said else "curl " + said.split("curl ", 1)[1]
        )
        script = script.replace("http://127.0.0.1:8080", door.url).replace("curl ", "curl --silent ")
        name = shlex.split(arguments[0])[0]

        def answered(script: str = script) -> bool:
            done = subprocess.run(["sh", "-c", script], capture_output=True, text=True, check=True)
            return '"request_id"' in done.stdout

        until(answered, 5)
        assert name in said


def test_the_audit_tells_who_did_what_and_no_secret(run: Run, ground: Ground) -> None:
    """One line each for made, rotated and revoked."""
    made = json.loads(
        run("create", "audited", "--source", "shop", "--as", "anna", "--expires", "90d", "--json")
    )
    rotated = json.loads(run("rotate", "audited", "--as", "ben", "--json"))
    run("revoke", "audited", "--as", "cleo")
    rows = ground.rows("SELECT who, action, detail FROM audit WHERE detail->>'name' = 'audited' ORDER BY id")
    assert [(row.who, row.action) for row in rows] == [
        ("anna", "keys.create"),
        ("ben", "keys.rotate"),
        ("cleo", "keys.revoke"),
    ]
    assert {row.detail["key_id"] for row in rows} == {made["id"]}
    for secret in (made["secret"], rotated["secret"]):
        assert secret[-64:] not in str(rows)


def test_the_list_tells_everything_but_the_secret(run: Run) -> None:
    """Scope, rate, kind, state and instants, as a table and as JSON."""
    made = json.loads(run("create", "listed", "--source", "shop", "--per-second", "5", "--json"))
    rotated = json.loads(run("rotate", "listed", "--json"))
    printed = run("list", "--json")
    (row,) = [each for each in json.loads(printed) if each["name"] == "listed"]
    assert (row["state"], row["sources"], row["events"], row["per_second"]) == ("good", ["shop"], [], 5)
    assert (row["signs"], row["expires_at"]) == (False, None)
    assert row["old_until"] == rotated["old_until"]
    assert row["rotated_at"] > row["created_at"]
    for text in (printed, run("list")):
        assert "listed" in text
        assert made["secret"][-64:] not in text
        assert rotated["secret"][-64:] not in text


def test_a_name_is_free_again_after_its_key_was_revoked(run: Run) -> None:
    """Two good keys never share a name; the remedy is said."""
    first = json.loads(run("create", "again", "--json"))
    with pytest.raises(keys.KeyNameError, match="rotate or revoke it"):
        run("create", "again")
    run("revoke", "again")
    assert json.loads(run("create", "again", "--json"))["id"] > first["id"]
    with pytest.raises(keys.KeyNameError, match="keys list"):
        run("revoke", "never-was")


@pytest.mark.parametrize("host", ["0.0.0.0", "192.0.2.1", "::", "door.example"])
def test_an_open_door_is_refused_where_others_could_reach_it(host: str) -> None:
    """With the reason and both ways out."""
    with pytest.raises(NotLoopbackError, match=r"keys create.*127\.0\.0\.1") as refused:
        CliRunner().invoke(holdfire.app, ["serve", "door", "--open", "--host", host], catch_exceptions=False)
    assert host in str(refused.value)


def test_keys_outlast_a_database_that_is_away_but_not_for_ever(
    engines: Engines, engine: Engine, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """For a minute they count as last read; then everyone is told to come again, and no one that he is unknown."""
    made = keys.create(engine, Grant("outlasting"), good_for=None, who="test")
    ring = _ring(database_url)
    headers = {b"authorization": f"Bearer {made.token}".encode()}
    with pytest.raises(RefusedError) as before:
        ring.admit(headers, b"")
    assert before.value.status == 503
    ring.start()
    ring.close()  # from here on it reads nothing, as when the database is away
    assert ring.admit(headers, b"").key_id == made.key_id
    later = time.monotonic() + TRUSTED_FOR_S
    monkeypatch.setattr(time, "monotonic", lambda: later)
    with pytest.raises(RefusedError) as after:
        ring.admit(headers, b"")
    assert after.value.status == 503
    assert after.value.headers[0][0] == b"retry-after"


def test_admitting_takes_microseconds(engine: Engine, database_url: str) -> None:
    """It is called on the event loop at every request: far under 100 µs even on a busy machine."""
    made = keys.create(engine, Grant("quick", per_second=100_000), good_for=None, who="test")
    ring = _ring(database_url)
    ring.start()
    headers = {b"authorization": f"Bearer {made.token}".encode()}
    started = time.perf_counter()
    for _ in range(1000):
        ring.admit(headers, b"")
    took_us = (time.perf_counter() - started) * 1000
    ring.close()
    assert took_us < 100
