"""Logs: one shape for own and foreign lines, and nothing in them that must not be."""

import io
import json
import logging
from collections.abc import Iterator

import pytest
import structlog

from infra.logging import configure_logging


@pytest.fixture(autouse=True)
def _as_before() -> Iterator[None]:
    """Give the process its logging back: it is global."""
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)
    logging.captureWarnings(capture=False)
    structlog.reset_defaults()


def _lines(stream: io.StringIO) -> list[dict[str, object]]:
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def test_own_lines_keep_their_event_name_static_and_their_data_in_fields() -> None:
    """A line of ours is JSON with its event name, its level, its logger and its keywords."""
    stream = io.StringIO()
    configure_logging("auto", "INFO", stream)
    structlog.get_logger("workers.firing").info("postback.attempted", verdict="delivered", delay_s=None)
    (line,) = _lines(stream)
    timestamp = str(line.pop("timestamp"))
    assert line == {
        "event": "postback.attempted",
        "verdict": "delivered",
        "delay_s": None,
        "level": "info",
        "logger": "workers.firing",
    }
    assert timestamp.endswith("Z")


def test_a_person_reads_only_fields_that_say_something() -> None:
    """In a terminal, what is None or False is left out; a zero is told."""
    stream = io.StringIO()
    configure_logging("console", "INFO", stream)
    structlog.get_logger("workers.firing").info("postback.attempted", hops=0, delay_s=None, stale=False)
    assert "hops=0" in stream.getvalue()
    assert "delay_s" not in stream.getvalue()
    assert "stale" not in stream.getvalue()


def test_foreign_lines_come_out_in_the_same_shape() -> None:
    """What a library says through the standard library has the same fields, its text as the event."""
    stream = io.StringIO()
    configure_logging("json", "INFO", stream)
    logging.getLogger("celery.worker").warning("lost %s", "broker")
    (line,) = _lines(stream)
    assert (line["event"], line["level"], line["logger"]) == ("lost broker", "warning", "celery.worker")


@pytest.mark.parametrize("form", ["console", "json"])
def test_a_traceback_never_shows_local_variables(form: str) -> None:
    """A local variable may hold a secret, so a traceback is printed without them."""
    stream = io.StringIO()
    configure_logging("json" if form == "json" else "console", "INFO", stream)

    def fail() -> None:
        secret = "".join(["hunter", "2"])
        raise RuntimeError(f"failed with {len(secret)} characters")

    try:
        fail()
    except RuntimeError:
        structlog.get_logger("here").exception("thing.failed")
        logging.getLogger("there").exception("thing failed")
    assert stream.getvalue().count("failed with 7 characters") == 2
    assert "hunter2" not in stream.getvalue()


def test_lines_under_the_level_are_left_out() -> None:
    """The level holds for own and foreign lines, and Celery's line per task needs WARNING."""
    stream = io.StringIO()
    configure_logging("json", "INFO", stream)
    structlog.get_logger("here").debug("a.detail")
    logging.getLogger("there").debug("a detail")
    logging.getLogger("celery.app.trace").info("Task succeeded")
    assert stream.getvalue() == ""


def test_configuring_again_replaces_the_handler() -> None:
    """A second call leaves one handler, so that no line is printed twice."""
    first, second = io.StringIO(), io.StringIO()
    configure_logging("json", "INFO", first)
    configure_logging("json", "INFO", second)
    logging.getLogger("there").info("once")
    assert first.getvalue() == ""
    assert len(_lines(second)) == 1
