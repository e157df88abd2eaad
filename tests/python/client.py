"""A MessagePack-RPC client, one question after the other."""

import socket
import time

import msgpack

WAIT_S = 30


class Client:
    def __init__(self, server, token=None):
        self.connection = socket.create_connection(server.rpc, timeout=WAIT_S)
        self.unpacker = msgpack.Unpacker()
        self.number = 0
        self.early = {}
        if token is not None:
            self.call("auth", token=token)

    def ask(self, method, **params):
        self.number += 1
        self.connection.sendall(msgpack.packb([0, self.number, method, [params]]))
        return self.number

    def ask_raw(self, method, params):
        """Asks with parameters that are MessagePack already."""
        self.number += 1
        start = [msgpack.packb(part) for part in (0, self.number, method)]
        self.connection.sendall(b"\x94" + b"".join(start) + b"\x91" + params)
        return self.number

    def answer(self, number):
        """The error and the result of an answer."""
        while number not in self.early:
            for kind, answered, error, result in self.unpacker:
                assert kind == 1
                # Answers come in any order.
                self.early[answered] = error, result
            if number in self.early:
                break
            piece = self.connection.recv(4096)
            assert piece, "the connection ended before the answer"
            self.unpacker.feed(piece)
        return self.early.pop(number)

    def call(self, method, **params):
        error, result = self.answer(self.ask(method, **params))
        assert error is None, error
        return result

    def until_running(self, task):
        deadline = time.monotonic() + WAIT_S
        while self.call("task.status", id=task)["status"] != "running":
            assert time.monotonic() < deadline, "the task does not run"
