"""A real cluster for a test: `coreflow serve` processes on ports that the system chooses."""

import contextlib
import json
import os
import pathlib
import random
import select
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request

from client import Client
from server import PROGRAM, ROOT, WAIT_S, split

CONFIG = ROOT / "tests/python/worker.toml"
PARTITIONS = 6


# An address of the loopback that no other test has: connections come from 127.0.0.1, so that none of
# them takes the port of a node that is away for a moment.
HOST = "127.%d.%d.%d" % tuple(random.SystemRandom().randrange(1, 255) for _ in range(3))


def free_addresses(count):
    """Addresses of the loopback that nobody listens on now."""
    sockets = [socket.socket() for _ in range(count)]
    try:
        for each in sockets:
            each.bind((HOST, 0))
        return ["%s:%d" % each.getsockname() for each in sockets]
    finally:
        for each in sockets:
            each.close()


class Node:
    """A place in a cluster; its process may end and begin again."""

    def __init__(self, folder, number, addresses):
        self.number = number
        self.peers, self.rpc_text, self.http = addresses
        self.rpc = split(self.rpc_text)
        self.folder = folder / f"node-{number}"
        self.log = folder / f"node-{number}.txt"
        self.process = None
        # What it signs with, and is known by, where nodes agree by PBFT.
        self.identity = self.public_key = None
        # The program that it runs, and what it finds in its environment beside the test's.
        self.program, self.environment = PROGRAM, {}
        # The arguments of the last start, for another one.
        self.started_as = None

    def make_identity(self, folder):
        self.identity = folder / f"node-{self.number}.key"
        words = [PROGRAM, "cluster", "identity", str(self.identity)]
        done = subprocess.run(words, capture_output=True, text=True, check=True)
        self.public_key = done.stdout.strip()

    def entry(self):
        key = f'public_key = "{self.public_key}"\n' if self.public_key else ""
        return (
            f'\n[[node]]\nid = {self.number}\npeers = "{self.peers}"\n'
            f'rpc = "{self.rpc_text}"\nhttp = "{self.http}"\n{key}'
        )

    def start(self, config, start="new"):
        self.started_as = (config, start)
        settings = [
            f"cluster.node={self.number}",
            f"cluster.start={start}",
            f"log.folder={self.folder}",
        ]
        if self.identity:
            settings.append(f"consensus.identity_file={self.identity}")
        words = [self.program, "serve", "--json", "--config", str(config)]
        for setting in settings:
            words += ["--set", setting]
        with self.log.open("a") as log:
            self.process = subprocess.Popen(
                words, cwd=ROOT, stdout=subprocess.PIPE, stderr=log, text=True,
                # With what a stop is at.
                env={"COREFLOW_LOG": "info,coreflow::node=debug", **os.environ, **self.environment},
            )
        said, _, _ = select.select([self.process.stdout], [], [], WAIT_S)
        line = said and self.process.stdout.readline()
        assert line, f"node {self.number} did not start: {self.log.read_text()}"
        assert json.loads(line)["rpc"] == self.rpc_text

    def signal(self, number):
        self.process.send_signal(number)

    def kill(self):
        self.process.kill()
        self.process.wait(WAIT_S)

    def stop(self):
        self.signal(signal.SIGTERM)
        try:
            assert self.process.wait(WAIT_S) == 0, self.log.read_text()
        except subprocess.TimeoutExpired as late:
            threads = self.threads()
            raise AssertionError(
                f"node {self.number} does not end\n{threads}\n{self.log.read_text()[-4000:]}") from late

    def threads(self):
        """What each thread of it waits for."""
        def of(task, name):
            try:
                return (task / name).read_text().strip()
            except OSError as error:
                return error.strerror

        folder = pathlib.Path(f"/proc/{self.process.pid}/task")
        return "\n".join(
            f"{of(task, 'comm')}: {of(task, 'wchan')}, {of(task, 'syscall')}" for task in folder.iterdir())

    def get(self, path):
        """Status and text of a page."""
        try:
            with urllib.request.urlopen(f"http://{self.http}{path}", timeout=WAIT_S) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode()

    def is_ready(self):
        try:
            return self.get("/readyz")[0] == 200
        except OSError:
            return False

    def client(self):
        return Client(self)

    def call(self, method, **params):
        return self.client().call(method, **params)


class Cluster:
    def __init__(self, folder, count, spare=0, agrees=False):
        self.agrees = agrees
        self.folder = pathlib.Path(folder)
        addresses = free_addresses(3 * (count + spare))
        places = [tuple(addresses[3 * each : 3 * each + 3]) for each in range(count + spare)]
        nodes = [Node(self.folder, number + 1, place) for number, place in enumerate(places)]
        self.nodes, self.spare = nodes[:count], nodes[count:]
        if agrees:
            for node in self.nodes:
                node.make_identity(self.folder)
        self.config = self.write_config("cluster.toml", self.nodes)

    def write_config(self, name, nodes):
        text = CONFIG.read_text().replace(
            "[tasks]", f"[log]\nsegment_mib = 8\n\n[cluster]\npartitions = {PARTITIONS}\n\n[tasks]"
        )
        if self.agrees:
            text = text.replace("[tasks]", '[consensus]\nprotocol = "pbft"\n\n[tasks]')
        path = self.folder / name
        path.write_text(text + "".join(node.entry() for node in nodes))
        return path

    def living(self):
        everyone = self.nodes + self.spare
        return [node for node in everyone if node.process and node.process.poll() is None]

    def until_ready(self):
        until(lambda: all(node.is_ready() for node in self.living()), "every node is ready")

    def leaders(self):
        """The node that leads each partition, as one of them sees it."""
        status = self.living()[0].call("cluster.status")
        by_number = {node.number: node for node in self.nodes + self.spare}
        return [by_number.get(each.get("leader")) for each in status["partitions"]]

    def cli(self, *words, ok=True, node=None):
        connect = (node or self.living()[0]).rpc_text
        command = [PROGRAM, "cluster", *words, "--connect", connect]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120)
        assert (done.returncode == 0) == ok, (words, done)
        return done


def until(condition, what, limit_s=WAIT_S):
    """Waits until a condition holds, and returns what it gave."""
    deadline = time.monotonic() + limit_s
    while True:
        held = condition()
        if held:
            return held
        assert time.monotonic() < deadline, f"not within {limit_s} s: {what}"
        time.sleep(0.02)


@contextlib.contextmanager
def cluster_of(count, spare=0, agrees=False, prepare=lambda cluster: None):
    """A cluster that ends with the test, whatever happens; what its nodes said is shown when the
    test failed."""
    # Whoever ends the test gets its nodes ended, too.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("the test was ended from outside"))
    with tempfile.TemporaryDirectory(prefix="coreflow-cluster-") as folder:
        cluster = Cluster(folder, count, spare, agrees)
        prepare(cluster)
        try:
            for node in cluster.nodes:
                node.start(cluster.config)
            cluster.until_ready()
            yield cluster
        except BaseException:
            for node in cluster.nodes + cluster.spare:
                if node.log.exists():
                    print(f"-- node {node.number}\n{node.log.read_text()[-8000:]}")
            raise
        finally:
            for node in cluster.living():
                node.signal(signal.SIGCONT)
                node.kill()
