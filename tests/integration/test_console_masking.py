"""Under a policy that masks them, nothing that a viewer can reach holds a click id: every link is followed to see."""

from __future__ import annotations

import base64
import html
import json
import re
from collections import Counter
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote, urldefrag, urljoin

import pytest
from sqlalchemy import Engine

from infra.store import audit, inbox
from investigations.console.masking import Masking
from schemas.accounts import ConsolePolicy, Role
from schemas.arrival import Arrival, Refused
from schemas.click_mask import mask_click_id
from schemas.lifecycle import State
from schemas.problem import Problem
from schemas.verdict import VerdictKind
from tests.integration.console import OPERATOR, VIEWER, ConsoleThread, Visitor
from tests.integration.scenes import Scene, contract, conversion, hop, refund

MARKED = "kQ7/zz+Planted=="
"""Within every click id planted, with characters that are written in more than one way."""
MASKED = ConsolePolicy(mask_click_ids_for=(Role.VIEWER,), audit_evidence=True)


def planted(name: str) -> str:
    return f"{MARKED}{name}"


def writings(token: str) -> set[str]:
    """How a click id may be written in a page, a URL, JSON or an encoded body."""
    once = quote(token, safe="")
    return {
        token,
        once,
        re.sub("%..", lambda escape: escape[0].lower(), once),
        quote(token),
        quote(once, safe=""),
        html.escape(token),
        json.dumps(token)[1:-1],
        json.dumps(token)[1:-1].replace("/", "\\/"),
        base64.b64encode(token.encode()).decode(),
        token.encode().hex(),
    }


def base64_cores(text: str) -> set[str]:
    """What base64 of anything around the text has in it, at each of the three places it can begin at."""
    return {base64.b64encode(b"\0" * lead + text.encode()).decode()[4:-4] for lead in range(3)}


MARKS = (writings(MARKED) - {base64.b64encode(MARKED.encode()).decode()}) | base64_cores(MARKED)


@pytest.fixture(scope="module")
def scene(engine: Engine) -> Scene:
    """Click ids in every place that one can stand in."""
    scene = Scene(engine)
    scene.apply(contract("push-eu"), contract("xandr-main", wait="14d"))
    said = {
        "network": lambda token: f"no: {token} is unknown, see https://n.example/?c={quote(token, safe='')}",
        "json": lambda token: json.dumps({"click": token, "twice": quote(quote(token, safe=""), safe="")}),
        "base64": lambda token: base64.b64encode(f"c={token};".encode()).decode(),
        "html": lambda token: f"<p>{html.escape(token)}</p>",
    }
    for name, body in said.items():
        token = planted(name)
        scene.take(_with(f"said-{name}", "push", token))
        scene.settle(
            scene.fire_one(f"said-{name}"),
            State.REJECTED,
            VerdictKind.REJECTED,
            f"body {token}",
            [_hop(token, body(token))],
            error_class="Refused",
            error_message=f"refused {token} at https://n.example/?c={quote(token, safe='')}",
        )
    scene.take(_with("held", "xandr", planted("held")), refund("taken-back", "order-held"))
    scene.take(_with("unrouted", "nobody-takes-this", planted("unrouted")))
    scene.take(_with("said-json", "push", planted("repeat")))  # a duplicate, kept as a reject
    scene.take({**_with("broken", "push", planted("broken")), "name": 7, "click_ids": [planted("list")]})
    _arrive(engine)
    detail = {
        "destination": "push-eu",
        "url": f"https://n.example/?c={quote(token, safe='')}",
        "asked": token,
    }
    audit.record(engine, who="cli", action="destinations.try", detail=detail)
    return scene


def _with(event_id: str, network: str, token: str) -> dict[str, Any]:
    return conversion(event_id, network, click_ids={network: token})


def _hop(token: str, body: str) -> Any:
    target = f"/postback?click={quote(token, safe='')}&raw={token}"
    return hop(
        url=f"https://n.example{target}",
        request_head=f"GET {target} HTTP/1.1\r\nHost: n.example\r\nX-Click: {token}\r\n".encode(),
        response_head=f"HTTP/1.1 400 Bad\r\nLocation: /?c={quote(token, safe='')}\r\nX-Echo: {token}\r\n".encode(),
        body=body.encode(),
        body_length=len(body),
        status_code=400,
    )


def _arrive(engine: Engine) -> None:
    """Requests of every kind, with click ids in target, header and body."""
    token = planted("arrived")
    problem = Problem("bad", "click_ids", f"{token} is no click id", f"Do not send {token}")
    body = json.dumps({"click_ids": {"push": token}}).encode()
    headers = [("Content-Type", "application/json"), ("X-Click", token)]
    target = f"/v1/clicks?c={quote(token, safe='')}"
    common = {"source": "shop", "headers": headers, "body": body, "peer": "192.0.2.1", "candidates": []}
    inbox.commit(
        engine,
        [
            Arrival("events", method="POST", target="/v1/events", refused=[Refused(0, [problem])], **common),
            Arrival(
                "hook",
                method="POST",
                target=f"/hooks/shop?c={token}",
                refused=[Refused(0, [problem])],
                **common,
            ),
            Arrival("hook", method="GET", target=target, refused=[], ignored=f"{token} is nothing", **common),
            Arrival(
                "hook",
                method="POST",
                target="/hooks/shop",
                refused=[],
                **{**common, "body": f"click={quote(token)}".encode()},
            ),
        ],
    )


@pytest.fixture(scope="module")
def console(engine: Engine, scene: Scene) -> Iterator[ConsoleThread]:
    with ConsoleThread(engine, MASKED) as running:
        yield running


def crawl(client: Visitor, most: int = 300, queries: int = 10) -> Iterator[tuple[str, str]]:
    """Every page and file that can be reached by links, its address and what it says; of each path some queries."""
    waiting, known, asked = ["/", "/search", "/audit.csv", "/search.csv", "/live"], set[str](), Counter[str]()
    while waiting and len(known) < most:
        path = waiting.pop(0)
        bare = path.partition("?")[0]
        if path in known or "/stream" in path or ("?" in path and asked[bare] >= queries):
            continue
        known.add(path)
        asked[bare] += 1
        answer = client.get(path)
        if answer.has_redirect_location:
            waiting.append(answer.headers["location"])
            yield path, answer.headers["location"]
            continue
        yield path, f"{answer.text}\n{answer.headers}"
        if "text/html" not in answer.headers.get("content-type", ""):
            continue
        for link in re.findall(r'(?:href|src|action)="([^"]*)"', answer.text):
            to = urldefrag(urljoin(path, html.unescape(link)))[0]
            if to.startswith("/") and not to.startswith(("/static/", "/logout", "/account")):
                waiting.append(to)


def test_a_viewer_reaches_no_click_id(console: ConsoleThread) -> None:
    """Pages, listings, files and links, over click ids in every place that one can stand in."""
    viewer = console.signed_in(VIEWER)
    pages = dict(crawl(viewer))
    leaks = {path: mark for path, text in pages.items() for mark in MARKS if mark in text}
    assert leaks == {}
    visited = " ".join(pages)
    for part in (
        "/inbox/in_",
        "/rejects/",
        "/unrouted",
        "/signals/sg_",
        "/audit",
        "/conversions/cv_",
        "/search",
    ):
        assert part in visited, "the crawl came to it"
    assert len(pages) > 40
    assert any("[click:" in text for text in pages.values()), "masked, not left out"


def test_an_operator_reaches_them(console: ConsoleThread) -> None:
    """The same crawl without the policy finds them: it can fail."""
    operator = console.signed_in(OPERATOR)
    found = {path for path, text in crawl(operator) if any(mark in text for mark in MARKS)}
    for part in ("/conversions/cv_", "/inbox/in_", "/rejects/", "/search.csv", "/audit.csv"):
        assert any(path.startswith(part) for path in found), part


def test_the_live_tail_holds_none(console: ConsoleThread) -> None:
    viewer = console.signed_in(VIEWER)
    with viewer.stream("GET", "/live/stream?from=0") as answer:
        first = next(chunk for chunk in answer.iter_text() if "data-attempt" in chunk)
    assert not any(mark in first for mark in MARKS)


def test_who_looked_at_raw_evidence_is_written_down(console: ConsoleThread, engine: Engine) -> None:
    """By the policy's audit_evidence."""
    seen = audit.Sought(action="evidence.view", subject="in_1", who=OPERATOR)
    before = len(audit.find(engine, seen))
    console.signed_in(OPERATOR).get("/inbox/in_1")
    assert len(audit.find(engine, seen)) == before + 1


def test_masks_compare() -> None:
    """One click id has one mask wherever it stands and however it is written; two have two."""
    masking = Masking(on=True)
    one, other = planted("one"), planted("other")
    shown = masking.click_id(one)
    assert shown == mask_click_id(one) != mask_click_id(other)
    for writing in writings(one) - {base64.b64encode(one.encode()).decode()}:
        assert masking.text(f"a {writing} b", [one]) == f"a {shown} b", writing
    encoded = masking.text(base64.b64encode(f"c={one};".encode()).decode(), [one])
    assert not any(core in (encoded or "") for core in base64_cores(one))
    assert masking.text("c=short1&d", ["short1"]) == f"c={mask_click_id('short1')}&d"
    assert Masking(on=False).text(one, [one]) == one
    assert masking.click_id(None) is None
