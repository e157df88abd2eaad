"""The pages beside /mcp: what an orchestrator, Prometheus and a browser ask for."""

import json
import signal
import time
import urllib.error
import urllib.request

from client import Client
from prometheus_client.parser import text_string_to_metric_families
from server import serving

WAIT_S = 30


def get(server, path):
    try:
        with urllib.request.urlopen(server.url + path, timeout=WAIT_S) as answer:
            return answer.status, answer.headers["content-type"], answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.headers["content-type"], error.read().decode()


def metrics(server):
    """The families by name, read by Prometheus' own parser."""
    status, kind, text = get(server, "/metrics")
    assert (status, kind) == (200, "text/plain; version=0.0.4; charset=utf-8"), (status, kind)
    families = {family.name: family for family in text_string_to_metric_families(text)}
    for family in families.values():
        assert family.type in ("counter", "gauge"), f"{family.name} is {family.type}"
        assert family.documentation.endswith("."), family
        assert family.samples, family
    return families


def prometheus_reads_the_figures_and_they_are_right(server):
    client = Client(server)
    for number in range(20):
        task = client.call("task.submit", type="echo", payload=number)["id"]
        assert client.call("task.result", id=task, wait_ms=10000)["status"] == "done"
    deadline = time.monotonic() + WAIT_S
    while True:
        done = sum(sample.value for sample in metrics(server)["coreflow_tasks_done"].samples)
        if done == 20:
            break
        assert done < 20 and time.monotonic() < deadline, done
    families = metrics(server)
    cores = {sample.labels["core"] for sample in families["coreflow_agents"].samples}
    assert cores == {str(core) for core in range(len(cores))}, cores
    assert families["coreflow_accepting"].samples[0].value == 1
    assert families["coreflow_resident_bytes"].samples[0].value > 1 << 20
    totals = json.loads(get(server, "/stats.json")[2])["totals"]
    assert totals["tasks_done"] == 20, totals
    assert get(server, "/")[:2] == (200, "text/html; charset=utf-8")


def health_and_readiness_differ_while_the_node_drains():
    with serving("server.drain_ms=30000") as server:
        assert (get(server, "/healthz")[0], get(server, "/readyz")[0]) == (200, 200)
        client = Client(server)
        task = client.call("task.submit", type="sleep", payload={"ms": 2000})["id"]
        client.until_running(task)
        server.signal(signal.SIGTERM)
        deadline = time.monotonic() + WAIT_S
        while get(server, "/readyz")[0] == 200:
            assert time.monotonic() < deadline, "the node stays ready"
        assert get(server, "/readyz")[0] == 503 and get(server, "/healthz")[0] == 200
        assert metrics(server)["coreflow_accepting"].samples[0].value == 0
        assert server.wait() == 0


with serving() as server:
    prometheus_reads_the_figures_and_they_are_right(server)
    print("ok prometheus_reads_the_figures_and_they_are_right")
health_and_readiness_differ_while_the_node_drains()
print("ok health_and_readiness_differ_while_the_node_drains")
