"""SIGTERM: nothing new is accepted, what was accepted ends, the exit code is 0; a second one exits
at once. No child outlives the server."""

import json
import signal
import time

from client import Client
from server import lives, serving

WAIT_S = 30
# Signals closer together than 50 ms are one.
APART_S = 0.1


def until(condition, what):
    deadline = time.monotonic() + WAIT_S
    while not condition():
        assert time.monotonic() < deadline, what


def until_draining(client):
    until(lambda: client.answer(client.ask("task.submit", type="echo", payload=1))[0] is not None,
          "tasks are accepted for ever")


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
        until_draining(client)
        error, _ = client.answer(client.ask("task.submit", type="echo", payload=1))
        assert error["code"] == "unavailable", error
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
        until_draining(client)
        time.sleep(APART_S)
        server.signal(signal.SIGTERM)
        assert server.wait() == 1


def waits_for_what_will_not_come_are_answered():
    with serving("server.drain_ms=600000", config="tests/python/worker.toml") as server:
        worker, client = Client(server), Client(server)
        worker.call("worker.register", types=["errand"], capacity=1)
        fetching = worker.ask("worker.fetch", wait_ms=600000)
        task = client.call("task.submit", type="parcel", payload=1)["id"]
        waiting = client.ask("task.result", id=task, wait_ms=600000)
        begun = time.monotonic()
        server.signal()
        assert worker.answer(fetching) == (None, {"tasks": []})
        error, known = client.answer(waiting)
        assert error is None and (known["id"], known["status"]) == (task, "queued"), (error, known)
        assert server.wait() == 0
        took = time.monotonic() - begun
        print(f"   stopped after {took:.2f} s of a drain of 600 s")
        assert took < 20


def a_wait_for_a_task_that_outlasts_the_drain_is_answered():
    with serving("server.drain_ms=500") as server:
        client = Client(server)
        task = client.call("task.submit", type="sleep", payload={"ms": 60000})["id"]
        client.until_running(task)
        waiting = client.ask("task.result", id=task, wait_ms=600000)
        server.signal()
        error, known = client.answer(waiting)
        assert error is None and known["status"] == "running", (error, known)
        assert server.wait() == 0


def agent_that(does):
    """The type "words", as a shell that does something for each task that it reads."""
    command = ["bash", "-c", "while read -r line; do " + does + "; done"]
    return "agent.words.command=" + json.dumps(command)


def a_busy_child_ends_its_task_within_the_drain():
    slowly = """id=${line#*'"id":"'}; id=${id%%'"'*}; sleep 1.5; echo '{"id":"'$id'","result":7}'"""
    with serving("server.drain_ms=20000", agent_that(slowly)) as server:
        client, idle = Client(server), Client(server)
        task = client.call("task.submit", type="words", payload=1)["id"]
        client.until_running(task)
        waiting = client.ask("task.result", id=task, wait_ms=20000)
        server.signal()
        error, ended = client.answer(waiting)
        assert error is None and (ended["status"], ended["result"]) == ("done", 7), (error, ended)
        assert server.wait() == 0
        assert idle.connection.recv(1) == b"", "an idle client is told by the end of its connection"


def busy_children_end_with_the_server(signals, code):
    settings = ("server.drain_ms=600000" if signals > 1 else "server.drain_ms=300",
                agent_that("sleep 600; sleep 601"), "agent.words.max_tasks=1")
    with serving(*settings) as server:
        client = Client(server)
        client.until_running(client.call("task.submit", type="words", payload=1)["id"])
        # The shell and what it started.
        until(lambda: len(server.children()) >= 2, "the child does not work")
        children = server.children()
        server.signal()
        if signals > 1:
            until_draining(client)
            time.sleep(APART_S)
            server.signal()
        assert server.wait() == code
        until(lambda: not any(map(lives, children)), f"one of {children} outlives the server")


def two_signals_at_the_same_moment_are_one():
    with serving("server.drain_ms=20000") as server:
        client = Client(server)
        task = client.call("task.submit", type="sleep", payload={"ms": 1500})["id"]
        client.until_running(task)
        waiting = client.ask("task.result", id=task, wait_ms=10000)
        # Both arrive when the process goes on.
        for number in (signal.SIGSTOP, signal.SIGTERM, signal.SIGINT, signal.SIGCONT):
            server.signal(number)
        assert client.answer(waiting)[1]["status"] == "done"
        assert server.wait() == 0


for test in (running_tasks_end_within_the_drain, nothing_new_is_accepted, a_drain_has_an_end,
             waits_for_what_will_not_come_are_answered,
             a_wait_for_a_task_that_outlasts_the_drain_is_answered,
             a_second_signal_exits_at_once, a_busy_child_ends_its_task_within_the_drain,
             two_signals_at_the_same_moment_are_one):
    test()
    print("ok", test.__name__)
for signals, code in ((1, 0), (2, 1)):
    busy_children_end_with_the_server(signals, code)
    print("ok busy_children_end_with_the_server", signals, code)
