"""One attempt the way ``curl --verbose -L`` prints it, fit to be sent to a network's support as it stands.

``>`` was sent, ``<`` was received, ``*`` is about the connection, ``#`` is the heading. Bodies are indented, so that
nothing in them can be taken for one of those lines. Pure: made from what was recorded.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from datetime import datetime, timedelta
from urllib.parse import urlsplit

from infra.store.records import AttemptRecord, CheckRecord, Life, PostbackRecord
from investigations.bodies import readable
from investigations.corrections import title
from investigations.trail import token_facts
from investigations.words import clock, milliseconds, money, span, visible, visible_bytes
from schemas.exchange import FailureKind, Hop
from schemas.ids import show


def transcript(life: Life, postback: PostbackRecord, attempt: AttemptRecord) -> Iterator[str]:
    """The lines of one attempt, without line ends."""
    yield from _headed(heading(life, postback, attempt))
    if not attempt.hops:
        yield from without_hops_lines(life, postback, attempt)
    yield from _exchanges(attempt.hops)
    yield from ending_lines(attempt)


def check_transcript(life: Life, postback: PostbackRecord, check: CheckRecord) -> Iterator[str]:
    """The lines of one question to the advertiser's own service, without line ends."""
    yield from _headed(check_heading(life, postback, check))
    if not check.hops:
        yield "* No exchange was recorded."
    yield from _exchanges(check.hops)
    yield from check_ending(check)


def check_ending(check: CheckRecord) -> Iterator[str]:
    """What a check came to, where its exchange does not say it."""
    if check.error_message and (not check.hops or check.hops[-1].failure is None):
        yield f"* {visible(check.error_class or 'Error')}: {visible(check.error_message)}"
    if check.stale:
        yield "* This answer came too late to move anything: the postback had been moved meanwhile."
    if check.asks_again_at is not None:
        yield f"* It was to be asked again at {clock(check.asks_again_at)} UTC."


def _headed(heading: Iterable[tuple[str, str]]) -> Iterator[str]:
    for name, value in heading:
        yield f"# {name:<11} {value}".rstrip()
    yield "#"
    yield "# > was sent, < was received, * is about the connection; bodies are indented."
    yield "# Secrets are shown as [secret:…]; what cannot be printed is shown as \\xNN."
    yield ""


def _exchanges(hops: Iterable[Hop]) -> Iterator[str]:
    for position, hop in enumerate(hops):
        if position:
            yield f"* Issue another request to this URL: '{visible(hop.url)}'"
        yield from exchange_lines(hop)


def check_heading(life: Life, postback: PostbackRecord, check: CheckRecord) -> Iterator[tuple[str, str]]:
    """The facts of a check, each with its name; one without a name goes on with the fact above it."""
    event, contract = life.conversion.event, postback.version.contract
    yield "check", f"{show('ck', check.id)}, number {check.number} of postback {show('pb', postback.id)}"
    yield "destination", f"{contract.name}, contract version {postback.version.number}"
    worth = money(event.value, event.currency)
    yield "conversion", f"{show('cv', life.conversion.id)}, {visible(event.name)}, {worth}"
    if event.order_id:
        yield "order id", visible(event.order_id)
    yield "asked", f"{clock(check.intent_at)} UTC"
    yield "ended", f"{clock(check.ended_at)} UTC, after {span(check.ended_at - check.intent_at)}"
    yield "verdict", f"{check.verdict}: {visible(check.rule)}"
    yield "sent by", f"{visible(check.worker)} (Holdfire {visible(check.worker_version)})"


def heading(life: Life, postback: PostbackRecord, attempt: AttemptRecord) -> Iterator[tuple[str, str]]:
    """The facts of an attempt, each with its name; one without a name goes on with the fact above it."""
    event, contract, outcome = life.conversion.event, postback.version.contract, attempt.outcome
    trigger = f", {outcome.trigger}" if outcome else ""
    yield (
        "attempt",
        f"{show('at', attempt.id)}, number {attempt.number} of postback {show('pb', postback.id)}{trigger}",
    )
    yield (
        "destination",
        f"{contract.name} (network {contract.network.slug}), contract version {postback.version.number}",
    )
    if postback.adjusts is not None:
        yield "correction", title(postback)
    yield (
        "conversion",
        f"{show('cv', life.conversion.id)}, {visible(event.name)}, {money(event.value, event.currency)}",
    )
    if event.order_id:
        yield "order id", visible(event.order_id)
    if outcome is not None and outcome.click_id is not None:
        yield "click id", visible(outcome.click_id)
        yield "", token_facts(outcome.click_id)
    yield "intent", f"{clock(attempt.intent_at)} UTC (recorded before the first byte left)"
    if outcome is None:
        yield "outcome", "none has been recorded"
    else:
        yield "ended", f"{clock(outcome.ended_at)} UTC, after {span(outcome.ended_at - attempt.intent_at)}"
        yield "verdict", f"{outcome.verdict}: {visible(outcome.rule)}"
    version = f" (Holdfire {visible(outcome.worker_version)})" if outcome else ""
    yield "sent by", f"{visible(attempt.worker)}{version}"


def without_hops_lines(life: Life, postback: PostbackRecord, attempt: AttemptRecord) -> Iterator[str]:
    """What is known of an attempt without an exchange."""
    if attempt.intended_url is not None:
        yield f"* Intended URL, as recorded beforehand: '{visible(attempt.intended_url)}'"
    outcome = attempt.outcome
    if outcome is not None:
        yield "* No exchange was recorded."
        return
    silent = postback.due_at is not None and postback.due_at < life.now
    yield (
        f"* Its worker fell silent: whether anything was sent is not known {span(life.now - attempt.intent_at)} later."
        if silent
        else f"* On the wire since {span(life.now - attempt.intent_at)}: no exchange has been recorded yet."
    )


def exchange_lines(hop: Hop) -> Iterator[str]:
    """One exchange: its connection, what was sent, what was received, and how long that took."""
    yield f"* {clock(hop.started_at)} UTC, hop {hop.number}"
    yield from connection_lines(hop)
    if hop.request_head:
        yield from (f"> {visible_bytes(each)}" for each in head_lines(hop.request_head))
        yield ">"
        yield from _request_body(hop)
    if hop.response_head:
        yield from (f"< {visible_bytes(each)}" for each in head_lines(hop.response_head))
        yield "<"
    if hop.status_code is not None:
        yield from _response_body(hop)
    if hop.body_error:
        yield f"* Body: {visible(hop.body_error)}; the status counts all the same"
    if hop.failure is not None:
        yield from _failure(hop)
    yield times_line(hop)


def times_line(hop: Hop) -> str:
    """How long each part of it took."""
    return (
        f"* Times: dns {milliseconds(hop.dns_ms)}, connect {milliseconds(hop.connect_ms)}, "
        f"first byte {milliseconds(hop.first_byte_ms)}, total {milliseconds(hop.total_ms)}"
    )


def connection_lines(hop: Hop) -> Iterator[str]:
    """Where a hop went, from where, and over what."""
    host = visible(urlsplit(hop.url).hostname or "")
    if hop.addresses:
        yield f"* Host {host} was resolved to {', '.join(hop.addresses)}"
    if hop.peer is None:
        for address in hop.addresses[:1]:
            yield f"*   Trying {address}..."
        return
    address, _, port = hop.peer.rpartition(":")
    local, _, local_port = (hop.local or "").rpartition(":")
    if hop.reused:
        yield f"* Re-using existing connection with host {host}"
    else:
        yield f"*   Trying {hop.peer}..."
    yield f"* Connected to {host} ({address}) port {port} from {local} port {local_port}"
    if hop.tls_version:
        yield f"* SSL connection using {hop.tls_version}"


def head_lines(head: bytes) -> list[bytes]:
    """A head's lines in order, repeats kept, without their line ends."""
    return head.removesuffix(b"\r\n").split(b"\r\n")


def _response_body(hop: Hop) -> Iterator[str]:
    if not hop.body_length:
        yield "* Body: empty"
        return
    facts = [f"{hop.body_length} bytes", f"SHA-256 {hop.body_sha256}"]
    if hop.truncated:
        kept = f"the first {len(hop.body)} bytes are kept, reading stopped after {hop.body_length}"
        facts.append(f"truncated: {kept}")
    shown = readable(hop.response_head, hop.body)
    yield f"* Body: {', '.join(facts)}" + (f"; {shown.about}" if shown.about else "")
    yield from _indented(shown.lines)


def _request_body(hop: Hop) -> Iterator[str]:
    if hop.request_body:
        shown = readable(hop.request_head, hop.request_body)
        yield f"* Request body: {len(hop.request_body)} bytes" + (f"; {shown.about}" if shown.about else "")
        yield from _indented(shown.lines)


def _indented(lines: Iterable[str]) -> Iterator[str]:
    return (f"  {each}" for each in lines)


def _failure(hop: Hop) -> Iterator[str]:
    """In curl's words where it has some, then ours."""
    failure = hop.failure
    assert failure is not None
    host = visible(urlsplit(hop.url).hostname or "")
    elapsed = round(hop.total_ms or 0)
    received = len(hop.response_head) + hop.body_length
    match failure.kind:
        case FailureKind.DNS:
            yield f"* Could not resolve host: {host}"
        case FailureKind.CONNECT:
            yield f"* Failed to connect to {host} after {elapsed} ms"
        case FailureKind.TLS:
            yield f"* SSL connect error with {host} after {elapsed} ms"
        case FailureKind.TIMEOUT:
            yield f"* Operation timed out after {elapsed} milliseconds with {received} bytes received"
        case FailureKind.RESET:
            yield f"* Recv failure: the connection was closed after {elapsed} ms with {received} bytes received"
        case _:
            yield f"* {failure.kind.replace('_', ' ').capitalize()}"
    yield f"* Recorded as {failure.kind}: {visible(failure.message)}"
    yield (
        "* The request had been written: whether it was taken is not known"
        if failure.sent
        else "* No byte of the request had left this machine"
    )


def ending_lines(attempt: AttemptRecord) -> Iterator[str]:
    """What an attempt came to, where its exchanges do not say it."""
    outcome = attempt.outcome
    if outcome is None:
        return
    last = attempt.hops[-1] if attempt.hops else None
    if outcome.error_message and (last is None or last.failure is None):
        # A redirect that was refused has no hop of its own; a lost attempt has none at all.
        yield f"* {visible(outcome.error_class or 'Error')}: {visible(outcome.error_message)}"
    if attempt.answered_late:
        assert last is not None
        yield (
            f"* This answer came late: the attempt had been written off at {clock(outcome.ended_at)} UTC, and the "
            f"answer ended at {clock(_end_of(last))} UTC. It settled nothing."
        )
    for note in outcome.notes:
        yield f"* Note: {visible(note)}"


def _end_of(hop: Hop) -> datetime:
    return hop.started_at + timedelta(milliseconds=hop.total_ms or 0)
