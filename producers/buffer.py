"""Buffered sending: ``enqueue`` returns at once, a background thread sends in batches.

What is buffered lives in this process only. It is sent when the buffer is closed or the interpreter ends in an
orderly way; SIGKILL, a crash and ``os._exit`` lose it. Where that matters, use the client's ``enqueue``.
"""

from __future__ import annotations

import atexit
import logging
import os
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable
from itertools import islice
from types import TracebackType
from typing import TYPE_CHECKING, Final, Self

from producers.message import Checked, Given, chunks
from producers.outcome import BrokerUnavailableError
from schemas.event import MAX_EVENTS_PER_MESSAGE

if TYPE_CHECKING:
    from producers.client import Holdfire

OnUnsent = Callable[[BrokerUnavailableError], None]

_LONGEST_WAIT_S: Final = 2.0


def log_unsent(error: BrokerUnavailableError) -> None:
    """Say on the log which events the end of the process took along: the default ``on_unsent``."""
    log = logging.getLogger("holdfire.producers")
    for given in error.events:
        key = (given["source"], given["event_id"]) if isinstance(given, dict) else given
        log.critical("event lost at exit, the broker stayed away: %s", key)


class Buffer:
    """Events on their way to the queue. Thread-safe; a forked child starts with an empty one. A context manager.

    Events leave in the order in which they came in.
    """

    _thread: threading.Thread | None

    def __init__(
        self,
        client: Holdfire,
        *,
        linger_s: float,
        max_events: int,
        capacity: int | None,
        on_unsent: OnUnsent,
    ) -> None:
        """Made by :meth:`Holdfire.buffered`, which explains the arguments. Raises ValueError for a bad size."""
        if not 1 <= max_events <= MAX_EVENTS_PER_MESSAGE:
            raise ValueError(f"max_events: is {max_events}; give 1 to {MAX_EVENTS_PER_MESSAGE}")
        self._capacity = 10 * max_events if capacity is None else capacity
        if self._capacity < max_events:
            raise ValueError(
                f"capacity: {self._capacity} is less than max_events; give at least {max_events}"
            )
        if linger_s < 0:
            raise ValueError(f"linger_s: is {linger_s}; give 0 or more seconds")
        self._client = client
        self._linger_s = linger_s
        self._max_events = max_events
        self._on_unsent = on_unsent
        self._begin()
        _buffers.add(self)

    def enqueue(self, event: Given) -> None:
        """Validate one event and take it over. Waits while the buffer is full.

        Raises InvalidInputError with every problem found; BrokerUnavailableError, holding this event, if the
        buffer is full for longer than the client's deadline; RuntimeError after ``close``.
        """
        checked = self._client.check(event)
        with self._changed:
            room = self._changed.wait_for(
                lambda: self._closed or len(self._waiting) < self._capacity, timeout=self._client.deadline_s
            )
            if self._closed:
                raise RuntimeError("this buffer is closed; make another with Holdfire.buffered()")
            if not room:
                raise BrokerUnavailableError(
                    f"the buffer is full ({self._capacity} events): {self._last_error}", [event]
                )
            self._waiting.append(checked)
            waiting = len(self._waiting)
            if waiting == 1:
                self._oldest_at = time.monotonic()
                self._start_thread()
            if waiting in {1, self._max_events}:
                self._changed.notify_all()

    def flush(self) -> None:
        """Send all that waits now, on this thread. Raises BrokerUnavailableError after the client's deadline.

        Its ``events`` are what still waits; they stay in the buffer and go on being tried.
        """
        deadline = time.monotonic() + self._client.deadline_s
        if not self._sending.acquire(timeout=max(0.0, self._client.deadline_s)):
            raise BrokerUnavailableError("the broker has not answered yet", self._given())
        try:
            left = len(self._waiting)  # what comes in meanwhile is for the background thread
            while left > 0:
                try:
                    left -= self._send_once(max(0.0, deadline - time.monotonic()))
                except BrokerUnavailableError as error:
                    raise BrokerUnavailableError(error.reason, self._given()) from error
        finally:
            self._sending.release()

    def close(self) -> None:
        """Send all that waits and take nothing more. Raises BrokerUnavailableError with what was not sent."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        _buffers.discard(self)
        self.flush()

    def __len__(self) -> int:
        """How many events wait, those that are being sent included."""
        return len(self._waiting)

    def __enter__(self) -> Self:
        """Return the buffer."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Send all that waits, also after an exception: what was enqueued before it did happen."""
        self.close()

    def _send_once(self, deadline_s: float) -> int:
        """Send the oldest message and return its length. Only with ``_sending`` held: nobody else shortens ``_waiting``."""
        with self._changed:
            oldest = list(islice(self._waiting, self._max_events))
        chunk = next(chunks(oldest))
        self._client.send(chunk, deadline_s)
        with self._changed:
            for _ in chunk.events:
                self._waiting.popleft()
            self._oldest_at = time.monotonic()
            self._changed.notify_all()
        return len(chunk.events)

    def _run(self) -> None:
        wait_s = 0.0
        while self._wait_until_due(wait_s):
            try:
                with self._sending:
                    if self._waiting:
                        # One try, so that a flush never waits behind a long series of them.
                        self._send_once(0.0)
                wait_s = 0.0
            except BrokerUnavailableError as error:
                self._last_error = error.reason
                wait_s = min(max(wait_s * 2, 0.05), _LONGEST_WAIT_S)

    def _wait_until_due(self, wait_s: float) -> bool:
        """Wait for a full message or the end of the linger, at least ``wait_s``. False: there is no more to do."""
        not_before = time.monotonic() + wait_s
        with self._changed:
            while not self._closed:
                now = time.monotonic()
                full = len(self._waiting) >= self._max_events
                due_at = max(not_before, 0.0 if full else self._oldest_at + self._linger_s)
                if not self._waiting:
                    self._changed.wait()
                elif now >= due_at:
                    return True
                else:
                    self._changed.wait(due_at - now)
            return False

    def _start_thread(self) -> None:
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="holdfire-buffer", daemon=True)
            self._thread.start()

    def _given(self) -> list[Given]:
        with self._changed:
            return [event.given for event in self._waiting]

    def _begin(self) -> None:
        # Also in a forked child, where what waits is the parent's to send and its locks may be held for ever.
        self._changed = threading.Condition()
        self._sending = threading.Lock()
        self._waiting: deque[Checked] = deque()
        self._oldest_at = 0.0
        self._closed = False
        self._thread = None
        self._last_error = "it has not been sent yet"

    def _close_at_exit(self) -> None:
        try:
            self.close()
        except BrokerUnavailableError as error:
            self._on_unsent(error)


_buffers: weakref.WeakSet[Buffer] = weakref.WeakSet()


def _begin_again_in_child() -> None:
    for buffer in list(_buffers):
        buffer._begin()


def _close_all_at_exit() -> None:
    for buffer in list(_buffers):
        buffer._close_at_exit()


os.register_at_fork(after_in_child=_begin_again_in_child)
atexit.register(_close_all_at_exit)
