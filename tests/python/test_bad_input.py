"""Clients that send nonsense, do not read or die: each gets an error or loses its connection,
memory stays bounded, and other clients go on being served all the time."""

import json
import os
import random
import socket
import sys
import threading

import msgpack
from client import Client
from server import serving

WAIT_S = 30
FRAME_BYTES = 1 << 20
STALL_MS = 1500
# What the answers that wait for one client may take, with room for the allocator.
GROWTH_BYTES = 48 << 20
# Enough that each core serves some of them: the system deals connections out.
NEIGHBOURS = 8
STATS = [0, 1, "node.stats", [{}]]
# Sends a reset instead of an orderly end.
RESET = b"\x01\x00\x00\x00\x00\x00\x00\x00"

seed = int(os.environ.get("SEED", random.randrange(1 << 32)))
dice = random.Random(seed)


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


def head(server, length, **headers):
    fields = {"content-type": "application/json", "accept": "application/json, text/event-stream",
              "content-length": str(length), "host": f"{server.http[0]}:{server.http[1]}",
              "connection": "close", **headers}
    lines = "".join(f"{name}: {value}\r\n" for name, value in fields.items() if value)
    return f"POST /mcp HTTP/1.1\r\n{lines}\r\n".encode()


def post(server, body, **headers):
    connection = connect(server.http)
    send(connection, head(server, len(body), **headers) + body)
    return until_closed(connection)


class Neighbours:
    """Other clients of the same server, served one after the other for as long as a test runs."""

    def __init__(self, server):
        self.clients = [Client(server) for _ in range(NEIGHBOURS)]

    def __enter__(self):
        self.served, self.failed, self.over = 0, None, threading.Event()
        self.thread = threading.Thread(target=self.live)
        self.thread.start()
        return self

    def live(self):
        try:
            while not self.over.is_set():
                for client in self.clients:
                    task = client.call("task.submit", type="echo", payload=self.served)["id"]
                    ended = client.call("task.result", id=task, wait_ms=10000)
                    assert ended["result"] == self.served, ended
                    self.served += 1
        except Exception as error:
            self.failed = error

    def __exit__(self, kind, *_):
        # Everyone is served once more, after what the test did.
        enough = self.served + 2 * NEIGHBOURS
        while kind is None and self.failed is None and self.served < enough:
            self.thread.join(0.001)
        self.over.set()
        self.thread.join()
        assert kind is not None or self.failed is None, f"a neighbour suffered: {self.failed!r}"


def oversized_frame(server):
    connection = connect(server.rpc)
    # The head promises 64 MiB of bytes.
    send(connection, b"\x94\x00\x01\xabtask.submit\x91\x82\xa4type\xa4echo\xa7payload\xc6\x04\x00\x00\x00")
    for _ in range(64):
        send(connection, b"x" * (1 << 20))
    assert b"too_large" in until_closed(connection)
    # Many values, each of them small.
    connection = connect(server.rpc)
    send(connection, b"\x94\x00\x02\xa1x\xdd\xff\xff\xff\xff" + b"\x01" * (64 << 20))
    assert b"too_large" in until_closed(connection)
    assert b" 413 " in post(server, b"[" + b"1," * (2 * FRAME_BYTES) + b"1]").splitlines()[0]
    chunk = b"%x\r\n" % (1 << 20) + b" " * (1 << 20) + b"\r\n"
    chunked = {"content-length": "", "transfer-encoding": "chunked"}
    assert b" 413 " in post(server, chunk * 64, **chunked).splitlines()[0]
    said = post(server, b"{}", **{f"x-{number}": "x" * 8000 for number in range(64)})
    assert b" 431 " in said.splitlines()[0], said[:200]


def truncated_frame(server):
    waiting = [connect(server.rpc), connect(server.http), connect(server.http)]
    waiting[0].sendall(msgpack.packb(STATS)[:-1])
    waiting[1].sendall(head(server, 100) + b"{")
    waiting[2].sendall(b"POST /mcp HTTP/1.1\r\nhost: local")
    # Nothing more comes: the server gives up on its own.
    said = [until_closed(connection) for connection in waiting]
    assert said[0] == b"" and b" 408 " in said[1].splitlines()[0], said
    # Those that end their side in the middle are gone at once.
    for address, part in ((server.rpc, msgpack.packb(STATS)[:-1]), (server.http, b"POST /mc")):
        connection = connect(address)
        connection.sendall(part)
        connection.shutdown(socket.SHUT_WR)
        until_closed(connection)


def random_bytes(server):
    for _ in range(50):
        for address, begin in ((server.rpc, b"\xc1"), (server.http, b"")):
            connection = connect(address)
            send(connection, begin + dice.randbytes(512) + b"\r\n\r\n")
            connection.shutdown(socket.SHUT_WR)
            until_closed(connection)


def almost_right_frames(server):
    """Requests with a few bytes changed: answered, or the end of the connection."""
    batch = {"tasks": [{"type": "echo", "payload": {"a": [1, None, b"\x00"]}, "priority": "high"}]}
    requests = [msgpack.packb(request) for request in (
        [0, 1, "task.submit_batch", [batch]], [0, 2, "task.result", [{"id": "t0-" + "0" * 32}]],
        [2, "task.submit", [{"type": "sha256", "payload": "abc"}]], [0, 3, "agent.list", [{}]])]
    call = b'{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"swarm_status"}}'
    for _ in range(300):
        frame = bytearray(dice.choice(requests))
        text = bytearray(call)
        for changed in (frame, text):
            for _ in range(dice.randrange(1, 4)):
                changed[dice.randrange(len(changed))] = dice.randrange(256)
        connection = connect(server.rpc)
        send(connection, bytes(frame))
        connection.shutdown(socket.SHUT_WR)
        until_closed(connection)
        assert post(server, bytes(text)).startswith(b"HTTP/1.1 "), bytes(text)


def invalid_utf8(server):
    connection = connect(server.rpc)
    connection.sendall(b"\x94\x00\x01\xa4\xff\xfe\xfd\xfc\x91\x80")
    connection.shutdown(socket.SHUT_WR)
    assert b"invalid" in until_closed(connection)
    assert b"-32700" in post(server, b'{"jsonrpc":"2.0","id":1,"method":"\xff\xfe"}')


def deep_json(server):
    for nested in (b"[" * 200_000 + b"]" * 200_000, b'{"a":' * 100_000 + b"1" + b"}" * 100_000,
                   b"[" * 200_000):
        said = post(server, nested)
        assert b"-32700" in said or b"-32600" in said, said[:300]
    connection = connect(server.rpc)
    send(connection, b"\x91" * 200_000)
    assert b"invalid" in until_closed(connection)


def a_client_that_never_reads(server):
    get = f"GET /stats.json HTTP/1.1\r\nhost: {server.http[0]}\r\n\r\n".encode()
    # Answers longer than their questions.
    for address, request in ((server.rpc, msgpack.packb([0, 1, "agent.list", [{}]])),
                             (server.http, get)):
        connection = socket.socket()
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        connection.settimeout(WAIT_S)
        connection.connect(address)
        # The server stops reading when its answers do not leave, then closes the connection.
        try:
            while True:
                connection.sendall(request * 1000)
        except (BrokenPipeError, ConnectionResetError):
            pass


def many_large_results_at_once(server):
    """Half a gigabyte is asked for at once; all of it comes, a little at a time."""
    payload, count = "x" * 500_000, 1000
    submitter = Client(server)
    task = submitter.call("task.submit", type="sleep", payload={"ms": 200})["id"]
    done = submitter.call("task.submit", type="echo", payload=payload)["id"]
    client = Client(server)
    # Some of them wait first, and a small one is not held up by the large ones.
    for asked in (done, task):
        params = [{"id": asked, "wait_ms": 20000}]
        requests = (msgpack.packb([0, number, "task.result", params]) for number in range(count))
        client.connection.sendall(b"".join(requests))
        answered = set()
        while len(answered) < count:
            for _, number, error, ended in client.unpacker:
                assert error is None and ended["status"] == "done", (error, ended)
                assert ended["result"] == (payload if asked == done else {"slept_ms": 200})
                answered.add(number)
            if len(answered) < count:
                client.unpacker.feed(client.connection.recv(1 << 20))


def a_client_that_dies_mid_frame(server):
    for number in range(100):
        for address, part in ((server.rpc, msgpack.packb(STATS)[:7]),
                              (server.http, (head(server, 50) + b'{"json')[:20 + 2 * number])):
            connection = connect(address)
            connection.sendall(part)
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
            connection.close()


TESTS = (oversized_frame, truncated_frame, random_bytes, almost_right_frames, invalid_utf8,
         deep_json, a_client_that_never_reads, many_large_results_at_once,
         a_client_that_dies_mid_frame)


def main():
    settings = (f"server.max_frame_bytes={FRAME_BYTES}", f"server.stall_timeout_ms={STALL_MS}",
                "tasks.max_payload_bytes=524288", "tasks.retained=1000")
    with serving(*settings) as server:
        neighbours = Neighbours(server)
        for test in TESTS:
            server.forget_peak()
            before = server.memory_bytes("VmRSS")
            with neighbours:
                test(server)
            grown = server.memory_bytes("VmHWM") - before
            # Results pass through a batch, a view and the buffer of answers, each of a few at a time.
            most = GROWTH_BYTES * 2 if test is many_large_results_at_once else GROWTH_BYTES
            assert grown < most, f"{test.__name__}: memory grew by {grown} bytes"
            figures = {"peak_grown_kib": grown // 1024, "neighbours_served": neighbours.served}
            print("ok", test.__name__, json.dumps(figures))


try:
    main()
except BaseException:
    print(f"again: SEED={seed} python tests/python/test_bad_input.py", file=sys.stderr)
    raise
