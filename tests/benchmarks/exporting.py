"""``python -m tests.benchmarks.exporting``: how long a bundle of many attempts takes, and how much memory.

Each bundle is made by a process of its own, so that the memory is that of one bundle. Read the times as ratios.
"""

from __future__ import annotations

import argparse
import random
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

from infra.db.engine import open_engine
from infra.db.migrate import migrate
from infra.embedded.use import use_engines
from tests.integration.exhibits import many, set_out

BODY_BYTES = 2_000
MEASURED = """
import resource, sys, time
from pathlib import Path
from infra.db.engine import open_engine
from investigations.export.bundle import write_bundle
from investigations.export.handing import Handing
from investigations.export.signing import open_signer
from investigations.export.verifying import verify_bundle
url, count, folder, masked = sys.argv[1], int(sys.argv[2]), Path(sys.argv[3]), sys.argv[4] == "masked"
engine, signer = open_engine(url), open_signer(folder)
ids = range(1_000_001, 1_000_001 + count)
began = time.perf_counter()
with (folder / "b.zip").open("wb") as target:
    made = write_bundle(engine, ids, target, signer=signer, about="", handing=Handing(mask_click_ids=masked))
took = time.perf_counter() - began
with (folder / "b.zip").open("rb") as source:
    began = time.perf_counter()
    assert verify_bundle(source, trusted=signer.public.fingerprint).holds
    checked = time.perf_counter() - began
unpacked = sum(each.size for each in made.files.values()) / 1e6
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
print(f"{made.counts['attempts']:>8} attempts{', click ids masked' if masked else '':<18} {took:7.1f} s  verified in {checked:5.1f} s  peak {peak:5.0f} MB"
      f"  {unpacked:7.1f} MB in a zip of {(folder / 'b.zip').stat().st_size / 1e6:.1f} MB")
"""


def main() -> None:
    """Make bundles of a tenth of the attempts, of all of them, and of a tenth with click ids masked."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--attempts", type=int, default=10_000)
    count = parser.parse_args().attempts
    with TemporaryDirectory() as folder, use_engines(Path(folder) / "engines", valkey=False) as engines:
        engine = open_engine(engines.database_url)
        migrate(engine)
        set_out(engine)
        many(engine, count, bytes(random.Random(1).choices(b"abcdefghij <>{}\n", k=BODY_BYTES)))
        engine.dispose()
        for attempts, masked in ((count // 10, "clear"), (count, "clear"), (count // 10, "masked")):
            command = [sys.executable, "-c", MEASURED, engines.database_url, str(attempts), folder, masked]
            subprocess.run(command, check=True)


if __name__ == "__main__":
    main()
