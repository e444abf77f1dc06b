"""``holdfire sink``: run a sink in the foreground and print what it sees."""

from __future__ import annotations

import asyncio
import signal
from pathlib import Path
from typing import Annotated, Any

import orjson
import typer

from infra.sink.behaviours import BEHAVIOURS
from infra.sink.errors import SinkConfigError
from infra.sink.ledger import iso
from infra.sink.plan import read_behave_option
from infra.sink.profiles import PROFILES
from infra.sink.record import Entry
from infra.sink.server import Sink
from infra.sink.thread import new_event_loop


def register(app: typer.Typer) -> None:
    app.command("sink")(sink)


def sink(  # noqa: PLR0913, PLR0917 — a command's options are its parameters
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[
        int, typer.Option(min=0, max=65535, help="Port to listen on; 0 takes a free one.")
    ] = 8900,
    record: Annotated[Path | None, typer.Option(help="Append every request to this NDJSON file.")] = None,
    behave: Annotated[
        list[str] | None,
        typer.Option(
            metavar="[PROFILE=]BEHAVIOUR[:ARG][@TIMES]",
            help="Answer badly: 'xandr=unavailable:1@2' gives each of its click ids two 503s first.",
        ),
    ] = None,
    config: Annotated[
        Path | None, typer.Option(help="JSON file with 'profiles' (settings, issued click ids) and 'rules'.")
    ] = None,
    quiet: Annotated[bool, typer.Option("--quiet", help="Print no line per request.")] = False,
    plain: Annotated[bool, typer.Option("--plain", help="Answer 200 to everything, only count.")] = False,
    no_recording: Annotated[
        bool, typer.Option("--no-recording", help="Count and credit, but keep no requests.")
    ] = False,
    port_file: Annotated[Path | None, typer.Option(help="Write the port here once the sink listens.")] = None,
    tls_cert: Annotated[Path | None, typer.Option(help="PEM certificate; also listens with TLS.")] = None,
    tls_key: Annotated[Path | None, typer.Option(help="PEM key of the certificate.")] = None,
    tls_port: Annotated[int, typer.Option(min=0, max=65535, help="Port for TLS; 0 takes a free one.")] = 0,
) -> None:
    """Receive postbacks as the ad networks would, count what they would credit, or answer badly.

    Paths choose the network (/xandr/…, /pushground/…) and the behaviour (/bad/late:5/xandr/…).
    """
    try:
        witness = Sink(
            host=host,
            port=port,
            record=record,
            recording=not no_recording,
            plain=plain,
            config=_read_config(config, behave or []),
            tls=_tls_pair(tls_cert, tls_key),
            tls_port=tls_port,
            on_entry=None if quiet else _print_entry,
        )
        with asyncio.Runner(loop_factory=new_event_loop) as runner:
            runner.run(_serve(witness, port_file, quiet=quiet))
    except SinkConfigError as error:
        typer.echo(f"holdfire sink: {error}", err=True)
        raise typer.Exit(2) from error


def _tls_pair(certificate: Path | None, key: Path | None) -> tuple[Path, Path] | None:
    if certificate and key:
        return certificate, key
    if certificate or key:
        raise SinkConfigError("tls", "has only one of certificate and key", "Give --tls-cert and --tls-key.")
    return None


def _read_config(path: Path | None, behave: list[str]) -> dict[str, Any]:
    config: dict[str, Any] = {}
    if path:
        try:
            config = orjson.loads(path.read_bytes())
        except (OSError, orjson.JSONDecodeError) as error:
            remedy = "Name a readable file that holds a JSON object."
            raise SinkConfigError("--config", f"{path} cannot be read ({error})", remedy) from error
        if not isinstance(config, dict):
            raise SinkConfigError("--config", f"{path} holds no JSON object", 'Write {"rules": []}.')
    if behave:
        # The command line's rules come first: they were added for this one run.
        config["rules"] = [read_behave_option(text) for text in behave] + list(config.get("rules", []))
    return config


async def _serve(witness: Sink, port_file: Path | None, *, quiet: bool) -> None:
    stopped = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stopped.set)
    async with witness:
        if port_file:
            _write_port(port_file, witness.port)
        if not quiet:
            _print_welcome(witness)
        await stopped.wait()
        if not quiet:
            _print_sums(witness)


def _write_port(port_file: Path, port: int) -> None:
    """Write the port so that a reader sees the whole number or no file."""
    unfinished = port_file.with_name(f"{port_file.name}.new")
    unfinished.write_text(f"{port}\n")
    unfinished.replace(port_file)


def _print_welcome(witness: Sink) -> None:
    typer.echo(f"sink listening on {witness.url}" + (f" and {witness.tls_url}" if witness.tls_url else ""))
    typer.echo(f"  networks    {' '.join(f'/{name}/' for name in PROFILES)}")
    typer.echo(f"  behaviours  /bad/<name>[:argument]/<network>/…  {' '.join(sorted(BEHAVIOURS))}")
    typer.echo(f"  ports       {witness.refused_port} refuses connections, {witness.reset_port} resets them")
    typer.echo(f"  counts      {witness.url}/_sink/counts  /_sink/credits  /_sink/report  /_sink/requests")


def _print_entry(entry: Entry) -> None:
    judgement = entry.judgement
    outcome = "CREDITED" if judgement.credited else judgement.reason
    behaviour = f"  [{entry.behaviour}]" if entry.behaviour else ""
    repeat = "  (repeat)" if judgement.repeat else ""
    status = entry.status_code or "---"
    shown = (
        f"{iso(entry.received_at)[11:23]}  {entry.profile:<12} {status}  {outcome:<22} {judgement.click_id}"
    )
    # Click ids come from outside: a control character must not reach the terminal.
    typer.echo("".join(one if one.isprintable() else "?" for one in f"{shown}{behaviour}{repeat}"))


def _print_sums(witness: Sink) -> None:
    typer.echo("")
    for name, book in witness.books.items():
        if book.requests:
            reasons = ", ".join(f"{reason} {times}" for reason, times in sorted(book.not_credited.items()))
            typer.echo(
                f"{name:<12} {book.requests} requests, {book.credited} credited"
                + (f", {book.corrected} corrected" if book.corrected else "")
                + (f"; {reasons}" if reasons else "")
            )
