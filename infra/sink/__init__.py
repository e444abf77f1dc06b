"""The sink: a local S2S receiver that plays the ad networks and keeps its own count.

It never imports the code that renders or fires postbacks: it is the witness against which that code is
checked. ``Sink`` runs inside an event loop, ``SinkThread`` in a thread, ``python -m infra.sink`` as a
process; ``SinkClient`` asks any of them what it saw.

Paths choose how a request is met: ``/<profile>/…`` a network (``/sspx`` is Xandr's own path, anything
else is ``generic``), ``/bad/<behaviour>[:argument]/…`` a bad answer on top of that.
"""

from infra.sink.client import SinkClient
from infra.sink.errors import SinkConfigError
from infra.sink.server import Sink
from infra.sink.thread import SinkThread

__all__ = ["Sink", "SinkClient", "SinkConfigError", "SinkThread"]
