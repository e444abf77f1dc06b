"""What an engine's failure tells its reader."""

from pathlib import Path

_TAIL_LINES = 12


class EngineError(RuntimeError):
    """An embedded engine cannot serve: why, what to do about it, and the end of the server's own log."""

    def __init__(self, reason: str, remedy: str, log: str = "") -> None:
        """``log`` is the tail of the server's log, empty where it said nothing."""
        super().__init__(f"{reason}; {remedy}" + (f"\n{log}" if log else ""))
        self.reason = reason
        self.remedy = remedy
        self.log = log


def log_tail(path: Path, since: int = 0) -> str:
    """Return the last lines of the log at ``path``, from the byte offset ``since`` on; empty if unreadable."""
    try:
        with path.open("rb") as log:
            log.seek(since)
            lines = log.read().decode(errors="replace").splitlines()
    except OSError:
        return ""
    return "\n".join(lines[-_TAIL_LINES:])
