"""A report of a million rows beside a log of a million deliveries: how long, and how much memory of ours."""

from __future__ import annotations

import os
import subprocess
import sys
import time
import zipfile
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from xml.sax.saxutils import escape

import orjson
import psutil
from sqlalchemy import Engine, text

from infra.db.engine import open_engine
from infra.db.migrate import migrate
from infra.embedded import Engines
from infra.store import destinations
from tests.integration.ground import contract

FULL = 1_000_000
DESTINATION = "bench"
_POLL_S = 0.05


def reconciling(engines: Engines, rounds: int, scale: float) -> None:
    """Both forms of the report, each in a process of its own; the log holds what is held, voided and refused besides."""
    engine = open_engine(engines.database_url)
    migrate(engine)
    rows = int(FULL * scale)
    started = time.perf_counter()
    load(engine, rows)
    print(
        f"{rows:,} deliveries and {rows // 20:,} others loaded in {time.perf_counter() - started:.0f} s",
        flush=True,
    )
    with TemporaryDirectory(prefix="holdfire-report-") as folder:
        csv = Path(folder) / "report.csv"
        write_csv(engine, csv)
        book = Path(folder) / "report.xlsx"
        write_workbook(csv, book)
        for path in (csv, book):
            for number in range(rounds):
                measure(engines, path, again=False)
                if number == 0:
                    measure(engines, path, again=True)
                forget(engine)
    engine.dispose()


def measure(engines: Engines, path: Path, *, again: bool) -> None:
    """One reconciliation by the command itself."""
    environment = os.environ | {"HOLDFIRE_DATABASE_URL": engines.database_url}
    command = [sys.executable, "-m", "holdfire", "reconcile", DESTINATION, str(path), "--json"]
    started, spent = time.perf_counter(), _server_cpu(engines)
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE) as child:
        peak, cpu = _watch(child)
        assert child.stdout is not None
        report = orjson.loads(child.stdout.read())
    seconds = time.perf_counter() - started
    assert child.returncode in {0, 1}
    found = {each["bucket"]: each["count"] for each in report["summary"]["buckets"]}
    which = "again" if again else "first run"
    print(f"{path.suffix[1:]}, {which}: {report['rows']:,} rows ({path.stat().st_size / 1e6:.0f} MB) in {seconds:.1f} s, "
          f"{cpu:.1f} s of CPU ours and {_server_cpu(engines) - spent:.1f} s PostgreSQL's, load {os.getloadavg()[0]:.0f}, peak {peak / 2**20:.0f} MB; {found}", flush=True)  # fmt: skip


def _server_cpu(engines: Engines) -> float:
    """CPU seconds of the server and all its processes, those that have ended included."""
    if not engines.postgres_pid:
        return 0.0
    server = psutil.Process(engines.postgres_pid)
    own = server.cpu_times()
    total = own.user + own.system + own.children_user + own.children_system
    for child in server.children(recursive=True):
        with suppress(psutil.NoSuchProcess):
            times = child.cpu_times()
            total += times.user + times.system
    return float(total)


def _watch(child: subprocess.Popen[bytes]) -> tuple[int, float]:
    """Peak resident memory and CPU seconds of a process until it ends."""
    watched, peak, cpu = psutil.Process(child.pid), 0, 0.0
    while child.poll() is None:
        try:
            peak = max(peak, watched.memory_info().rss)
            spent = watched.cpu_times()
        except psutil.NoSuchProcess:
            break
        cpu = spent.user + spent.system
        time.sleep(_POLL_S)
    return peak, cpu


def load(engine: Engine, rows: int) -> None:
    """Deliveries over a month, and a twentieth as many that are held, voided or refused."""
    destinations.apply(engine, {DESTINATION: contract(DESTINATION, "https://net.example/p?c={click_id}&v={value}",
                                                      dedupe="harmless", rules={"sub_id": True})}, who="bench")  # fmt: skip
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(text("SET statement_timeout = 0"))
        for statement in _LOAD:
            connection.execute(text(statement), {"n": rows, "all": rows + rows // 20})
        connection.execute(text("VACUUM ANALYZE conversions, postbacks, attempts, hops"))


_TOKEN = "'nym1' || translate(encode(sha256(convert_to(n::text, 'UTF8')), 'base64'), '+/=', '-_') || '.'"
_AT = "date_trunc('month', now()) - interval '1 month' + n * (interval '28 days' / :all)"
_LOAD = (
    f"""
    INSERT INTO conversions (source, event_id, name, order_id, click_ids, occurred_at, received_at, value, net_value,
        currency, routed, event)
    SELECT 'bench', 'e' || n, 'purchase', 'order-' || n, ARRAY[{_TOKEN}], {_AT}, {_AT}, 49.90, 49.90, 'EUR', 1,
        json_build_object('version', 1, 'type', 'conversion', 'event_id', 'e' || n, 'source', 'bench', 'name', 'purchase',
            'occurred_at', {_AT}, 'order_id', 'order-' || n, 'value', '49.90', 'currency', 'EUR',
            'click_ids', json_build_object('generic', {_TOKEN}))
    FROM generate_series(1, :all) n""",
    """
    INSERT INTO postbacks (conversion_id, version_id, state, release_at, due_at, attempts, first_attempt_at, settled_at,
        void_reason, reason)
    SELECT id, (SELECT max(id) FROM destination_versions), s.state, occurred_at,
        CASE WHEN s.state = 'held' THEN now() + interval '1 day' END, (s.state IN ('delivered', 'rejected'))::integer,
        occurred_at, CASE WHEN s.state <> 'held' THEN occurred_at END, CASE WHEN s.state = 'voided' THEN 'refunded' END, s.state
    FROM conversions CROSS JOIN LATERAL (SELECT CASE WHEN id <= :n THEN 'delivered'
        ELSE (ARRAY['held', 'voided', 'rejected'])[1 + id % 3] END AS state) s""",
    """
    INSERT INTO attempts (id, postback_id, version_id, number, status_code, intent_at, ended_at, trigger, worker,
        worker_version, verdict, rule, state, click_id)
    SELECT nextval('attempt_ids'), p.id, p.version_id, 1, CASE WHEN p.state = 'delivered' THEN 200 ELSE 302 END,
        p.settled_at, p.settled_at, 'release', 'bench', '0', p.state, 'status', p.state, c.click_ids[1]
    FROM postbacks p JOIN conversions c ON c.id = p.conversion_id WHERE p.attempts > 0""",
    """
    INSERT INTO hops (attempt_id, intent_at, started_at, body_length, number, status_code, reused, truncated, method, url,
        request_head, request_body, addresses, response_head, body)
    SELECT id, intent_at, intent_at, 2, 1, status_code, true, false, 'GET', 'https://net.example/p', '', '', '', '', 'OK'
    FROM attempts""",
)  # fmt: skip


def write_csv(engine: Engine, path: Path) -> None:
    """The network's report, with one row in a hundred wrong in one of five ways."""
    query = """COPY (
        SELECT CASE n % 500 WHEN 1 THEN left(token, 30) WHEN 2 THEN lower(token) WHEN 3 THEN rtrim(token, '.') ELSE token END
                AS "Click ID", CASE n % 500 WHEN 6 THEN 'stranger-' || n ELSE order_id END AS "Order ID",
            CASE n % 500 WHEN 4 THEN 44.90 ELSE 49.90 END AS "Payout", 'EUR' AS "Currency",
            to_char(CASE n % 500 WHEN 5 THEN at + interval '1 day' ELSE at END, 'YYYY-MM-DD HH24:MI:SS') AS "Conversion time"
        FROM (SELECT c.id AS n, CASE c.id % 500 WHEN 6 THEN 'x' || c.click_ids[1] ELSE c.click_ids[1] END AS token, c.order_id,
            c.occurred_at AT TIME ZONE 'UTC' AS at
            FROM conversions c JOIN postbacks p ON p.conversion_id = c.id WHERE p.state = 'delivered') listed
        ) TO STDOUT (FORMAT csv, HEADER)"""
    with engine.connect() as connection, path.open("wb") as target:
        connection.execute(text("SET statement_timeout = 0"))
        connection.connection.driver_connection.cursor().copy_expert(query, target)  # type: ignore[union-attr]


_CONTENT = "http://schemas.openxmlformats.org/package/2006/content-types"
_MAIN = "http://schemas.openxmlformats.org/spreadsheetml/2006/main"
_RELATIONS = "http://schemas.openxmlformats.org/officeDocument/2006/relationships"
_PACKAGE = "http://schemas.openxmlformats.org/package/2006/relationships"
_XML = '<?xml version="1.0" encoding="UTF-8"?>'


def write_workbook(csv: Path, path: Path) -> None:
    """The same as a workbook, every text a shared string as spreadsheets write them."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as book:
        book.writestr("xl/workbook.xml", f'{_XML}<workbook xmlns="{_MAIN}" xmlns:r="{_RELATIONS}"><sheets>'
                      '<sheet name="Report" sheetId="1" r:id="rId1"/></sheets></workbook>')  # fmt: skip
        book.writestr("xl/_rels/workbook.xml.rels", f'{_XML}<Relationships xmlns="{_PACKAGE}">'
                      f'<Relationship Id="rId1" Type="{_RELATIONS}/worksheet" Target="worksheets/sheet1.xml"/>'
                      f'<Relationship Id="rId2" Type="{_RELATIONS}/sharedStrings" Target="sharedStrings.xml"/>'
                      "</Relationships>")  # fmt: skip
        book.writestr("[Content_Types].xml", f'{_XML}<Types xmlns="{_CONTENT}"/>')
        with book.open("xl/worksheets/sheet1.xml", "w", force_zip64=True) as sheet:
            sheet.write(f'{_XML}<worksheet xmlns="{_MAIN}"><sheetData>'.encode())
            shared = 0
            for number, cells in enumerate(_lines(csv), 1):
                written = []
                for column, cell in zip("ABCDE", cells, strict=True):
                    if column == "C" and number > 1:
                        written.append(f'<c r="C{number}"><v>{cell}</v></c>')
                    else:
                        written.append(f'<c r="{column}{number}" t="s"><v>{shared}</v></c>')
                        shared += 1
                sheet.write(f'<row r="{number}">{"".join(written)}</row>'.encode())
            sheet.write(b"</sheetData></worksheet>")
        with book.open("xl/sharedStrings.xml", "w", force_zip64=True) as strings:
            strings.write(f'{_XML}<sst xmlns="{_MAIN}">'.encode())
            for number, cells in enumerate(_lines(csv), 1):
                kept = cells if number == 1 else [*cells[:2], *cells[3:]]
                strings.write("".join(f"<si><t>{escape(cell)}</t></si>" for cell in kept).encode())
            strings.write(b"</sst>")


def _lines(path: Path) -> Iterator[list[str]]:
    with path.open(encoding="utf-8", newline="") as source:
        for line in source:
            yield line.rstrip("\r\n").split(",")


def forget(engine: Engine) -> None:
    """The next run is a first one again."""
    with engine.begin() as connection:
        connection.execute(
            text(
                "TRUNCATE reports, report_rows, report_matches, report_findings, report_mappings, reconciled"
            )
        )
