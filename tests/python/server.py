"""A real `coreflow serve` for a test, on ports that the system chooses."""

import contextlib
import json
import os
import pathlib
import signal
import subprocess
import tempfile

ROOT = pathlib.Path(__file__).resolve().parents[2]
PROGRAM = os.environ.get("COREFLOW", str(ROOT / "target/release/coreflow"))
WAIT_S = 30


class Server:
    def __init__(self, *settings, config="examples/exec.toml", folder=None, stderr=None):
        words = [PROGRAM, "serve", "--json", "--config", config]
        # Without a folder that outlives it, what the node keeps goes with the test.
        self.own_folder = None if folder else tempfile.TemporaryDirectory(prefix="coreflow-")
        settings = (*settings, f"log.folder={folder or self.own_folder.name}")
        chosen = ("server.rpc_address=127.0.0.1:0", "server.http_address=127.0.0.1:0")
        for setting in (*chosen, *settings):
            words += ["--set", setting]
        self.process = subprocess.Popen(
            words, cwd=ROOT, stdout=subprocess.PIPE, stderr=stderr, text=True
        )
        line = self.process.stdout.readline()
        assert line, "the server did not start"
        said = json.loads(line)
        self.rpc = split(said["rpc"])
        self.http = split(said["http"])
        self.url = "http://" + said["http"]

    def memory_bytes(self, name):
        """A figure of the process: VmRSS is its resident memory, VmHWM the highest it was."""
        status = pathlib.Path(f"/proc/{self.process.pid}/status").read_text()
        line = next(line for line in status.splitlines() if line.startswith(name))
        return int(line.split()[1]) * 1024

    def forget_peak(self):
        """From here on VmHWM is the highest since now."""
        pathlib.Path(f"/proc/{self.process.pid}/clear_refs").write_text("5")

    def children(self):
        return descendants(self.process.pid)

    def signal(self, number=signal.SIGTERM):
        os.kill(self.process.pid, number)

    def wait(self):
        return self.process.wait(WAIT_S)


def processes():
    """The processes of this machine that live, each with its parent."""
    for folder in pathlib.Path("/proc").glob("[0-9]*"):
        try:
            state, parent = (folder / "stat").read_text().rpartition(")")[2].split()[:2]
        except OSError:
            continue
        if state != "Z":
            yield int(folder.name), int(parent)


def descendants(pid):
    """The processes that live and descend from another."""
    found, parents = [], {pid}
    while parents:
        parents = {child for child, parent in processes() if parent in parents}
        found += parents
    return found


def lives(pid):
    return any(pid == other for other, _ in processes())


def split(address):
    host, port = address.rsplit(":", 1)
    return host, int(port)


@contextlib.contextmanager
def serving(*settings, **options):
    """A server that ends with the test, whatever happens, and ends well if the test went well."""
    server = Server(*settings, **options)
    try:
        yield server
        if server.process.poll() is None:
            server.signal()
            assert server.wait() == 0, "the server did not stop well"
    finally:
        if server.process.poll() is None:
            server.process.kill()
            server.process.wait()
