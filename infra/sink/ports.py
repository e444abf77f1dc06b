"""The sockets behind the sink: one that listens, one that refuses, one that resets whoever connects."""

from __future__ import annotations

import asyncio
import os
import socket
import struct
from typing import cast

from infra.sink.errors import SinkConfigError


def bind(host: str, port: int) -> socket.socket:
    """A TCP socket bound to ``host`` and ``port`` (0: any free one). Raises SinkConfigError."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        bound = socket.socket(family, kind, protocol)
    except OSError as error:
        raise SinkConfigError("host", f"{host!r} is no address here ({error})", "Use 127.0.0.1.") from error
    try:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.bind(address)
    except OSError as error:
        bound.close()
        remedy = "Choose another port, or 0 for any free one."
        raise SinkConfigError("port", f"{host}:{port} cannot be bound ({error.strerror})", remedy) from error
    bound.setblocking(False)
    return bound


def refusing_socket(host: str) -> tuple[socket.socket, int]:
    """A socket that is bound and does not listen: connections are refused, and nobody else gets the port."""
    bound = bind(host, 0)
    return bound, bound.getsockname()[1]


def reset(transport: asyncio.Transport) -> None:
    """End a connection with a TCP reset instead of a FIN."""
    connected = transport.get_extra_info("socket")
    if connected is not None and connected.fileno() >= 0:
        # Socket options belong to the connection, not to the descriptor, and uvloop's stand-in for a
        # socket does not offer them: a second descriptor does.
        second = socket.socket(fileno=os.dup(connected.fileno()))
        second.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        second.close()
    transport.abort()


class _Resetting(asyncio.Protocol):
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        reset(cast("asyncio.Transport", transport))


async def resetting_server(host: str) -> tuple[asyncio.Server, int]:
    """A server that resets every connection as soon as it is made."""
    bound = bind(host, 0)
    server = await asyncio.get_running_loop().create_server(_Resetting, sock=bound)
    return server, bound.getsockname()[1]
