"""Bodies as people can read them: text as it is, compressed text unpacked, anything else described."""

from __future__ import annotations

import re
import zlib
from dataclasses import dataclass

from investigations.words import visible

DECODED_CAP_BYTES = 65_536
"""Of an unpacked body; what unpacks to more is cut there, and said to be."""
HEX_BYTES = 64
"""Of a binary body, shown in hexadecimal."""
_SMALLEST_SHARE_OF_TEXT = 0.9
_LINE_ENDS = dict.fromkeys(map(ord, "\r\n\t"))


@dataclass(frozen=True, slots=True)
class ReadableBody:
    """``about`` says how the text was come by; ``lines`` are printable. ``text`` is None for a binary body."""

    about: str
    text: str | None
    lines: tuple[str, ...]


def unpacked(head: bytes, body: bytes) -> tuple[bytes, str]:
    """The body without the coding that its head claims, and in words what was done; as it came where nothing could be."""
    coding = field(head, b"content-encoding").lower()
    if coding in {"gzip", "x-gzip", "deflate"} and (plain := _unpack(body)) is not None:
        cut = ", cut there" if len(plain) >= DECODED_CAP_BYTES else ""
        return plain, f"{coding}, unpacked to {len(plain)} bytes{cut}"
    return body, "" if coding in {"", "identity"} else f"said to be {visible(coding)}, shown as received"


def readable(head: bytes, body: bytes) -> ReadableBody:
    """``head`` gives the coding and the charset, as the sender claimed them; the bytes decide."""
    body, unpacking = unpacked(head, body)
    about = [unpacking] if unpacking else []
    text = _as_text(body, field(head, b"content-type"))
    if text is None:
        about.append(
            f"binary, {'first ' if len(body) > HEX_BYTES else ''}{min(len(body), HEX_BYTES)} bytes in hexadecimal"
        )
        return ReadableBody("; ".join(about), None, (body[:HEX_BYTES].hex(" "),))
    lines = tuple(visible(each) for each in re.split(r"\r\n|\n", text.removesuffix("\n").removesuffix("\r")))
    return ReadableBody("; ".join(about), text, lines)


def field(head: bytes, name: bytes) -> str:
    """The value of a header field's first occurrence, empty if there is none."""
    found = re.search(rb"(?im)^" + re.escape(name) + rb":[ \t]*([^\r\n]*)", head)
    return found[1].decode("latin-1").strip() if found else ""


def _unpack(body: bytes) -> bytes | None:
    """As far as it came, bounded; None when it is not what it says (a masked body is kept unpacked)."""
    # gzip and zlib are told apart by their header; "deflate" is also sent without one, against RFC 9110 §8.4.1.2.
    for window in (32 + zlib.MAX_WBITS, -zlib.MAX_WBITS):
        try:
            unpacked = zlib.decompressobj(window).decompress(body, DECODED_CAP_BYTES)
        except zlib.error:
            continue
        return unpacked if unpacked or not body else None
    return None


def _as_text(body: bytes, content_type: str) -> str | None:
    try:
        text = body.decode()
    except UnicodeDecodeError as error:
        # A body cut at the cap may end inside a character.
        if error.start >= len(body) - 3 and error.reason == "unexpected end of data":
            text = body[: error.start].decode() + "\ufffd"
        elif "charset=" in content_type.lower() or content_type.lower().startswith("text/"):
            text = body.decode("latin-1")
        else:
            return None
    if text.translate(_LINE_ENDS).isprintable():
        return text
    legible = sum(one.isprintable() or one in "\r\n\t" for one in text)
    return text if legible >= _SMALLEST_SHARE_OF_TEXT * len(text) else None
