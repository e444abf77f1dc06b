"""The draft for a network's support: a letter, the disputed conversions as a table, and the evidence of each in a bundle."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from hashlib import sha256
from itertools import islice
from typing import BinaryIO, Final

from sqlalchemy import Engine

from infra.catalogue import load_catalogue
from infra.settings import Settings, load_settings
from infra.store import audit
from infra.store.reports import reports
from infra.store.reports.reports import FindingRecord, ReportRecord
from investigations.export.bundle import write_bundle
from investigations.export.cells import csv_text
from investigations.export.exhibit import Narrowing
from investigations.export.handing import Handing, for_support
from investigations.export.signing import signer_of
from investigations.reconcile.pages import FINDING_FIELDS, amounts, bucket_name, finding_json, percent
from schemas.ids import show
from schemas.reconciling.findings import CAUSES, Bucket, Side
from schemas.reconciling.summary import Summary

MOST_EXCHANGES: Final = 500
"""Conversions that come with their whole exchanges: no support reads more, and it asks for others by their line."""
MOST_LINES: Final = 100_000
"""Findings in the table of the draft; the whole of it is ``holdfire reports export --side network``."""


@dataclass(frozen=True, slots=True)
class SupportDraft:
    """What a draft holds, and how many findings are more than it has the exchanges of."""

    findings: int
    conversions: int
    left_out: int


def disputed(engine: Engine, report: ReportRecord) -> Iterator[FindingRecord]:
    """What is to be put to the network: those of its side."""
    return reports.all_findings(engine, report.id, side=Side.NETWORK)


def write_support(
    engine: Engine,
    report: ReportRecord,
    target: BinaryIO,
    *,
    who: str | None = None,
    settings: Settings | None = None,
) -> SupportDraft:
    """Write the draft, a signed zip, to ``target``: ``extra/letter.txt``, ``extra/disputed.csv``, and the evidence."""
    found = list(islice(disputed(engine, report), MOST_LINES))
    conversions = list(dict.fromkeys(each.conversion_id for each in found if each.conversion_id is not None))
    rows = ([_cell(finding_json(each)[name]) for name in FINDING_FIELDS] for each in found)
    whole = (
        0
        if report.summary is None
        else sum(each.count for each in report.summary.causes if each.side is Side.NETWORK)
    )
    chosen = conversions[:MOST_EXCHANGES]
    about = f"{show('rp', report.id)}: discrepancies with {report.file_name}"
    handing = Handing(
        about=about,
        who=who or audit.operator(),
        selection=f"disputed by {show('rp', report.id)}",
        # Whatever the network: it is told nothing of what others, or another account of ours, were sent.
        narrowing=Narrowing(destinations=frozenset({report.destination})),
    )
    network = load_catalogue().get(report.network)
    manifest = write_bundle(
        engine,
        chosen,
        target,
        signer=signer_of(settings or load_settings()),
        about=about,
        extra={
            "letter.txt": letter(report, found, whole).encode(),
            "disputed.csv": "".join(csv_text(FINDING_FIELDS, rows)).encode(),
        },
        handing=handing if network is None else for_support(handing, network),
    )
    audit.record(
        engine,
        who=handing.who,
        action="evidence.export",
        detail={
            "form": "support",
            "report": show("rp", report.id),
            "destination": report.destination,
            "findings": len(found),
            "conversions": len(chosen),
            "manifest_sha256": sha256(manifest.encode()).hexdigest(),
        },
    )
    return SupportDraft(
        len(found), len(chosen), max(whole, len(found)) - len(found) + len(conversions) - len(chosen)
    )


def _cell(value: object) -> str:
    return "" if value is None else str(value)


def letter(report: ReportRecord, found: list[FindingRecord], whole: int) -> str:
    """The draft's text: what was compared, what differs, and what is asked for. To be read before it is sent."""
    summary = report.summary
    days = f"from {report.first_day} to {report.last_day}" if report.first_day else "of all days"
    zone = report.options.time_zone or "UTC"
    parts = [
        f"Conversions {days} ({zone}) at {report.network}: your report beside our delivery log",
        "",
        f"Your report: {report.file_name}, {report.rows:,} rows, SHA-256 {report.sha256}",
        *([] if summary is None else _figures(summary)),
        "",
        "What we ask you to look at:",
        *_asked(summary),
        "",
        (
            f"{whole:,} conversions are listed in disputed.csv, one a line, with our click id, order id and value as we sent them"
            " and as your report has them. For each of them this archive holds the request as it left us and your server's answer"
            " as we received it, byte for byte, with times and addresses."
        ),
        "",
        "Please tell us for each of them whether it was received, whether it was counted, and if not, why.",
    ]
    if whole > len(found):
        parts.append(f"The table is cut at {len(found):,} of {whole:,} lines; we can send the others.")
    return "\n".join(parts) + "\n"


def _figures(summary: Summary) -> Iterator[str]:
    yield f"We delivered {summary.told:,} conversions of these days; your report counts {summary.listed:,}."
    for each in summary.buckets:
        if each.disputed and each.bucket is not Bucket.MATCHED:
            yield f"  {bucket_name(each.bucket)}: {each.disputed:,} ({percent(each.disputed_share)}), {amounts(each.stakes)}"


def _asked(summary: Summary | None) -> Iterator[str]:
    for each in () if summary is None else summary.causes:
        if each.side is Side.NETWORK:
            yield f"  - {bucket_name(each.bucket)}, {CAUSES[each.cause].title}: {each.count:,} conversions, {amounts(each.amounts)}"
