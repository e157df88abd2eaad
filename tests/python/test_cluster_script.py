"""`scripts/cluster.sh`: three nodes in one command, one of which dies and is started again; a node
that does not know the cluster's secret stays outside."""

import contextlib
import os
import pathlib
import re
import secrets
import signal
import subprocess
import tempfile
import threading

from client import Client
from cluster import Node, cluster_of, free_addresses, until
from server import PROGRAM, ROOT, WAIT_S

SCRIPT = ROOT / "scripts/cluster.sh"


class Script:
    """The script while it runs, and what it has said."""

    def __init__(self, *words):
        environment = {**os.environ, "COREFLOW": str(pathlib.Path(PROGRAM).resolve())}
        self.process = subprocess.Popen(
            [SCRIPT, *words], cwd=ROOT, env=environment, text=True,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )
        self.said = []
        self.reader = threading.Thread(target=lambda: self.said.extend(self.process.stdout))
        self.reader.start()

    def find(self, pattern):
        return re.search(pattern, "".join(self.said))

    def until_said(self, pattern):
        def found():
            match = self.find(pattern)
            assert match or self.process.poll() is None, "".join(self.said)
            return match
        return until(found, f"{pattern} in what the script says", 2 * WAIT_S)

    def processes(self):
        return [int(each) for each in re.findall(r"\(process (\d+)\)", "".join(self.said))]


@contextlib.contextmanager
def script(*words):
    running = Script(*words)
    try:
        yield running
    finally:
        if running.process.poll() is None:
            running.process.send_signal(signal.SIGINT)
        try:
            running.process.wait(2 * WAIT_S)
        finally:
            running.process.kill()
            running.reader.join(WAIT_S)


def is_alive(process):
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    return True


def places(folder, count):
    addresses = free_addresses(3 * count)
    return [Node(folder, each + 1, addresses[3 * each : 3 * each + 3]) for each in range(count)]


def file_with(path, text):
    path.write_text(text)
    path.chmod(0o600)
    return path


def three_nodes_in_one_command(folder):
    token = secrets.token_hex(16)
    token_file = file_with(folder / "token", token)
    secret_file = file_with(folder / "secret", secrets.token_hex(16))
    nodes = places(folder, 3)
    config = folder / "cluster.toml"
    config.write_text(
        "[log]\nsegment_mib = 8\n\n[cluster]\npartitions = 3\n"
        + "".join(node.entry() for node in nodes)
    )
    settings = [
        "--set", f"server.token_file={token_file}",
        "--set", f"cluster.secret_file={secret_file}",
    ]
    words = ("--config", config, "--folder", folder / "nodes", *settings)
    with script(*words) as running:
        running.until_said("ready; look at it")
        processes = running.processes()
        assert len(processes) == 3, running.said

        def status(node):
            command = [PROGRAM, "cluster", "status", "--connect", node.rpc_text, *settings]
            return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=WAIT_S)
        shown = status(nodes[0])
        assert shown.returncode == 0 and shown.stdout.count("127.") >= 6, shown
        task = Client(nodes[1], token).call("task.submit", type="echo", payload=7)["id"]
        done = Client(nodes[2], token).call("task.result", id=task, wait_ms=20000)
        assert (done["status"], done["result"]) == ("done", 7), done

        os.kill(processes[0], signal.SIGKILL)
        again = running.until_said(r"start it again with:\n +(cd .*)\n")[1]
        assert "cluster.node=1" in again, again
        # The others run, so their folder is in use.
        with script(*words) as second:
            assert second.process.wait(WAIT_S) == 1, second.said
            second.reader.join(WAIT_S)
            assert "runs already" in "".join(second.said), second.said
        with (folder / "again.log").open("w") as log:
            # Pasted in another folder; this process is the node in the end.
            line = again.replace("&& ", "&& exec ", 1)
            first = subprocess.Popen(["bash", "-c", line], cwd="/", stdout=log, stderr=log)
        try:
            until(nodes[0].is_ready, "the node is there again", 2 * WAIT_S)
            done = Client(nodes[0], token).call("task.result", id=task, wait_ms=20000)
            assert (done["status"], done["result"]) == ("done", 7), done
        finally:
            first.terminate()
            first.wait(WAIT_S)
        running.process.send_signal(signal.SIGINT)
        assert running.process.wait(2 * WAIT_S) == 0, running.said
        assert not any(is_alive(each) for each in processes)
    print("ok: three nodes in one command, and one of them again")


def what_is_wrong_is_said(folder):
    for words, code, message in (
        (["--config", folder / "nowhere.toml"], 2, "cannot be read"),
        (["--config", ROOT / "tuning/default.toml"], 2, "lists no"),
        (["--folder"], 2, "needs a value"),
        (["everything"], 2, "is not known"),
    ):
        with script(*words) as running:
            assert running.process.wait(WAIT_S) == code, running.said
        assert message in "".join(running.said), (words, running.said)
    # An address that somebody else has.
    nodes = places(folder, 2)
    config = folder / "taken.toml"
    entries = [node.entry() for node in nodes]
    entries[1] = entries[1].replace(nodes[1].rpc_text, "192.0.2.1:7450")
    config.write_text("[log]\nsegment_mib = 8\n" + "".join(entries))
    token_file = file_with(folder / "token-2", secrets.token_hex(16))
    with script("--config", config, "--folder", folder / "taken",
                "--set", f"server.token_file={token_file}") as running:
        assert running.process.wait(2 * WAIT_S) == 1, running.said
        said = "".join(running.said)
        assert "node 2 did not start" in said and "192.0.2.1:7450" in said, said
    print("ok: what is wrong is said")


def who_does_not_know_the_secret_stays_outside(folder):
    known = file_with(folder / "known", secrets.token_hex(16))
    other = file_with(folder / "other", secrets.token_hex(16))
    with cluster_of(3) as cluster:
        first, second, third = cluster.nodes
        text = cluster.config.read_text()
        def secret(path):
            return text.replace("[cluster]\n", f'[cluster]\nsecret_file = "{path}"\n')
        for node in cluster.nodes:
            node.kill()
        cluster.config.write_text(secret(known))
        for node in (first, second):
            node.start(cluster.config)
        cluster.until_ready()
        stranger = cluster.folder / "stranger.toml"
        stranger.write_text(secret(other))
        third.start(stranger)
        def refused():
            return "cluster.secret_file" in third.log.read_text() + first.log.read_text()
        until(refused, "the refusal is told")
        seen = first.call("cluster.status")["nodes"]
        assert [node["connected"] for node in seen] == [True, True, False], seen
        assert not third.is_ready()
        third.kill()
        third.start(cluster.config)
        cluster.until_ready()
    print("ok: a node without the secret stays outside")


if __name__ == "__main__":
    with tempfile.TemporaryDirectory(prefix="coreflow-script-") as path:
        here = pathlib.Path(path)
        three_nodes_in_one_command(here)
        what_is_wrong_is_said(here)
        who_does_not_know_the_secret_stays_outside(here)
