"""Logs: structlog and the standard library's loggers leave through one formatter, in one shape.

Own lines are ``log.info("postback.attempted", verdict=…)``: a static event name, everything else in keywords.
What Celery, kombu or uvicorn say comes out the same way, with their text as the event.
"""

from __future__ import annotations

import functools
import logging
import sys
from typing import Any, BinaryIO, Literal, TextIO

import orjson
import structlog
from structlog.typing import EventDict, Processor, WrappedLogger

LogFormat = Literal["auto", "console", "json"]

_CHATTY = {
    # A line per message taken and per task done: the canonical line an attempt says more.
    "celery.worker.strategy": logging.WARNING,
    "celery.app.trace": logging.WARNING,
    "celery.redirected": logging.WARNING,
    # That it is connected is said by its being ready.
    "celery.worker.consumer.connection": logging.WARNING,
    # A line per tick, four a second.
    "celery.beat": logging.WARNING,
    "alembic": logging.WARNING,
    "asyncio": logging.WARNING,
}


def configure_logging(form: LogFormat = "auto", level: str = "INFO", stream: TextIO | None = None) -> None:
    """Send every log line to ``stream`` (stderr) at ``level`` and above. May be called again.

    ``auto`` is ``console`` where ``stream`` is a terminal and ``json`` elsewhere. Celery is told so by calling
    this in its ``setup_logging`` signal: connecting to that signal keeps it from adding handlers of its own.
    """
    stream = stream if stream is not None else sys.stderr
    handler = logging.StreamHandler(stream)
    handler.console = _is_console(form, stream)  # type: ignore[attr-defined]  # read by attempt_log
    handler.setFormatter(_formatter(console=_is_console(form, stream), colors=stream.isatty()))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level)
    for name, least in _CHATTY.items():
        logging.getLogger(name).setLevel(max(least, root.level))
    logging.captureWarnings(capture=True)
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            *_shared(),
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.make_filtering_bound_logger(root.level),
        cache_logger_on_first_use=True,
    )


def attempt_log() -> Any:
    """The logger of the canonical line, one an attempt: thousands a second, so JSON takes the short way out.

    It leaves through the same stream in the same shape as every other line.
    """
    handler = logging.getLogger().handlers[0] if logging.getLogger().handlers else None
    if not isinstance(handler, logging.StreamHandler) or getattr(handler, "console", True):
        return structlog.get_logger("attempts")
    return _fast_logger(handler.stream.buffer, logging.getLogger().level)


@functools.cache
def _fast_logger(stream: BinaryIO, level: int) -> Any:
    return structlog.wrap_logger(
        structlog.BytesLogger(stream),
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.JSONRenderer(serializer=_dump),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(level),
    ).bind(logger="attempts")


def _dump(event: EventDict, **_: Any) -> bytes:
    return orjson.dumps({"event": event.pop("event", None), **event}, default=str)


def _is_console(form: LogFormat, stream: TextIO) -> bool:
    return stream.isatty() if form == "auto" else form == "console"


def _shared() -> list[Processor]:
    """What own and foreign lines get alike."""
    return [
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]


def _formatter(*, console: bool, colors: bool) -> structlog.stdlib.ProcessorFormatter:
    # Tracebacks are plain: the richer forms print local variables, and a local may be a secret.
    render: list[Processor]
    if console:
        plain = structlog.dev.plain_traceback
        render = [_only_what_is_said, structlog.dev.ConsoleRenderer(colors=colors, exception_formatter=plain)]
    else:
        render = [structlog.processors.format_exc_info, _as_json]
    return structlog.stdlib.ProcessorFormatter(
        foreign_pre_chain=[*_shared(), structlog.stdlib.ExtraAdder()],
        processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *render],
    )


def _only_what_is_said(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    """For people: without the fields that say nothing. Programs get them all."""
    return {key: value for key, value in event.items() if value is not None and value is not False}


def _as_json(_logger: WrappedLogger, _method: str, event: EventDict) -> str:
    """One line of JSON, event name first. What JSON does not know is written as text."""
    ordered: dict[str, Any] = {"event": event.pop("event", None), **event}
    return orjson.dumps(ordered, default=str, option=orjson.OPT_NON_STR_KEYS).decode()
