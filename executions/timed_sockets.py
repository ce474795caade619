"""Sockets that end at a moment and read a limited number of bytes.

A timeout per read lets a drip of bytes, in the headers or in the body, hold a thread for ever. Here
the whole exchange has one end: every operation gets the time that is left, so the TLS handshake,
the sending, the status line, the headers and the body are all bounded together, and so is what they
can take in memory.
"""

import socket
import ssl
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer, WriteableBuffer


class ReadLimitExceeded(Exception):
    """The other side sent more bytes than this exchange may read."""


class TimedSocket(socket.socket):
    """A TCP socket whose operations together end at `ends_at`, with TimeoutError."""

    ends_at = 0.0
    bytes_left = 0

    def allow(self, *, until: float, read_bytes: int) -> None:
        """Start an exchange: it may last until then and read so much."""
        self.ends_at = until
        self.bytes_left = read_bytes

    def arm(self) -> None:
        """Give the next operation the time that is left."""
        left = self.ends_at - time.monotonic()
        if left <= 0:
            raise TimeoutError("the time of the exchange is over")
        self.settimeout(left)

    def recv_into(
        self, buffer: "WriteableBuffer", nbytes: int | None = None, flags: int = 0
    ) -> int:
        self.arm()
        count = super().recv_into(buffer, nbytes or 0, flags)
        self.bytes_left -= count
        if self.bytes_left < 0:
            raise ReadLimitExceeded
        return count

    def send(self, data: "ReadableBuffer", flags: int = 0) -> int:
        self.arm()
        return super().send(data, flags)

    def sendall(self, data: "ReadableBuffer", flags: int = 0) -> None:
        self.arm()
        super().sendall(data, flags)


class TimedTLSSocket(TimedSocket, ssl.SSLSocket):
    """The same over TLS; made by an SSLContext whose `sslsocket_class` it is."""
