"""``holdfire export``: evidence to hand over, and the check of what was handed over."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import typer
from sqlalchemy import Engine
from typer.core import TyperGroup

from infra.catalogue import load_catalogue
from infra.filters import AsJson, AskingError, Filters, with_filters
from infra.open import open_store
from infra.settings import load_settings
from infra.store import audit
from infra.store.firing import database_now
from investigations.export.exporting import Export
from investigations.export.handing import Handing, for_support
from investigations.export.selecting import Selection, by_filters, by_ids, for_one_network
from investigations.export.signing import (
    KeyUnusableError,
    known_key,
    read_fingerprint,
    read_public_key,
    signer_of,
)
from investigations.export.summary import Totals
from investigations.export.verifying import Verification, verify_bundle
from investigations.export.writing import Form, check_output
from investigations.lookup import UnknownIdError
from investigations.page import print_json, say
from investigations.words import visible
from schemas.calendars import TimeZone
from schemas.click_mask import ClickMask
from schemas.network import Network
from schemas.support import Support

_WITH_IDS = frozenset({"destination", "network"})
"""Filters that also say what of the given conversions is meant."""


class _Defaulting(TyperGroup):
    """``export ID…`` exports; only the names of the other commands lead to them."""

    default = "evidence"

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        if not args or args[0] not in self.commands:
            args = [self.default, *args]
        return super().parse_args(ctx, args)


commands = typer.Typer(
    cls=_Defaulting,
    help="Hand over evidence: transcripts, curl commands, HAR, CSV, JSON, or all of them in a signed bundle.",
    context_settings={"help_option_names": ["-h", "--help"]},
)


def register(app: typer.Typer) -> None:
    """Add the commands to the front door."""
    app.add_typer(commands, name="export")


@commands.command("evidence")
@with_filters
def evidence(  # noqa: PLR0913 — a command's options are its parameters
    *,
    ids: Annotated[
        list[str] | None,
        typer.Argument(metavar="[ID]...", help="cv_N, pb_N, at_N or event ids, all of one kind; or filters."),
    ] = None,
    filters: Filters,
    form: Annotated[Form, typer.Option("--format", help="What it is handed over as.")] = Form.BUNDLE,
    output: Annotated[
        str, typer.Option("--output", "-o", metavar="FILE", help="Where to; - is standard output.")
    ] = "-",
    time_zone: Annotated[
        str | None,
        typer.Option("--time-zone", metavar="ZONE", help="Such as Europe/Berlin; UTC if not given."),
    ] = None,
    network_format: Annotated[
        bool,
        typer.Option(
            "--network-format",
            help="Time zone and fields as the network's support asks for; only what concerns it.",
        ),
    ] = False,
    about: Annotated[
        str, typer.Option("--about", metavar="TEXT", help="What was asked; stands on the bundle's summary.")
    ] = "",
    mask_click_ids: Annotated[
        bool, typer.Option("--mask-click-ids", help="Mask click ids wherever they stand.")
    ] = False,
    bom: Annotated[bool, typer.Option("--bom", help="Begin a CSV so that Excel reads it as UTF-8.")] = False,
    force: Annotated[bool, typer.Option("--force", help="Write over a file that is there.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say how much it would be.")] = False,
    who: Annotated[
        str | None,
        typer.Option("--as", metavar="NAME", help="Who hands it over; else the login name and the host."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Hand over evidence: transcripts, curl commands, HAR, CSV, JSON, or all of them in a signed bundle.

    Of the ids given, or of what `find` lists by the same filters. `holdfire export verify FILE` checks a bundle, `holdfire
    export key` shows the key it is signed with.
    """
    _check_chosen(ids, filters)
    if not dry_run:
        _check_output(form, output, force=force)
    with open_store() as engine, _not_found():
        chosen = _select(engine, ids or [], filters)
        handing = Handing(
            about=about,
            who=who or audit.operator(),
            selection=_described(ids or [], filters, masked=mask_click_ids),
            mask_click_ids=mask_click_ids,
        )
        chosen, handing = _handed(chosen, handing, network_format=network_format, time_zone=time_zone)
        export = Export(engine, chosen, handing, form, bom=bom)
        totals, found = (export.count(), {}) if dry_run else export.write(output, force=force)
    _tell(totals, form, found, output, dry_run=dry_run, as_json=as_json)


def _check_chosen(ids: list[str] | None, filters: Filters) -> None:
    given = filters.given()
    if ids and given - _WITH_IDS:
        odd = ", ".join(f"--{name.replace('_', '-')}" for name in sorted(given - _WITH_IDS))
        raise AskingError(
            f"export: {odd} and ids together; give one or the other (--network and --destination go with both)"
        )
    if not ids and not given:
        raise AskingError("export: give ids, or filters as for `holdfire find`")


def _check_output(form: Form, output: str, *, force: bool) -> None:
    if output != "-":
        check_output(Path(output), force=force)
    elif form is Form.BUNDLE and sys.stdout.isatty():
        raise AskingError("export: a bundle is no text for a terminal; give --output FILE")


def _select(engine: Engine, ids: list[str], filters: Filters) -> Selection:
    if ids:
        return by_ids(engine, ids, destination=filters.destination, network=filters.network)
    return by_filters(engine, filters.criteria(database_now(engine)))


def _handed(
    chosen: Selection, handing: Handing, *, network_format: bool, time_zone: str | None
) -> tuple[Selection, Handing]:
    handing = replace(handing, narrowing=chosen.narrowing)
    if network_format:
        chosen, slug = for_one_network(chosen)
        handing = for_support(replace(handing, narrowing=chosen.narrowing), _network(slug))
    if time_zone is not None:
        handing = replace(handing, zone=_zone(time_zone))
    return chosen, handing


def _network(slug: str) -> Network:
    found = load_catalogue().get(slug)
    if found is None:
        raise AskingError(
            f"--network-format: there is no file on {slug} in this version's catalogue; leave the option out"
        )
    return found


def _zone(name: str) -> TimeZone:
    try:
        return Support(time_zone=name).time_zone
    except ValueError:
        raise AskingError(
            f"--time-zone: {name!r} is no IANA time zone; write one such as Europe/Berlin"
        ) from None


def _described(ids: list[str], filters: Filters, *, masked: bool) -> str:
    """What was asked for, as it was typed."""
    words = list(ids)
    for name in sorted(filters.given()):
        value, option = getattr(filters, name), f"--{name.replace('_', '-')}"
        if isinstance(value, bool):
            words.append(option if value else f"--un{name}")
        else:
            shown = value if isinstance(value, list) else [value]
            words += [f"{option} {each}" for each in shown]
    hidden = ClickMask(each for each in (filters.click_id, filters.text) if each)
    return hidden.in_text(" ".join(words)) if masked else " ".join(words)


def _tell(  # noqa: PLR0913 — all of it is told
    totals: Totals, form: Form, found: dict[str, Any], output: str, *, dry_run: bool, as_json: bool
) -> None:
    numbers = totals.numbers()
    if dry_run:
        del numbers["hops"]
    if as_json and (dry_run or output != "-"):
        print_json([{"format": form.value, "dry_run": dry_run, **numbers, **found}])
    counted = ", ".join(
        f"{count} {name if count != 1 else name.removesuffix('s')}" for name, count in numbers.items()
    )
    say(f"Would hand over {counted}." if dry_run else f"Handed over {counted}.")
    if "fingerprint" in found:
        say(f"Signed by the key with fingerprint {found['fingerprint']}")


@contextmanager
def _not_found() -> Iterator[None]:
    try:
        yield
    except UnknownIdError as error:
        say(f"holdfire: {error}")
        raise typer.Exit(1) from error


@commands.command("verify")
def verify(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="A bundle.")],
    key: Annotated[
        str | None,
        typer.Option(
            "--key",
            metavar="KEY",
            help="The key it has to be signed with: a fingerprint, or a file with the public key.",
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Check a bundle: whether everything is there, unchanged, and signed by whom.

    Exit code 1 if something does not hold. Needs no database.
    """
    try:
        with file.open("rb") as source:
            answer = verify_bundle(source, trusted=None if key is None else _fingerprint(key), known=_known())
    except OSError as error:
        raise AskingError(
            f"export verify: {file}: {error.strerror}; give a bundle that can be read"
        ) from None
    if as_json:
        print_json([_as_json(answer)])
    else:
        for finding in answer.findings:
            typer.echo(f"{'holds' if finding.holds else 'FAILS'}  {finding.words}")
        _tell_about(answer)
    if not answer.holds:
        raise typer.Exit(1)


def _tell_about(answer: Verification) -> None:
    manifest = answer.manifest
    if manifest is not None:
        counts = ", ".join(f"{count} {name}" for name, count in manifest.counts.items())
        made = f"made   {manifest.made_at.isoformat()} by {manifest.made_by}, Holdfire {manifest.version}: {counts}"
        typer.echo(visible(made))
    typer.echo("This bundle holds." if answer.holds else "This bundle does not hold.")


def _as_json(answer: Verification) -> dict[str, Any]:
    return {
        "holds": answer.holds,
        "fingerprint": answer.fingerprint,
        "findings": [{"holds": each.holds, "words": each.words} for each in answer.findings],
    }


def _fingerprint(text: str) -> str:
    if (read := read_fingerprint(text)) is not None:
        return read
    try:
        return read_public_key(Path(text).read_bytes()).fingerprint
    except (OSError, ValueError):
        raise AskingError(
            f"--key: {text!r} is neither a fingerprint nor a file with an Ed25519 public key in PEM"
        ) from None


def _known() -> str | None:
    try:
        own = known_key(load_settings())
    except KeyUnusableError:
        return None
    return own.fingerprint if own else None


@commands.command("key")
def key_(as_json: AsJson = False) -> None:
    """Show the key that bundles are signed with: its fingerprint, and the public key for those who check them.

    Made if there is none yet.
    """
    public = signer_of(load_settings()).public
    if as_json:
        print_json([{"fingerprint": public.fingerprint, "public_key": public.pem.decode()}])
        return
    typer.echo(f"fingerprint  {public.fingerprint}")
    typer.echo(public.pem.decode().rstrip())
