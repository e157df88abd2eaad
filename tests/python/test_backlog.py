"""A backlog larger than the memory should be: it lives in the log, and outlasts a kill.

COREFLOW_BACKLOG=5000000 makes it as long as that; the memory stays below 300 MB all the same.
"""

import os
import signal
import socket
import tempfile
import time

import msgpack
from server import Server, serving

TASKS = int(os.environ.get("COREFLOW_BACKLOG", 200_000))
BATCH = 1_000
UNDER_WAY = 8
PAYLOAD = b"x" * 256
CONFIG = "tests/python/worker.toml"
SETTINGS = ("tasks.queue_overflow=10000000", "log.keep_mib=4096")
MEMORY_BYTES_MAX = 300 << 20
TAKEN = 20_000


class Connection:
    def __init__(self, server):
        self.socket = socket.create_connection(server.rpc, timeout=60)
        self.unpacker = msgpack.Unpacker(max_buffer_size=64 << 20)
        self.msgid = 0

    def send(self, method, parameters):
        self.msgid += 1
        self.socket.sendall(msgpack.packb([0, self.msgid, method, [parameters]]))

    def receive(self):
        while True:
            for answer in self.unpacker:
                assert answer[2] is None, answer[2]
                return answer[3]
            arrived = self.socket.recv(1 << 20)
            assert arrived, "the node closed the connection"
            self.unpacker.feed(arrived)

    def call(self, method, parameters):
        self.send(method, parameters)
        return self.receive()


def submit(connection):
    batch = {"tasks": [{"type": "errand", "payload": PAYLOAD}] * BATCH}
    sent = answered = 0
    while answered < TASKS // BATCH:
        while sent < TASKS // BATCH and sent - answered < UNDER_WAY:
            connection.send("task.submit_batch", batch)
            sent += 1
        assert len(connection.receive()["ids"]) == BATCH
        answered += 1


def take(connection, count):
    """Takes tasks and ends them; each comes with its payload."""
    connection.call("worker.register", {"types": ["errand"], "capacity": 1_000})
    done = set()
    while len(done) < count:
        tasks = connection.call("worker.fetch", {"max": 500, "wait_ms": 10_000})["tasks"]
        assert tasks, f"there are more than the {len(done)} that came"
        for task in tasks:
            assert task["payload"] == PAYLOAD
            assert task["id"] not in done, "no task comes twice"
            end = {"id": task["id"], "lease": task["lease"], "result": None}
            connection.send("worker.complete", end)
        for task in tasks:
            connection.receive()
            done.add(task["id"])


def until_queued(connection, expected):
    """Waits until the node's figures say so: they are some milliseconds old."""
    deadline = time.monotonic() + 30
    while (found := connection.call("node.stats", {})["totals"]["tasks_queued"]) != expected:
        assert time.monotonic() < deadline, f"{found} are queued, not {expected}"
        time.sleep(0.01)


def memory(server, when):
    resident, peak = server.memory_bytes("VmRSS"), server.memory_bytes("VmHWM")
    print(f"   {when}: {resident >> 20} MB resident, {peak >> 20} MB at most")
    assert peak < MEMORY_BYTES_MAX, f"{peak} bytes"


def main():
    with tempfile.TemporaryDirectory(prefix="coreflow-") as folder:
        server = Server(*SETTINGS, config=CONFIG, folder=folder)
        try:
            begun = time.monotonic()
            submit(Connection(server))
            took = time.monotonic() - begun
            print(f"   {TASKS} tasks accepted in {took:.1f} s, {TASKS / took:.0f} a second")
            memory(server, "with all of them queued")
            take(Connection(server), TAKEN)
            memory(server, f"after {TAKEN} were taken")
        finally:
            server.signal(signal.SIGKILL)
            server.wait()
        begun = time.monotonic()
        with serving(*SETTINGS, config=CONFIG, folder=folder) as server:
            took = time.monotonic() - begun
            print(f"   killed, and serving again after {took:.2f} s")
            connection = Connection(server)
            until_queued(connection, TASKS - TAKEN)
            memory(server, "after the start")
            take(connection, TAKEN)
    print("ok a_backlog_lives_in_the_log_and_outlasts_a_kill")


main()
