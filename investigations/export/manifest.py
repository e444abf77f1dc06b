"""The manifest of a bundle: every file with its size and SHA-256, who made it, when, of what. It is what is signed. Pure."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from investigations.export.inert import inert_json
from investigations.jsonable import instant

FORMAT = "holdfire-evidence/1"
MANIFEST, SIGNATURE, KEY = "manifest.json", "manifest.sig", "signing-key.pem"
UNLISTED = (MANIFEST, SIGNATURE, KEY)
"""Files of a bundle that its manifest cannot list."""


@dataclass(frozen=True, slots=True)
class FileRecord:
    """``size`` in bytes, ``sha256`` hexadecimal."""

    size: int
    sha256: str


@dataclass(frozen=True, slots=True)
class Manifest:
    """What a bundle says of itself."""

    made_at: datetime
    made_by: str
    version: str
    about: str
    selection: str
    network: str | None
    time_zone: str
    click_ids_masked: bool
    counts: Mapping[str, int]
    missing: tuple[str, ...]
    fingerprint: str
    files: Mapping[str, FileRecord]

    def encode(self) -> bytes:
        """The bytes that are signed: one line a file, printable ASCII, the same for the same manifest."""
        told: dict[str, Any] = {
            "format": FORMAT,
            "made_at": instant(self.made_at),
            "made_by": self.made_by,
            "holdfire": self.version,
            "about": self.about,
            "selection": self.selection,
            "network": self.network,
            "time_zone": self.time_zone,
            "click_ids_masked": self.click_ids_masked,
            "counts": dict(self.counts),
            "missing": list(self.missing),
            "key": {"algorithm": "ed25519", "fingerprint": self.fingerprint},
        }
        lines = [f"{inert_json(name)}: {inert_json(value)}" for name, value in told.items()]
        files = [
            f"  {inert_json(name)}: {inert_json({'size': each.size, 'sha256': each.sha256})}"
            for name, each in sorted(self.files.items())
        ]
        listed = '"files": {\n' + ",\n".join(files) + "\n}"
        return ("{\n" + ",\n".join([*lines, listed]) + "\n}\n").encode("ascii")


def read_manifest(raw: bytes) -> Manifest:
    """The manifest in these bytes. Raises ValueError for what is none, or of a format this version does not know."""
    told = json.loads(raw, object_pairs_hook=_each_once)
    try:
        if told["format"] != FORMAT:
            raise ValueError(f"its format is {told['format']!r}, and this Holdfire reads {FORMAT}")
        return Manifest(
            made_at=datetime.fromisoformat(told["made_at"]),
            made_by=str(told["made_by"]),
            version=str(told["holdfire"]),
            about=str(told["about"]),
            selection=str(told["selection"]),
            network=told["network"],
            time_zone=str(told["time_zone"]),
            click_ids_masked=bool(told["click_ids_masked"]),
            counts={str(name): int(count) for name, count in told["counts"].items()},
            missing=tuple(map(str, told["missing"])),
            fingerprint=str(told["key"]["fingerprint"]),
            files={
                str(name): FileRecord(int(each["size"]), str(each["sha256"]))
                for name, each in told["files"].items()
            },
        )
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"it does not say what a manifest says ({type(error).__name__}: {error})") from None


def _each_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Two values of one name would be read one way here and another way elsewhere."""
    read = dict(pairs)
    if len(read) < len(pairs):
        raise ValueError("it says something twice")
    return read
