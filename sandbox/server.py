"""The HTTP/1.1 server around a `Partner`: a thread per kept connection, few microseconds a call.

It is hand-made because `http.server` spends most of a call on parsing mail headers and because a
fault has to do with the line what no framework lets it do. Stopping ends every connection and
waiting at once.
"""

import contextlib
import socket
import struct
import threading
from dataclasses import replace

from .delivery import CUT_KINDS, answer_instead, cut, deliver, encode, spoil, wait_for
from .faults import WAITING_KINDS, Fault, FaultEffect, FaultKind
from .ledger import Call
from .messages import Answer, Request, json_answer, message_answer
from .partner import API_PREFIX, Partner, postponement_of
from .wire import BadRequest, Head, LineClosed, RequestReader

MAX_CONNECTIONS = 4096
IDLE_SECONDS = 120
_STOP_SECONDS = 5.0
_ACCEPT_POLL_SECONDS = 0.5


class PartnerServer:
    """A partner that listens from its making to `stop`, which waits for every thread."""

    def __init__(self, partner: Partner, *, host: str = "127.0.0.1", port: int = 0) -> None:
        """Bind the address; OSError when it cannot be had. Port 0 takes a free one."""
        self.partner = partner
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self._listener = socket.create_server((host, port), family=family, backlog=1024)
        self._listener.settimeout(_ACCEPT_POLL_SECONDS)
        self.url = _url_of(self._listener)
        self._stopping = threading.Event()
        self._lock = threading.Lock()
        self._connections: dict[socket.socket, threading.Thread] = {}
        self._acceptor = threading.Thread(target=self._accept, name="sandbox-accept", daemon=True)

    def start(self) -> None:
        self._acceptor.start()

    def stop(self) -> None:
        """End every connection and wait for the threads; a second call does nothing."""
        if self._stopping.is_set():
            return
        self._stopping.set()
        with contextlib.suppress(OSError):
            self._listener.shutdown(
                socket.SHUT_RDWR
            )  # wakes the accept on Linux; elsewhere the poll
        if self._acceptor.ident is not None:
            self._acceptor.join(_STOP_SECONDS)
        self._listener.close()
        self.partner.callbacks.stop()  # before the calls, which may be in an early callback
        with self._lock:
            remaining = dict(self._connections)
        for connection in remaining:
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
        for thread in remaining.values():
            thread.join(_STOP_SECONDS)

    def _accept(self) -> None:
        while not self._stopping.is_set():
            try:
                connection, _ = self._listener.accept()
            except TimeoutError:
                continue
            except OSError:
                if self._stopping.wait(0.01):  # out of file descriptors, say: breathe and go on
                    return
                continue
            self._serve(connection)

    def _serve(self, connection: socket.socket) -> None:
        with self._lock:
            has_room = len(self._connections) < MAX_CONNECTIONS
            if has_room:
                thread = threading.Thread(
                    target=self._talk, args=(connection,), name="sandbox-call", daemon=True
                )
                self._connections[connection] = thread
                thread.start()
        if not has_room:
            with contextlib.suppress(OSError):
                answer = message_answer(503, "The sandbox has too many connections.")
                connection.sendall(encode(answer, keeps_alive=False))
            connection.close()

    def _talk(self, connection: socket.socket) -> None:
        try:
            _prepare(connection)
            reader = RequestReader(connection)
            while not self._stopping.is_set() and self._exchange(connection, reader):
                pass
        except BadRequest as bad:
            with contextlib.suppress(OSError):
                answer = message_answer(bad.status, bad.message)
                connection.sendall(encode(answer, keeps_alive=False))
        except (LineClosed, OSError):
            pass  # the caller went away, or nothing came for too long: nobody is left to tell
        finally:
            with self._lock:
                del self._connections[connection]
                connection.close()

    def _exchange(self, connection: socket.socket, reader: RequestReader) -> bool:
        head = reader.read_head()
        if not head.path.startswith(API_PREFIX):
            answer, _ = self.partner.answer(_request(head, reader.read_body(head)))
            return _send(connection, answer, head)
        fault = self.partner.queued_fault(head.path)
        if fault is not None and fault.kind is FaultKind.CUT_BEFORE:
            self.partner.ledger.open_call(_request(head, b""), fault=fault.kind.value)
            return cut(connection, fault)
        request = _request(head, reader.read_body(head))
        if fault is None:
            fault = self.partner.fault_of(request) or self.partner.queued_postponement(head.path)
        if fault is not None:
            return self._exchange_with_fault(connection, request, fault, head)
        call = self.partner.ledger.open_call(request)
        answer, call.replayed = self.partner.answer(request)
        call.status = answer.status
        if answer.later is None:
            return _send(connection, answer, head)
        with self.partner.calling_back(request, answer):
            return _send(connection, answer, head)

    def _exchange_with_fault(
        self, connection: socket.socket, request: Request, fault: Fault, head: Head
    ) -> bool:
        call = self.partner.ledger.open_call(request, fault=fault.kind.value)
        waits = fault.kind in WAITING_KINDS
        if waits and fault.effect is FaultEffect.AFTER and wait_for(fault, self._pause):
            return False
        answer = answer_instead(fault)
        if fault.effect is not FaultEffect.NONE:
            answer, call.replayed = self._act(request, fault)
        with self.partner.calling_back(request, answer):
            return self._answer_with_fault(connection, call, answer, fault, head)

    def _act(self, request: Request, fault: Fault) -> tuple[Answer, bool]:
        """The effect, and the answer as it is before the fault spoils it."""
        if fault.kind is FaultKind.ANSWER:
            return self.partner.answer(request, answer_instead(fault))
        later: Fault | None = fault
        if fault.kind is not FaultKind.ANSWER_LATER:
            later = self.partner.queued_postponement(request.path)
        if later is None:
            return self.partner.answer(request)
        custom = None if later.body is None else json_answer(later.body)
        return self.partner.answer(request, custom, postponement_of(later))

    def _answer_with_fault(
        self, connection: socket.socket, call: Call, answer: Answer, fault: Fault, head: Head
    ) -> bool:
        waits = fault.kind in WAITING_KINDS
        if waits and fault.effect is not FaultEffect.AFTER and wait_for(fault, self._pause):
            return False
        if fault.kind in CUT_KINDS:
            return cut(connection, fault)
        spoilt = spoil(answer, fault)
        call.status = spoilt.status
        return (
            deliver(connection, spoilt, fault, pause=self._pause, keeps_alive=head.keeps_alive)
            and head.keeps_alive
        )

    def _pause(self, seconds: float) -> bool:
        return self._stopping.wait(seconds)


def _url_of(listener: socket.socket) -> str:
    host, port = listener.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def _request(head: Head, body: bytes) -> Request:
    return Request(head.method, head.path, head.query, head.headers, body)


def _send(connection: socket.socket, answer: Answer, head: Head) -> bool:
    if head.method == "HEAD":
        answer = replace(answer, body=b"")
    connection.sendall(encode(answer, keeps_alive=head.keeps_alive))
    return head.keeps_alive


def _prepare(connection: socket.socket) -> None:
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    # The kernel's own timeouts: Python's settimeout costs a poll before every recv.
    limit = struct.pack("ll", IDLE_SECONDS, 0)
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, limit)
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, limit)
