"""Clients that send nonsense, do not read or die: each gets an error or loses its connection,
memory stays bounded, and another client goes on being served."""

import json
import os
import socket

import msgpack
from server import serving

WAIT_S = 30
FRAME_BYTES = 1 << 20
STALL_MS = 1500
# What the answers that wait for one client may take, with room for the allocator.
GROWTH_BYTES = 48 << 20


def connect(address):
    return socket.create_connection(address, timeout=WAIT_S)


def until_closed(connection):
    """All that the server says until it closes the connection; a server that does not is an error."""
    said = b""
    while True:
        try:
            piece = connection.recv(1 << 16)
        except ConnectionResetError:
            return said
        if not piece:
            return said
        said += piece


def send(connection, data):
    """Sends what the server takes: it may close the connection before the end."""
    try:
        connection.sendall(data)
    except (BrokenPipeError, ConnectionResetError):
        pass


def post(server, body, **headers):
    connection = connect(server.http)
    head = {"content-type": "application/json", "accept": "application/json, text/event-stream",
            "content-length": str(len(body)), "host": f"{server.http[0]}:{server.http[1]}",
            "connection": "close", **headers}
    lines = "".join(f"{name}: {value}\r\n" for name, value in head.items())
    send(connection, f"POST /mcp HTTP/1.1\r\n{lines}\r\n".encode() + body)
    return until_closed(connection)


class Neighbour:
    """Another client of the same server."""

    def __init__(self, server):
        self.connection = connect(server.rpc)
        self.number = 0

    def is_served(self):
        self.number += 1
        payload = {"type": "echo", "payload": self.number}
        self.connection.sendall(msgpack.packb([0, self.number, "task.submit", [payload]]))
        unpacker = msgpack.Unpacker()
        while True:
            piece = self.connection.recv(4096)
            assert piece, "the neighbour lost its connection"
            unpacker.feed(piece)
            for message in unpacker:
                assert message[1] == self.number and message[2] is None, message
                return


def oversized_frame(server):
    connection = connect(server.rpc)
    # The head promises 64 MiB of bytes.
    send(connection, b"\x94\x00\x01\xabtask.submit\x91\x82\xa4type\xa4echo\xa7payload\xc6\x04\x00\x00\x00")
    for _ in range(64):
        send(connection, b"x" * (1 << 20))
    assert b"too_large" in until_closed(connection)
    assert b" 413 " in post(server, b"[" + b"1," * (2 * FRAME_BYTES) + b"1]").splitlines()[0]


def truncated_frame(server):
    connection = connect(server.rpc)
    connection.sendall(msgpack.packb([0, 1, "node.stats", [{}]])[:-1])
    # Nothing more comes: the server gives up on its own.
    until_closed(connection)


def random_bytes(server):
    for _ in range(50):
        connection = connect(server.rpc)
        send(connection, b"\xc1" + os.urandom(512))
        until_closed(connection)
    connection = connect(server.http)
    send(connection, os.urandom(512) + b"\r\n\r\n")
    until_closed(connection)


def invalid_utf8(server):
    connection = connect(server.rpc)
    connection.sendall(b"\x94\x00\x01\xa4\xff\xfe\xfd\xfc\x91\x80")
    connection.shutdown(socket.SHUT_WR)
    assert b"invalid" in until_closed(connection)
    assert b"-32700" in post(server, b'{"jsonrpc":"2.0","id":1,"method":"\xff\xfe"}')


def deep_json(server):
    said = post(server, b"[" * 200_000 + b"]" * 200_000)
    assert b"-32700" in said or b"-32600" in said, said[:300]
    connection = connect(server.rpc)
    send(connection, b"\x91" * 200_000)
    assert b"invalid" in until_closed(connection)


def a_client_that_never_reads(server):
    connection = connect(server.rpc)
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    # Answers longer than their questions.
    request = msgpack.packb([0, 1, "agent.list", [{}]]) * 1000
    connection.settimeout(WAIT_S)
    # The server stops reading when its answers do not leave, then closes the connection.
    try:
        while True:
            connection.sendall(request)
    except (BrokenPipeError, ConnectionResetError):
        pass


def a_client_that_dies_mid_frame(server):
    for _ in range(100):
        connection = connect(server.rpc)
        connection.sendall(msgpack.packb([0, 1, "node.stats", [{}]])[:7])
        # Sends a reset instead of an orderly end.
        linger = b"\x01\x00\x00\x00\x00\x00\x00\x00"
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        connection.close()


def main():
    settings = (f"server.max_frame_bytes={FRAME_BYTES}", f"server.stall_timeout_ms={STALL_MS}",
                "tasks.max_payload_bytes=524288")
    with serving(*settings) as server:
        neighbour = Neighbour(server)
        neighbour.is_served()
        for test in (oversized_frame, truncated_frame, random_bytes, invalid_utf8, deep_json,
                     a_client_that_never_reads, a_client_that_dies_mid_frame):
            before = server.resident_bytes()
            test(server)
            neighbour.is_served()
            grown = server.resident_bytes() - before
            assert grown < GROWTH_BYTES, f"{test.__name__}: memory grew by {grown} bytes"
            print("ok", test.__name__, json.dumps({"grown_kib": grown // 1024}))


main()
