"""SIGTERM: nothing new is accepted, what was accepted ends, the exit code is 0; a second one exits
at once."""

import signal
import socket
import time

import msgpack
from server import serving

WAIT_S = 30


class Client:
    def __init__(self, server):
        self.connection = socket.create_connection(server.rpc, timeout=WAIT_S)
        self.unpacker = msgpack.Unpacker()
        self.number = 0

    def ask(self, method, **params):
        self.number += 1
        self.connection.sendall(msgpack.packb([0, self.number, method, [params]]))
        return self.number

    def answer(self, number):
        """The error and the result of an answer."""
        while True:
            for kind, answered, error, result in self.unpacker:
                assert kind == 1
                if answered == number:
                    return error, result
            piece = self.connection.recv(4096)
            assert piece, "the connection ended before the answer"
            self.unpacker.feed(piece)

    def call(self, method, **params):
        error, result = self.answer(self.ask(method, **params))
        assert error is None, error
        return result

    def until_running(self, task):
        deadline = time.monotonic() + WAIT_S
        while self.call("task.status", id=task)["status"] != "running":
            assert time.monotonic() < deadline, "the task does not run"


def running_tasks_end_within_the_drain():
    with serving("server.drain_ms=20000") as server:
        client = Client(server)
        task = client.call("task.submit", type="sleep", payload={"ms": 1500})["id"]
        client.until_running(task)
        waiting = client.ask("task.result", id=task, wait_ms=10000)
        server.signal(signal.SIGTERM)
        error, ended = client.answer(waiting)
        assert error is None and ended["status"] == "done", (error, ended)
        assert server.wait() == 0


def nothing_new_is_accepted():
    with serving("server.drain_ms=20000") as server:
        client = Client(server)
        task = client.call("task.submit", type="sleep", payload={"ms": 3000})["id"]
        client.until_running(task)
        server.signal(signal.SIGTERM)
        # The signal is noticed a moment later: until then tasks are accepted, then none is.
        deadline = time.monotonic() + WAIT_S
        while True:
            error, _ = client.answer(client.ask("task.submit", type="echo", payload=1))
            if error is not None:
                assert error["code"] == "unavailable", error
                break
            assert time.monotonic() < deadline, "tasks are accepted for ever"
        assert client.call("task.status", id=task)["status"] == "running"
        assert server.wait() == 0


def a_drain_has_an_end():
    with serving("server.drain_ms=500") as server:
        client = Client(server)
        client.until_running(client.call("task.submit", type="sleep", payload={"ms": 60000})["id"])
        begun = time.monotonic()
        server.signal(signal.SIGTERM)
        assert server.wait() == 0
        assert time.monotonic() - begun < 20


def a_second_signal_exits_at_once():
    with serving("server.drain_ms=600000") as server:
        client = Client(server)
        client.until_running(client.call("task.submit", type="sleep", payload={"ms": 600000})["id"])
        server.signal(signal.SIGTERM)
        while client.answer(client.ask("task.submit", type="echo", payload=1))[0] is None:
            pass
        server.signal(signal.SIGTERM)
        assert server.wait() == 1


for test in (running_tasks_end_within_the_drain, nothing_new_is_accepted, a_drain_has_an_end,
             a_second_signal_exits_at_once):
    test()
    print("ok", test.__name__)
