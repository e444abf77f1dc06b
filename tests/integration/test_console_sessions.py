"""Signing in, staying in, and being put out: accounts, passwords, throttling and sessions, over a real socket."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from datetime import timedelta
from hashlib import sha256
from statistics import median
from typing import Any

import httpx
import pytest
from argon2 import PasswordHasher
from sqlalchemy import Engine, text

from infra.passwords import hash_password, is_outdated, verify
from infra.store import audit
from infra.store.audit import Sought
from infra.store.console import accounts
from infra.store.console.accounts import AccountError
from schemas.accounts import (
    FREE_FAILURES,
    LONGEST_DELAY,
    ConsolePolicy,
    Role,
    check_name,
    check_password,
    delay_after,
)
from tests.integration.console import OPERATOR, PASSWORD, VIEWER, ConsoleThread, Visitor


@pytest.fixture(scope="module")
def console(engine: Engine) -> Iterator[ConsoleThread]:
    policy = ConsolePolicy(session_idle=timedelta(minutes=30), session_absolute=timedelta(hours=8))
    with ConsoleThread(engine, policy) as running:
        yield running


@pytest.fixture(autouse=True)
def _patient(engine: Engine) -> None:
    run(engine, "DELETE FROM login_failures")


def run(engine: Engine, statement: str, **values: Any) -> None:
    with engine.begin() as connection:
        connection.execute(text(statement), values)


def one(engine: Engine, query: str, **values: Any) -> Any:
    with engine.connect() as connection:
        return connection.execute(text(query), values).scalar_one()


def is_in(client: Visitor) -> bool:
    return client.get("/account").status_code == 200


def cookie(answer: httpx.Response, name: str) -> str:
    (line,) = [each for each in answer.headers.get_list("set-cookie") if each.startswith(f"{name}=")]
    return line


def test_the_session_cookie_is_kept_from_scripts_and_other_sites(console: ConsoleThread) -> None:
    line = cookie(console.visitor().sign_in(VIEWER), "holdfire").lower()
    assert "httponly" in line
    assert "samesite=strict" in line
    assert "path=/" in line
    assert "domain" not in line


def test_behind_https_the_cookie_is_bound_to_this_host_and_to_https(engine: Engine) -> None:
    """As a proxy sees it: the browser's cookies are given by hand, since a client keeps secure ones from plain http."""
    with ConsoleThread(engine, secure=True) as console:
        browser = console.visitor(origin="https://console.example", host="console.example")
        login = browser.get("/login")
        visitor = cookie(login, "holdfire_visitor")
        token = login.text.split('name="csrf" value="')[1].split('"')[0]
        answer = browser.post(
            "/login",
            data={"csrf": token, "name": VIEWER, "password": PASSWORD},
            headers={"cookie": visitor.partition(";")[0]},
        )
        line = cookie(answer, "__Host-holdfire")
        from_http = browser.post(
            "/login",
            data={"csrf": token, "name": VIEWER, "password": PASSWORD},
            headers={"cookie": visitor.partition(";")[0], "origin": "http://console.example"},
        )
    assert "Secure" in visitor
    assert "Secure" in line
    assert "Path=/;" in f"{line};"
    assert "Domain" not in line
    assert from_http.status_code == 403


def test_only_the_hash_of_a_token_is_kept(console: ConsoleThread, engine: Engine) -> None:
    client = console.signed_in(VIEWER)
    token = client.cookies["holdfire"]
    assert len(token) >= 43, "256 bits"
    kept = one(engine, "SELECT sha256 FROM sessions ORDER BY id DESC LIMIT 1")
    assert bytes(kept) == sha256(token.encode()).digest()
    assert one(engine, "SELECT count(*) FROM sessions s WHERE s::text LIKE '%' || :t || '%'", t=token) == 0


def test_a_login_gives_a_new_session_whatever_the_browser_had(console: ConsoleThread) -> None:
    """Who planted a cookie before knows nothing after: it never becomes the session."""
    planted = "planted-by-somebody-else-0123456789abcdef"
    visitor = console.visitor()
    fields = {**visitor.hidden("/login", "/login"), "name": VIEWER, "password": PASSWORD}
    visitor.cookies.set("holdfire", planted)
    assert planted not in cookie(visitor.post("/login", data=fields), "holdfire")
    stranger = console.visitor()
    stranger.cookies.set("holdfire", planted)
    assert not is_in(stranger)


def test_the_session_before_a_login_ends_with_it(console: ConsoleThread) -> None:
    client = console.signed_in(VIEWER)
    old = client.cookies["holdfire"]
    second = console.visitor()
    fields = {**second.hidden("/login", "/login"), "name": VIEWER, "password": PASSWORD}
    second.cookies.set("holdfire", old)
    assert second.post("/login", data=fields).status_code == 303
    assert not is_in(client)


def test_an_idle_session_ends(console: ConsoleThread, engine: Engine) -> None:
    client = console.signed_in(VIEWER)
    run(engine, "UPDATE sessions SET last_seen_at = now() - interval '29 minutes'")
    assert is_in(client), "used in time"
    run(engine, "UPDATE sessions SET last_seen_at = now() - interval '31 minutes'")
    assert not is_in(client)


def test_use_keeps_a_session_and_age_ends_it(console: ConsoleThread, engine: Engine) -> None:
    client = console.signed_in(VIEWER)
    run(engine, "UPDATE sessions SET last_seen_at = now() - interval '20 minutes'")
    assert is_in(client)
    seen = one(engine, "SELECT max(last_seen_at) > now() - interval '1 minute' FROM sessions")
    assert seen, "its use was written down"
    left = one(engine, "SELECT expires_at - now() FROM sessions ORDER BY id DESC LIMIT 1")
    assert timedelta(hours=7) < left <= timedelta(hours=8)
    run(engine, "UPDATE sessions SET expires_at = now()")
    assert not is_in(client)


def test_signing_out_ends_the_session_itself(console: ConsoleThread) -> None:
    """Not only the cookie goes: who copied it has nothing."""
    client = console.signed_in(VIEWER)
    token = client.cookies["holdfire"]
    assert client.submit("/account", "/logout").headers["location"] == "/login"
    thief = console.visitor()
    thief.cookies.set("holdfire", token)
    assert not is_in(thief)


def test_one_can_sign_out_everywhere_else(console: ConsoleThread) -> None:
    here, there = console.signed_in(VIEWER), console.signed_in(VIEWER)
    stranger = console.signed_in(OPERATOR)
    here.submit("/account", "/account/sessions/end-others")
    assert (is_in(here), is_in(there), is_in(stranger)) == (True, False, True)


def test_one_can_end_a_session_of_ones_own_and_no_other(console: ConsoleThread, engine: Engine) -> None:
    here, there, stranger = console.signed_in(VIEWER), console.signed_in(VIEWER), console.signed_in(OPERATOR)
    ids = {
        client: one(
            engine,
            "SELECT id FROM sessions WHERE sha256 = :h",
            h=sha256(client.cookies["holdfire"].encode()).digest(),
        )
        for client in (there, stranger)
    }
    answers = [
        here.post("/account/sessions/end", data={"csrf": here.csrf, "session": str(number)})
        for number in ids.values()
    ]
    assert [answer.status_code for answer in answers] == [303, 404]
    assert (is_in(there), is_in(stranger)) == (False, True)


@pytest.mark.parametrize("change", ["disabled", "role", "password"])
def test_what_takes_an_accounts_rights_ends_its_sessions(
    console: ConsoleThread, engine: Engine, change: str
) -> None:
    name = f"ended-by-{change}"
    accounts.add(engine, name, Role.OPERATOR, PASSWORD, who="test")
    client = console.signed_in(name)
    match change:
        case "disabled":
            assert accounts.disable(engine, name, who="test") == 1
        case "role":
            assert accounts.set_role(engine, name, Role.VIEWER, who="test") == 1
        case "password":
            assert accounts.set_password(engine, name, "another copper lantern", who="test") == 1
    assert not is_in(client)


def test_a_disabled_account_cannot_sign_in_until_it_is_enabled(
    console: ConsoleThread, engine: Engine
) -> None:
    accounts.add(engine, "away", Role.VIEWER, PASSWORD, who="test")
    accounts.disable(engine, "away", who="test")
    assert console.visitor().sign_in("away").status_code == 401
    accounts.enable(engine, "away", who="test")
    assert console.visitor().sign_in("away").status_code == 303


def test_changing_ones_password_takes_the_present_one_and_ends_other_sessions(
    console: ConsoleThread, engine: Engine
) -> None:
    accounts.add(engine, "changer", Role.VIEWER, PASSWORD, who="test")
    here, there = console.signed_in("changer"), console.signed_in("changer")
    new = "quiet orchard at noon"

    def change(**fields: str) -> httpx.Response:
        return here.submit("/account", "/account/password", **fields)

    assert change(password="wrong wrong wrong", new=new, again=new).status_code == 403
    assert change(password=PASSWORD, new=new, again="something else here").status_code == 400
    assert change(password=PASSWORD, new="short", again="short").status_code == 400
    assert is_in(there)
    assert change(password=PASSWORD, new=new, again=new).status_code == 303
    assert (is_in(here), is_in(there)) == (True, False)
    assert console.visitor().sign_in("changer", PASSWORD).status_code == 401
    assert console.visitor().sign_in("changer", new).status_code == 303


def test_guessing_has_to_wait_longer_and_longer(console: ConsoleThread, engine: Engine) -> None:
    """Three wrong passwords are free; then 1 s, 2 s, 4 s, and a right one is not even looked at meanwhile."""
    accounts.add(engine, "guessed", Role.VIEWER, PASSWORD, who="test")
    visitor = console.visitor()
    statuses = [visitor.sign_in("guessed", "wrong").status_code for _ in range(3)]
    assert statuses == [401, 401, 429]
    waiting = visitor.sign_in("guessed", PASSWORD)
    assert waiting.status_code == 429
    assert 1 <= int(waiting.headers["retry-after"]) <= 2
    delays = []
    for _ in range(3):
        run(engine, "UPDATE login_failures SET wait_to = now()")
        visitor.sign_in("guessed", "wrong")
        delays.append(
            one(
                engine,
                "SELECT extract(epoch FROM wait_to - last_at) FROM login_failures WHERE kind = 'account'",
            )
        )
    assert [round(float(delay)) for delay in delays] == [2, 4, 8]
    run(engine, "UPDATE login_failures SET wait_to = now()")
    assert visitor.sign_in("guessed", PASSWORD).status_code == 303
    assert one(engine, "SELECT count(*) FROM login_failures WHERE kind = 'account'") == 0, "counted anew"


def test_guessing_many_accounts_from_one_address_has_to_wait_too(
    console: ConsoleThread, engine: Engine
) -> None:
    visitor = console.visitor()
    statuses = [visitor.sign_in(f"nobody-{number}", "wrong").status_code for number in range(11)]
    assert statuses[: FREE_FAILURES["address"] - 1] == [401] * 9
    assert statuses[-1] == 429
    run(engine, "UPDATE login_failures SET wait_to = now()")
    before = one(engine, "SELECT failures FROM login_failures WHERE kind = 'address'")
    assert visitor.sign_in(VIEWER).status_code == 303
    after = one(engine, "SELECT failures FROM login_failures WHERE kind = 'address'")
    assert after == before, "a right one frees nobody who guesses from there"


def test_guessing_all_at_once_gains_nothing(console: ConsoleThread, engine: Engine) -> None:
    """Tries are counted before they are looked at: of twenty at one time no more are looked at than one by one."""
    accounts.add(engine, "rushed", Role.VIEWER, PASSWORD, who="test")
    answers: list[int] = []
    clients = [console.visitor() for _ in range(20)]
    fields = [client.hidden("/login", "/login") for client in clients]

    def guess(number: int) -> None:
        data = {**fields[number], "name": "rushed", "password": "wrong"}
        answers.append(clients[number].post("/login", data=data).status_code)

    threads = [threading.Thread(target=guess, args=(number,)) for number in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    looked_at = len(audit.find(engine, Sought(action="login.failed", who="rushed")))
    assert len(answers) == 20
    assert looked_at <= 8


def test_an_account_that_is_not_there_takes_as_long(console: ConsoleThread, engine: Engine) -> None:
    """Neither the answer nor the time it takes tells who has an account."""

    def timed(name: str) -> tuple[float, str]:
        run(engine, "DELETE FROM login_failures")
        visitor = console.visitor()
        fields = {**visitor.hidden("/login", "/login"), "name": name, "password": "wrong"}
        began = time.perf_counter()
        answer = visitor.post("/login", data=fields)
        took = time.perf_counter() - began
        return took, answer.text.split("<main")[1].split('name="csrf"')[0]

    there, nowhere = [timed(VIEWER) for _ in range(5)], [timed("nobody-here") for _ in range(5)]
    assert {text for _, text in there} == {text for _, text in nowhere}
    ratio = median(took for took, _ in there) / median(took for took, _ in nowhere)
    assert 0.25 < ratio < 4


def test_what_is_typed_as_a_name_is_written_nowhere(console: ConsoleThread, engine: Engine) -> None:
    """People type their password there."""
    slip = "my-own-password-here"
    console.visitor().sign_in(slip, "wrong")
    assert "console:?@127.0.0.1" in {each.who for each in audit.find(engine, Sought(action="login.failed"))}
    for table in ("audit", "login_failures"):
        found = one(
            engine, f"SELECT count(*) FROM {table} t WHERE t::text LIKE '%' || :slip || '%'", slip=slip
        )
        assert found == 0


def test_logins_failures_and_logouts_are_audited(console: ConsoleThread, engine: Engine) -> None:
    accounts.add(engine, "watched", Role.OPERATOR, PASSWORD, who="test")
    console.visitor().sign_in("watched", "wrong")
    console.signed_in("watched").submit("/account", "/logout")
    found = audit.find(engine, Sought(who="watched"))
    assert [each.action for each in reversed(found)] == ["login.failed", "login", "logout"]
    assert {each.who for each in found} == {"console:watched@127.0.0.1"}
    assert PASSWORD not in str(found)


def test_a_hash_of_older_parameters_is_made_anew_at_login(console: ConsoleThread, engine: Engine) -> None:
    accounts.add(engine, "older", Role.VIEWER, PASSWORD, who="test")
    old = PasswordHasher(time_cost=1, memory_cost=8192, parallelism=1).hash(PASSWORD)
    run(engine, "UPDATE accounts SET password_hash = :old WHERE name = 'older'", old=old)
    assert is_outdated(old)
    assert console.visitor().sign_in("older").status_code == 303
    new = one(engine, "SELECT password_hash FROM accounts WHERE name = 'older'")
    assert new.startswith("$argon2id$")
    assert not is_outdated(new)
    assert console.visitor().sign_in("older").status_code == 303


def test_passwords_are_argon2id_and_nobody_has_none() -> None:
    kept = hash_password(PASSWORD)
    assert kept.startswith("$argon2id$v=19$m=65536,t=3,p=4$")
    assert verify(PASSWORD, kept)
    assert not verify("wrong", kept)
    assert not verify(PASSWORD, None)
    assert not verify("nobody has this password", None)
    assert not verify(PASSWORD, "no hash at all")


@pytest.mark.parametrize("password", ["tiny-one", "aaaaaaaaaaaaaaaa", "alice-and-more-of-it", "x" * 2000])
def test_weak_passwords_are_refused_and_not_repeated(password: str) -> None:
    with pytest.raises(ValueError) as refused:
        check_password(password, "alice")
    assert password not in str(refused.value)


@pytest.mark.parametrize("name", ["", "Alice", "a b", "-a", "a" * 65, "a@b", "ü"])
def test_names_are_plain(name: str) -> None:
    with pytest.raises(ValueError, match="no account name"):
        check_name(name)


def test_delays_double_up_to_a_quarter_of_an_hour() -> None:
    seconds = [delay_after("account", failures).total_seconds() for failures in range(8)]
    assert seconds == [0, 0, 0, 1, 2, 4, 8, 16]
    assert delay_after("account", 1000) == LONGEST_DELAY


def test_an_account_is_made_once(engine: Engine) -> None:
    accounts.add(engine, "twice", Role.VIEWER, PASSWORD, who="test")
    with pytest.raises(AccountError, match="already"):
        accounts.add(engine, "twice", Role.OPERATOR, PASSWORD, who="test")
    with pytest.raises(AccountError, match="no account"):
        accounts.set_role(engine, "nobody", Role.VIEWER, who="test")
