"""What both Celery contestants share: the settings of a well-kept Celery on Redis, and how its worker is run.

Off is whatever costs and gives nothing here: results, events, gossip, mingle, heartbeats, remote control, rate
limits, a log line a task. Tried and without effect: prefetch 4 to 128 (1 costs a quarter), hiredis.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping

from celery.platforms import SecurityWarning
from kombu import Connection

from tests.benchmarks.peers import processes

# Said to whoever runs benchmarks as root, and it is about pickled messages, of which there are none.
warnings.filterwarnings("ignore", category=SecurityWarning)

SETTINGS = {
    "task_acks_late": True,
    "task_reject_on_worker_lost": True,
    "task_ignore_result": True,
    "task_serializer": "json",
    "accept_content": ["json"],
    "worker_prefetch_multiplier": 64,
    "worker_disable_rate_limits": True,
    "worker_enable_remote_control": False,
    "worker_send_task_events": False,
    "worker_hijack_root_logger": False,
    "worker_redirect_stdouts": False,
    "broker_connection_retry_on_startup": True,
    "broker_transport_options": {"visibility_timeout": 3600},
}


def start_worker(module: str, queue: str, environment: Mapping[str, str]) -> processes.Child:
    """Start one worker with a prefork pool of two processes, and wait until it consumes."""
    quiet = ["--without-gossip", "--without-mingle", "--without-heartbeat", "--loglevel", "ERROR"]
    pool = ["--pool", "prefork", "--concurrency", "2", "-O", "fair"]
    child = processes.Child(
        "celery",
        "--app",
        module,
        "--quiet",
        "worker",
        "--queues",
        queue,
        *pool,
        *quiet,
        environment=environment,
    )
    child.wait_ready()
    return child


def empty_queue(broker_url: str, queue: str) -> None:
    """Forget what an earlier measurement left in the queue, taken and not acknowledged messages included."""
    with Connection(broker_url) as connection:
        connection.default_channel.client.delete(queue, "unacked", "unacked_index")
