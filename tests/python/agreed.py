"""What tests of nodes that agree by PBFT share: who leads, whether the logs are alike, and a thread that
submits tasks."""

import re
import subprocess
import threading
import time

from cluster import PARTITIONS, until
from server import PROGRAM

# Several changes of the view, on a machine where other tests run.
CHANGED_S = 40


def partitions(node):
    return node.call("cluster.status")["partitions"]


def primaries(node):
    return [each.get("leader") for each in partitions(node)]


def until_led_by_the_living(cluster, but=()):
    """Every node that lives knows of each partition a primary that lives."""
    numbers = {node.number for node in cluster.living()} - {node.number for node in but}
    led = lambda node: set(primaries(node)) <= numbers
    until(lambda: all(led(node) for node in cluster.living() if node not in but),
          "all partitions have primaries that live", CHANGED_S)


def assert_alike(nodes):
    """The nodes have committed the same entries in all partitions, from the first one on: the chain
    is a hash over all of them."""
    heads = {}

    def are_alike():
        heads.clear()
        for node in nodes:
            found = partitions(node)
            assert len(found) == PARTITIONS
            assert not any(each["diverged"] for each in found), (node.number, found)
            heads[node.number] = [(each["committed"], each["chain"]) for each in found]
        return all(head == heads[nodes[0].number] for head in heads.values())

    until(are_alike, "the logs are alike", CHANGED_S)
    return sum(committed for committed, _ in heads[nodes[0].number])


def assert_done_in_time(cluster, tasks):
    """Every task is done for every node, also where views change meanwhile."""
    changing = 0
    for node in cluster.living():
        client = node.client()
        for number, task in tasks.items():
            deadline = time.monotonic() + CHANGED_S
            while True:
                error, view = client.answer(client.ask("task.result", id=task, wait_ms=20_000))
                if error is None:
                    break
                assert error["code"] in ("not_leader", "unavailable"), (node.number, number, error)
                assert time.monotonic() < deadline, (node.number, number, error, partitions(node))
                changing += 1
                time.sleep(0.05)
            said = (view["status"], view.get("result"))
            assert said == ("done", number), (node.number, task, view)
    print(f"{len(tasks)} tasks are done for all; {changing} times a view changed meanwhile")


class Submitter(threading.Thread):
    """Submits tasks to nodes in turn, again until one of them takes each."""

    def __init__(self, nodes, first):
        super().__init__(daemon=True)
        self.nodes, self.number, self.tasks = nodes, first, {}
        self.stopping, self.failed = threading.Event(), None
        self.start()

    def run(self):
        try:
            while not self.stopping.is_set():
                self.submit_one()
        except BaseException as failed:
            self.failed = failed

    def submit_one(self):
        deadline = time.monotonic() + CHANGED_S
        for step in range(1_000_000):
            node = self.nodes[(self.number + step) % len(self.nodes)]
            try:
                client = node.client()
                error, result = client.answer(client.ask(
                    "task.submit", type="echo", payload=self.number, key=f"order-{self.number}"))
            except (OSError, AssertionError):
                error = {"code": "gone"}
            if error is None:
                self.tasks[self.number] = result["id"]
                self.number += 1
                return
            codes = ("not_leader", "unavailable", "gone", "backpressure")
            assert error["code"] in codes, error
            assert time.monotonic() < deadline, f"task {self.number} is not taken: {error}"
            time.sleep(0.02)

    def stop(self):
        """What was acknowledged, by number."""
        self.stopping.set()
        self.join(CHANGED_S + 5)
        if self.failed:
            raise self.failed
        return self.tasks

    def until_more(self, count):
        goal = len(self.tasks) + count
        until(lambda: self.failed or len(self.tasks) >= goal, f"{count} more tasks", CHANGED_S)
        if self.failed:
            raise self.failed


def the_doctor_finds_their_logs_whole(cluster):
    for node in cluster.living():
        node.stop()
    for node in cluster.nodes:
        words = [PROGRAM, "doctor", "--log", "--folder", str(node.folder)]
        done = subprocess.run(words, capture_output=True, text=True, timeout=120)
        assert done.returncode == 0, done
    print("the doctor finds four whole logs")


def plain(text):
    return re.sub(r"\x1b\[[0-9;]*m", "", text)
