"""The ways in which the sink can answer badly. Each is one small function from a scene to a script.

A behaviour is named ``name`` or ``name:argument`` wherever one is chosen: in a path
(``/bad/unavailable:2/xandr/sspx?…``), in a plan's rule, on the command line. Some refuse before the
network decides; others let it decide (and credit) and only spoil the answer. ``counts`` says which.
"""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from email.utils import formatdate

from infra.sink.answers import Answer, Ending, Pause, Repeat, Script, json_answer
from infra.sink.errors import SinkConfigError
from infra.sink.profiles import has_key
from infra.sink.wire import Request

_CHUNK = b"0" * 65_536


@dataclass(frozen=True, slots=True)
class Scene:
    """What a behaviour may look at."""

    request: Request
    """As received."""
    inner: str
    """The request target without a ``/bad/<behaviour>`` prefix."""
    normal: bytes
    """The profile's own answer, rendered."""
    argument: str
    base_url: str
    """Scheme and authority under which the sink was addressed."""
    plain_url: str
    """The sink's plain http base URL."""
    is_tls: bool
    repeat: bool
    """True when a fire for the same conversion was seen before."""
    now: float
    """Seconds since the epoch."""

    @property
    def number(self) -> float:
        """The argument as a number; it was checked when the behaviour was chosen."""
        return float(self.argument)


Stage = Callable[[Scene], Script | None]
"""None: this time the request gets its normal answer, and counts."""


@dataclass(frozen=True, slots=True)
class Behaviour:
    """One bad behaviour. ``default`` is its argument when none is given; empty where it takes none."""

    name: str
    about: str
    stage: Stage
    counts: bool
    default: str = ""
    numeric: bool = True


def _send(answer: Answer) -> Script:
    return (answer.render(),)


def _unavailable(scene: Scene) -> Script:
    return _send(Answer(503, b"try later", (("Retry-After", f"{scene.number:g}"),)))


def _unavailable_date(scene: Scene) -> Script:
    # Rounded up to the next whole second: an HTTP-date has no fractions and must not fall short.
    when = formatdate(int(scene.now + scene.number + 0.999), usegmt=True)
    return _send(Answer(503, b"try later", (("Retry-After", when),)))


def _too_many(scene: Scene) -> Script:
    return _send(Answer(429, b"slow down", (("Retry-After", f"{scene.number:g}"),)))


def _status(scene: Scene) -> Script:
    return _send(Answer(int(scene.number), b"" if scene.argument == "204" else b"as asked"))


def _late(scene: Scene) -> Script:
    return Pause(scene.number), scene.normal


def _reset(scene: Scene) -> Script:
    return (Ending.RESET,)


def _reset_midway(scene: Scene) -> Script:
    # The pause lets the other side read the first part before the reset throws it away.
    return b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nOK so f", Pause(0.1), Ending.RESET


def _hang_up(scene: Scene) -> Script:
    return (Ending.CLOSE,)


def _drip(scene: Scene) -> Script:
    return b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n", Repeat(b".", 1000, scene.number)


def _drip_head(scene: Scene) -> Script:
    return b"HTTP/1.1 200 OK\r\n", Repeat(b"X-Drip: drop\r\n", 1000, scene.number), b"\r\n"


def _huge(scene: Scene) -> Script:
    times = int(scene.number * 16)
    head = f"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: {times * len(_CHUNK)}\r\n\r\n"
    return head.encode(), Repeat(_CHUNK, times)


def _gzip_head(length: int) -> bytes:
    return f"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: {length}\r\n\r\n".encode()


def _gzip_bomb(scene: Scene) -> Script:
    squeeze = zlib.compressobj(9, zlib.DEFLATED, 31)
    parts = [squeeze.compress(_CHUNK) for _ in range(int(scene.number * 16))]
    body = b"".join(parts) + squeeze.flush()
    return (_gzip_head(len(body)) + body,)


def _gzip_truncated(scene: Scene) -> Script:
    body = gzip.compress(b"credited " * 200, mtime=0)
    body = body[: len(body) // 2]
    return (_gzip_head(len(body)) + body,)


def _gzip_invalid(scene: Scene) -> Script:
    return (_gzip_head(12) + b"not gzip, OK",)


def _length_too_long(scene: Scene) -> Script:
    return b"HTTP/1.1 200 OK\r\nContent-Length: 50\r\n\r\nOK", Ending.CLOSE


def _length_too_short(scene: Scene) -> Script:
    # The surplus stays on the connection, where a careless client takes it for the next answer.
    return (b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nOK and more than was told",)


def _redirect(location: str, status_code: int = 302) -> Script:
    return _send(Answer(status_code, headers=(("Location", location),)))


def _redirect_loop(scene: Scene) -> Script:
    return _redirect(f"{scene.base_url}/bad/redirect-loop{scene.inner}")


def _redirect_chain(scene: Scene) -> Script | None:
    left = int(scene.number)
    return _redirect(f"{scene.base_url}/bad/redirect-chain:{left - 1}{scene.inner}") if left > 0 else None


def _redirect_private(scene: Scene) -> Script:
    return _redirect(f"http://{scene.argument}{scene.inner}")


def _redirect_downgrade(scene: Scene) -> Script | None:
    # Followed, it arrives on the plain port and counts: the record then shows that it was followed.
    return _redirect(f"{scene.plain_url}{scene.inner}") if scene.is_tls else None


def _redirect_nowhere(scene: Scene) -> Script:
    return _send(Answer(302))


def _uncounted(scene: Scene) -> Script:
    return _send(Answer(200, b"OK"))


def _refused_in_body(scene: Scene) -> Script:
    return _send(json_answer({"success": False, "reason": "click not found"}))


def _key_required(scene: Scene) -> Script | None:
    return None if has_key(scene.request, ()) else _send(Answer(401, b"API key required"))


def _duplicate_rejected(scene: Scene) -> Script | None:
    return _send(Answer(409, b"duplicate transaction")) if scene.repeat else None


def _no_content(scene: Scene) -> Script:
    return _send(Answer(204))


def _no_body(scene: Scene) -> Script:
    return _send(Answer(200))


def _status_missing(scene: Scene) -> Script:
    return b"HTTP/1.1\r\nContent-Length: 2\r\n\r\nOK", Ending.CLOSE


def _garbage(scene: Scene) -> Script:
    return b"\x16\x03\x01\x00\x7f\xfe\xff<html>what</html>\r\n\r\n\x00\x00", Ending.CLOSE


def _interim(scene: Scene) -> Script:
    hints = b"HTTP/1.1 103 Early Hints\r\nLink: </style.css>; rel=preload\r\n\r\n"
    return b"HTTP/1.1 100 Continue\r\n\r\n", hints, Pause(0.02), scene.normal


def _echo(scene: Scene) -> Script:
    head = scene.request.raw[: scene.request.head_length].decode("latin-1")
    told = {
        "url": f"{scene.base_url}{scene.request.target}",
        "parameters": scene.request.pairs,
        "head": head.split("\r\n")[:-2],
        "body": scene.request.body.decode("latin-1"),
    }
    return _send(json_answer(told))


BEHAVIOURS: dict[str, Behaviour] = {
    behaviour.name: behaviour
    for behaviour in (
        Behaviour("unavailable", "503 with Retry-After in seconds", _unavailable, False, "1"),
        Behaviour(
            "unavailable-date",
            "503 with Retry-After as an HTTP-date, seconds ahead",
            _unavailable_date,
            False,
            "2",
        ),
        Behaviour("too-many", "429 with Retry-After in seconds", _too_many, False, "1"),
        Behaviour("status", "the status code given, nothing counted", _status, False, "500"),
        Behaviour("uncounted", "200 OK, nothing counted", _uncounted, False),
        Behaviour("refused-in-body", "200 whose body says no, nothing counted", _refused_in_body, False),
        Behaviour("no-content", "204, counted", _no_content, True),
        Behaviour("no-body", "200 with an empty body, counted", _no_body, True),
        Behaviour("late", "the normal answer after so many seconds, counted at once", _late, True, "30"),
        Behaviour("drip", "200, then one byte of body every so many seconds, counted", _drip, True, "0.5"),
        Behaviour(
            "drip-head", "200, then header fields so many seconds apart, counted", _drip_head, True, "0.5"
        ),
        Behaviour("huge", "200 with a body of so many MB, counted", _huge, True, "50"),
        Behaviour("gzip-bomb", "200 with so many MB squeezed small, counted", _gzip_bomb, True, "50"),
        Behaviour("gzip-truncated", "200 whose gzip body ends too early, counted", _gzip_truncated, True),
        Behaviour("gzip-invalid", "200 labelled gzip that is none, counted", _gzip_invalid, True),
        Behaviour("length-too-long", "Content-Length above what comes, counted", _length_too_long, True),
        Behaviour("length-too-short", "Content-Length below what comes, counted", _length_too_short, True),
        Behaviour("reset", "connection reset after reading the request", _reset, False),
        Behaviour("reset-counted", "counted, then the connection is reset", _reset, True),
        Behaviour("reset-midway", "counted, reset in the middle of a 200's body", _reset_midway, True),
        Behaviour("hang-up", "connection closed without an answer", _hang_up, False),
        Behaviour("redirect-loop", "302 to itself for ever", _redirect_loop, False),
        Behaviour("redirect-chain", "so many 302s, then the normal answer", _redirect_chain, False, "10"),
        Behaviour(
            "redirect-private",
            "302 to a private address",
            _redirect_private,
            False,
            "10.0.0.1",
            numeric=False,
        ),
        Behaviour("redirect-downgrade", "over TLS: 302 to plain http", _redirect_downgrade, False),
        Behaviour("redirect-nowhere", "302 without Location", _redirect_nowhere, False),
        Behaviour("key-required", "401 unless a key comes along", _key_required, False),
        Behaviour(
            "duplicate-rejected",
            "409 from the second request for a conversion on",
            _duplicate_rejected,
            False,
        ),
        Behaviour("status-missing", "a status line without a status code, counted", _status_missing, True),
        Behaviour("garbage", "bytes that are no HTTP, counted", _garbage, True),
        Behaviour("interim", "100 and 103, then the normal answer, counted", _interim, True),
        Behaviour("echo", "200 whose body repeats URL, headers and body, counted", _echo, True),
    )
}

RESET_ON_CONNECT = "reset-on-connect"
"""Chosen by a rule only: the connection is reset before anything is read, so no request is recorded."""


@dataclass(frozen=True, slots=True)
class Chosen:
    """A behaviour with its argument."""

    behaviour: Behaviour
    argument: str

    @property
    def name(self) -> str:
        return f"{self.behaviour.name}:{self.argument}" if self.argument else self.behaviour.name


def choose(text: str, field: str = "behave") -> Chosen:
    """The behaviour that ``name`` or ``name:argument`` stands for. Raises SinkConfigError."""
    name, _, argument = text.partition(":")
    behaviour = BEHAVIOURS.get(name)
    if behaviour is None:
        raise SinkConfigError(
            field, f"{name!r} is no behaviour", f"Use one of: {', '.join(sorted(BEHAVIOURS))}."
        )
    if argument and not behaviour.default:
        raise SinkConfigError(field, f"{name!r} takes no argument", f"Write {name!r} alone.")
    argument = argument or behaviour.default
    if argument and behaviour.numeric:
        _check_number(name, argument, field)
    return Chosen(behaviour, argument)


def _check_number(name: str, argument: str, field: str) -> None:
    plain = argument.replace(".", "", 1)
    if not (plain.isascii() and plain.isdigit()):
        raise SinkConfigError(
            field, f"{argument!r} is no number", f"Write it as in '{name}:2' or '{name}:0.5'."
        )
    if name == "status" and not (argument.isdigit() and 200 <= int(argument) <= 999):
        raise SinkConfigError(field, f"{argument!r} is no final status code", "Use a number from 200 to 999.")
