"""The queue on a real RabbitMQ, where there is one: RabbitMQ comes in no wheel, so a machine without it skips these."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from pathlib import Path

import pytest
from kombu import Connection
from sqlalchemy import Engine

from infra import broker
from infra.doctor.queue import examine_broker
from infra.sink import SinkThread
from producers.client import BrokerUnavailableError, Holdfire
from tests.integration.ground import (
    Ground,
    contract,
    conversion,
    generic_url,
    until,
)
from tests.integration.test_undecodable import GOOD, publish

# Debian's script on the PATH wants to be root or rabbitmq and keeps its data in /var; the one behind it does not.
FOLDERS = os.pathsep.join(["/usr/lib/rabbitmq/bin", os.environ.get("PATH", os.defpath), "/usr/sbin"])
SERVER, CONTROL, PORT_MAPPER = (
    shutil.which(name, path=FOLDERS) for name in ("rabbitmq-server", "rabbitmqctl", "epmd")
)

pytestmark = pytest.mark.skipif(
    not (SERVER and CONTROL and PORT_MAPPER),
    reason="no rabbitmq-server with its rabbitmqctl and Erlang's epmd is installed here, and it comes in no wheel",
)


class Rabbit:
    """One RabbitMQ node on loopback, with ports, data and an Erlang port mapper of its own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.port, distribution, mapper = free_ports(3)
        self.url = f"amqp://guest:guest@127.0.0.1:{self.port}//"
        for name, content in (("rabbitmq.conf", ""), ("env.conf", ""), ("enabled_plugins", "[].\n")):
            (folder / name).write_text(content)
        self._environment = {
            "PATH": FOLDERS,
            "HOME": str(folder),
            "LANG": "C.UTF-8",
            "RABBITMQ_NODENAME": f"holdfire-test-{self.port}@localhost",
            "RABBITMQ_NODE_IP_ADDRESS": "127.0.0.1",
            "RABBITMQ_NODE_PORT": str(self.port),
            "RABBITMQ_DIST_PORT": str(distribution),
            "RABBITMQ_MNESIA_BASE": str(folder / "data"),
            "RABBITMQ_LOG_BASE": str(folder / "log"),
            "RABBITMQ_CONFIG_FILE": str(folder / "rabbitmq.conf"),
            "RABBITMQ_CONF_ENV_FILE": str(folder / "env.conf"),
            "RABBITMQ_ADVANCED_CONFIG_FILE": str(folder / "advanced.config"),
            "RABBITMQ_ENABLED_PLUGINS_FILE": str(folder / "enabled_plugins"),
            # One scheduler that does not spin: the machine has others to serve.
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": "+S 1:1 +sbwt none -kernel inet_dist_use_interface {127,0,0,1}",
            "ERL_EPMD_PORT": str(mapper),
            "ERL_EPMD_ADDRESS": "127.0.0.1",
        }
        self._server: subprocess.Popen[bytes] | None = None
        # Else Erlang starts one as a daemon, which outlives us.
        self._mapper = subprocess.Popen([str(PORT_MAPPER), "-port", str(mapper), "-address", "127.0.0.1"])

    def start(self) -> None:
        with (self.folder / "output").open("ab") as output:
            self._server = subprocess.Popen(
                [str(SERVER)],
                cwd=self.folder,
                env=self._environment,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        until(self._answers, 40)

    def kill(self) -> None:
        if self._server is not None:
            os.killpg(self._server.pid, signal.SIGKILL)
            self._server.wait()
            self._server = None

    def wipe(self) -> None:
        shutil.rmtree(self.folder / "data")

    def queues(self) -> dict[str, str]:
        """The queues that are there, and their types."""
        listed = json.loads(self.control("--formatter", "json", "list_queues", "name", "type"))
        # The type's spelling differs between versions: quorum, or rabbit_quorum_queue.
        return {row["name"]: row["type"] for row in listed}

    def control(self, *arguments: str) -> bytes:
        """What ``rabbitmqctl`` says."""
        return subprocess.run(
            [str(CONTROL), "--quiet", *arguments],
            cwd=self.folder,
            env=self._environment,
            capture_output=True,
            check=True,
            timeout=30,
        ).stdout

    def end(self) -> None:
        self.kill()
        self._mapper.terminate()
        self._mapper.wait()

    def _answers(self) -> bool:
        assert self._server is not None
        assert self._server.poll() is None, (self.folder / "output").read_text("utf-8", "replace")[-2000:]
        with suppress(OSError), Connection(self.url, connect_timeout=2) as connection:
            connection.connect()
            return True
        return False


def free_ports(count: int) -> list[int]:
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]


@pytest.fixture(scope="module")
def rabbit(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rabbit]:
    node = Rabbit(tmp_path_factory.mktemp("rabbitmq"))
    try:
        node.start()
        yield node
    finally:
        node.end()


@pytest.fixture(scope="module")
def processes(rabbit: Rabbit, database_url: str) -> Iterator[list[subprocess.Popen[bytes]]]:
    """One worker and one clock, as `holdfire up` runs them."""
    urls = {
        "HOLDFIRE_DATABASE_URL": database_url,
        "HOLDFIRE_BROKER_URL": rabbit.url,
        "HOLDFIRE_LOG_FORMAT": "json",
    }
    running = [
        subprocess.Popen([sys.executable, "-m", "holdfire", *command], env={**os.environ, **urls})
        for command in (("work", "--lease", "3"), ("clock",))
    ]
    yield running
    for process in running:
        process.terminate()
    for process in running:
        process.wait(30)


@pytest.fixture(scope="module")
def sink() -> Iterator[SinkThread]:
    with SinkThread() as running:
        yield running


@pytest.fixture(scope="module")
def ground(engine: Engine, sink: SinkThread) -> Ground:
    """One destination, five attempts at a time, for all tests here."""
    ground = Ground(engine)
    ground.apply(contract("d", generic_url(sink.url), limits={"concurrency": 5}, dedupe="harmless"))
    return ground


@pytest.fixture
def client(rabbit: Rabbit) -> Iterator[Holdfire]:
    with Holdfire(rabbit.url) as opened:
        yield opened


def delivered(ground: Ground, prefix: str) -> int:
    """How many events whose id begins so are delivered."""
    return int(
        ground.one(
            """
            SELECT count(*) FROM postbacks p JOIN conversions c ON c.id = p.conversion_id
            WHERE p.state = 'delivered' AND c.event_id LIKE :prefix || '%'""",
            prefix=prefix,
        )
    )


def test_depth_is_what_waits_and_nothing_where_no_queue_is(rabbit: Rabbit, client: Holdfire) -> None:
    """Before anything was sent there is no queue; two messages later two wait, however the depth is asked for."""
    gauge = broker.Gauge(broker.celery_app(rabbit.url))
    assert (client.queued(), gauge.depth(broker.EVENTS)) == (0, 0)
    client.enqueue(conversion("first"))
    client.enqueue(conversion("second"))
    until(lambda: (client.queued(), gauge.depth(broker.EVENTS)) == (2, 2))
    gauge.close()


def test_what_is_published_is_committed_and_fired(
    processes: list[subprocess.Popen[bytes]], ground: Ground, client: Holdfire
) -> None:
    """A thousand events through the SDK, intake, the clock's ticks and the hints end as delivered postbacks."""
    report = client.enqueue_many(conversion(f"e{number}") for number in range(1000))
    assert (report.sent, report.messages) == (1000, 2)
    until(lambda: delivered(ground, "e") == 1000, 30)
    until(lambda: client.queued() == 0)


def test_only_our_queues_are_there_and_all_are_quorum_queues(
    processes: list[subprocess.Popen[bytes]], rabbit: Rabbit
) -> None:
    """No classic one, and none of those in which Celery would hold tasks with an ETA; the doctor finds nothing."""
    until(lambda: len(rabbit.queues()) >= len(broker.QUEUES))
    queues = rabbit.queues()
    assert sorted(queues) == sorted(broker.QUEUES)
    assert all("quorum" in kind for kind in queues.values())
    findings = examine_broker(rabbit.url)
    assert {finding.level for finding in findings} == {"ok"}
    assert findings[0].says.startswith("RabbitMQ ")


def test_poison_is_kept_and_the_next_message_is_taken(
    processes: list[subprocess.Popen[bytes]], rabbit: Rabbit, ground: Ground
) -> None:
    """What is no call of ours becomes a reject, is not given again, and ends no worker."""
    good = json.dumps([[[GOOD]], {}, {}])
    publish(rabbit.url, "no json", broker.INTAKE_TASK)
    publish(rabbit.url, good, "somebody.elses.task")
    publish(rabbit.url, json.dumps({"x": 1}), broker.INTAKE_TASK)
    publish(rabbit.url, b"\x80\x04pickle", broker.INTAKE_TASK, "application/x-python-serialize")
    publish(rabbit.url, good, broker.INTAKE_TASK)
    until(lambda: ground.one("SELECT count(*) FROM signals") == 1)
    until(lambda: ground.one("SELECT count(*) FROM rejects") == 4)
    codes = {row.code for row in ground.rows("SELECT code FROM rejects")}
    assert codes == {"undecodable", "unknown_task", "no_task_call", "invalid_call"}
    assert all(process.poll() is None for process in processes)


@pytest.mark.parametrize("data", ["kept", "wiped"])
def test_a_broker_that_was_killed_is_found_again_by_all(
    processes: list[subprocess.Popen[bytes]], rabbit: Rabbit, ground: Ground, client: Holdfire, data: str
) -> None:
    """SIGKILL mid-fire, its data kept or gone: SDK, worker and clock go on, nothing committed is lost, none ended."""
    before = len(ground.rows("SELECT FROM hops"))
    client.enqueue_many(conversion(f"{data}{number}") for number in range(500))
    until(lambda: len(ground.rows("SELECT FROM hops")) > before, 20)
    rabbit.kill()
    client.deadline_s = 0.5
    with pytest.raises(BrokerUnavailableError) as away:
        client.enqueue(conversion(f"{data} meanwhile"))
    assert len(away.value.events) == 1
    if data == "wiped":
        rabbit.wipe()
    rabbit.start()
    client.deadline_s = 30.0
    client.enqueue_many([*away.value.events, conversion(f"{data} after")])
    until(lambda: delivered(ground, data) == 502, 30)
    assert all(process.poll() is None for process in processes)


def test_the_doctor_names_a_queue_that_is_not_as_we_make_it(rabbit: Rabbit) -> None:
    """A classic queue made by somebody else keeps workers from consuming: it fails, by name, with a remedy."""
    rabbit.control("add_vhost", "elsewhere")
    rabbit.control("set_permissions", "--vhost", "elsewhere", "guest", ".*", ".*", ".*")
    url = f"{rabbit.url.removesuffix('//')}/elsewhere"
    with Connection(url) as connection, connection.channel() as channel:
        channel.queue_declare(broker.FIRE, durable=True, auto_delete=False)
    (failing,) = [finding for finding in examine_broker(url) if finding.level == "fail"]
    assert broker.FIRE in failing.says
    assert failing.remedy
