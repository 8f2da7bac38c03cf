"""Messages of the MongoDB wire protocol on a TCP socket, one thread per connection."""

from __future__ import annotations

import os
import socket
import socketserver
import struct
import sys
import threading
from typing import Any

import bson

from matloop.testing.mongodb.commands import Commands
from matloop.testing.mongodb.databases import Databases
from matloop.testing.mongodb.ordering import CODEC

Json = dict[str, Any]
_HEADER = struct.Struct("<iiii")  # length, request, response to, kind of message
_OP_REPLY, _OP_QUERY, _OP_MSG = 1, 2004, 2013
_CHECKSUM, _MORE_TO_COME = 1, 2
_LONGEST = 48_000_000
_EXPIRY_SECONDS = 60


class Server(socketserver.ThreadingTCPServer):
    """Answers clients on one address.

    Parameters
    ----------
    address
        Host and port; port 0 takes a free one.
    databases
        What is served.
    """

    allow_reuse_address = True
    daemon_threads = True
    request_queue_size = 256

    def __init__(self, address: tuple[str, int], databases: Databases) -> None:
        self.databases = databases
        self.commands = Commands(databases)
        super().__init__(address, _Connection)

    def serve(self) -> None:
        """Answer until `shutdown`; every minute delete what has lived its time."""
        stop = threading.Event()

        def expire() -> None:
            while not stop.wait(_EXPIRY_SECONDS):
                self.databases.expire()

        threading.Thread(target=expire, daemon=True).start()
        try:
            self.serve_forever(poll_interval=0.1)
        finally:
            stop.set()


class _Connection(socketserver.BaseRequestHandler):
    server: Server
    request: socket.socket

    def handle(self) -> None:
        self.request.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        try:
            while header := self._read(_HEADER.size):
                length, number, _, kind = _HEADER.unpack(header)
                if not _HEADER.size <= length <= _LONGEST + 16_384:
                    return
                body = self._read(length - _HEADER.size)
                if not body and length > _HEADER.size:
                    return
                answer = self._answer(kind, body, number)
                if answer:
                    self.request.sendall(answer)
        except (ConnectionError, TimeoutError):
            return

    def _answer(self, kind: int, body: bytes, number: int) -> bytes:
        if kind == _OP_MSG:
            flags, command = _message(body)
            reply = self._run(command)
            if flags & _MORE_TO_COME:
                return b""
            content = struct.pack("<Ib", 0, 0) + bson.encode(reply)
            return _HEADER.pack(_HEADER.size + len(content), 0, number, _OP_MSG) + content
        if kind == _OP_QUERY:  # only the first greeting of a connection comes in this form
            name_end = body.index(b"\0", 4)
            database = body[4:name_end].decode().partition(".")[0]
            command = {**bson.decode(body[name_end + 9 :], CODEC), "$db": database}
            content = struct.pack("<iqii", 8, 0, 0, 1) + bson.encode(self._run(command))
            return _HEADER.pack(_HEADER.size + len(content), 0, number, _OP_REPLY) + content
        raise ConnectionError(f"message of kind {kind}")

    def _run(self, command: Json) -> Json:
        try:
            return self.server.commands.run(command)
        except OSError as error:  # memory is ahead of the journal now: nothing more may be said
            print(f"cannot write the journal: {error}", file=sys.stderr, flush=True)  # noqa: T201
            os._exit(14)

    def _read(self, length: int) -> bytes:
        parts = bytearray()
        while len(parts) < length:
            part = self.request.recv(min(length - len(parts), 1 << 20))
            if not part:
                return b""
            parts += part
        return bytes(parts)


def _message(body: bytes) -> tuple[int, Json]:
    # Documents of an insert stay BSON: they are stored as they came.
    (flags,) = struct.unpack_from("<I", body)
    end = len(body) - (4 if flags & _CHECKSUM else 0)
    position = 4
    command: Json = {}
    sequences: dict[str, list[Any]] = {}
    while position < end:
        kind = body[position]
        (size,) = struct.unpack_from("<i", body, position + 1)
        if kind == 0:
            command = bson.decode(body[position + 1 : position + 1 + size], CODEC)
        else:
            start = body.index(b"\0", position + 5)
            name = body[position + 5 : start].decode()
            sequences[name] = _split(body, start + 1, position + 1 + size, name)
        position += 1 + size
    return flags, {**command, **sequences}


def _split(body: bytes, position: int, end: int, name: str) -> list[Any]:
    parts: list[Any] = []
    while position < end:
        (size,) = struct.unpack_from("<i", body, position)
        raw = body[position : position + size]
        parts.append(raw if name == "documents" else bson.decode(raw, CODEC))
        position += size
    return parts
