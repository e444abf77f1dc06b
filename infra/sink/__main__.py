"""``python -m infra.sink``: a sink as a process of its own."""

import typer

from infra.sink.cli import sink

if __name__ == "__main__":
    typer.run(sink)
