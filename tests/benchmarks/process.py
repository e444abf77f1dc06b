"""One of Holdfire's own processes for the benchmarks: the real command, which says when it is ready.

Its log, a canonical line an attempt included, goes to a file, as it would in production.
"""

from __future__ import annotations

import os
import sys

from celery.signals import beat_init, worker_ready

from tests.benchmarks.peers.processes import say_ready
from workers import cli


def _ready(**_: object) -> None:
    say_ready()


def main() -> None:
    role, log = sys.argv[1:3]
    os.dup2(os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600), sys.stderr.fileno())
    worker_ready.connect(_ready, weak=False)
    beat_init.connect(_ready, weak=False)
    if role == "work":
        cli.work(queues=",".join(cli.broker.QUEUES), lease=cli.LEASE_S, threads=cli.THREADS)
    else:
        cli.clock()


if __name__ == "__main__":
    main()
