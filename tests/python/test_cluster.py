"""Three real nodes: any of them takes what a client asks, and what one acknowledged is there for
all, through the death of a leader, of a majority and of everybody."""

import json
import re
import signal
import time

from client import Client
from cluster import PARTITIONS, cluster_of, until

WAIT_MS = 20000
# Several elections, on a machine where other tests run.
ELECTED_S = 20
# A leader leads for 2.5 s before it hands over, one partition after the other. What comes back from a node
# within 10 s of being handed over waits for 10 s, then 20, then 40.
SPREAD_S = 100


def partition_of(task):
    return int(re.match(r"t(\d+)-", task)[1])


def submit(node, number, **more):
    client = node if isinstance(node, Client) else node.client()
    task = {"type": "echo", "payload": number, "key": f"order-{number}", **more}
    return client.call("task.submit", **task)["id"]


def submit_until_taken(node, number, **more):
    """With a key a submission may be repeated until somebody answers it."""
    def taken():
        client = node.client()
        error, result = client.answer(client.ask(
            "task.submit", type="echo", payload=number, key=f"order-{number}", **more))
        assert error is None or error["code"] in ("not_leader", "unavailable"), error
        return result and result["id"]
    return until(taken, f"task {number} is taken", ELECTED_S)


def assert_done(cluster, tasks):
    """Every task is done for every node that lives."""
    for node in cluster.living():
        client = node.client()
        for number, task in tasks.items():
            view = client.call("task.result", id=task, wait_ms=WAIT_MS)
            assert (view["status"], view.get("result")) == ("done", number), (node.number, view)


def figures(node):
    status, text = node.get("/metrics")
    assert status == 200
    lines = (line.rsplit(" ", 1) for line in text.splitlines() if not line.startswith("#"))
    return {name: float(value) for name, value in lines}


def leads_everything(cluster, but=()):
    """Whether each partition is led by a node that lives, and every living node says so."""
    living = cluster.living()
    numbers = {node.number for node in living} - {node.number for node in but}
    for node in living:
        leaders = [each.get("leader") for each in node.call("cluster.status")["partitions"]]
        if len(leaders) != PARTITIONS or not set(leaders) <= numbers:
            return False
    return all(node.is_ready() for node in living)


def until_led(cluster, but=()):
    until(lambda: leads_everything(cluster, but), "all partitions have leaders", ELECTED_S)


def leaders_are_spread(cluster):
    """Whether each partition is led by the voter that should, so that none is handed over soon."""
    for node in cluster.living():
        for place, each in enumerate(node.call("cluster.status")["partitions"]):
            if each.get("leader") != each["voters"][place % len(each["voters"])]:
                return False
    return True


def until_spread(cluster):
    until(lambda: leaders_are_spread(cluster), "leaders are spread", SPREAD_S)


def homes_led_by(node):
    """The partitions that a node leads and should lead, which it hands over to nobody."""
    partitions = enumerate(node.call("cluster.status")["partitions"])
    return [place for place, each in partitions
            if each.get("leader") == node.number == each["voters"][place % len(each["voters"])]]


def submit_at_home(node):
    """An errand in a partition that the node leads and keeps."""
    client = node.client()
    for _ in range(100):
        errand = client.call("task.submit", type="errand", payload=None)["id"]
        if partition_of(errand) in homes_led_by(node):
            return errand
        assert client.call("task.cancel", id=errand) == {"cancelled": True}
    raise AssertionError(f"no errand of 100 is in a partition of node {node.number}")


def any_node_takes_what_another_leads(cluster):
    tasks = {}
    for number in range(60):
        tasks[number] = submit(cluster.nodes[number % 3], number)
    assert {partition_of(task) for task in tasks.values()} == set(range(PARTITIONS))
    assert_done(cluster, tasks)
    # The key is the cluster's, not the node's.
    for number, task in tasks.items():
        assert submit(cluster.nodes[(number + 1) % 3], number) == task
    batch = [{"type": "echo", "payload": n, "key": f"order-{n}"} for n in range(100, 150)]
    ids = cluster.nodes[0].call("task.submit_batch", tasks=batch)["ids"]
    tasks.update(zip(range(100, 150), ids))
    assert_done(cluster, tasks)
    return tasks


def an_acknowledgement_is_read_at_any_node(cluster):
    clients = [node.client() for node in cluster.nodes]
    for number in range(90):
        writer, reader, other = (clients[(number + step) % 3] for step in range(3))
        task = writer.call("task.submit", type="parcel", payload=number, key=f"read-{number}")["id"]
        assert reader.call("task.status", id=task)["status"] == "queued"
        assert other.call("task.cancel", id=task) == {"cancelled": True}
        assert reader.call("task.status", id=task)["status"] == "cancelled"


def workers_end_what_was_submitted_elsewhere(cluster):
    """While every node has a worker, each gets some of what its node leads."""
    # A leader's leases go with it.
    until_spread(cluster)
    workers = [node.client() for node in cluster.nodes]
    for worker in workers:
        worker.call("worker.register", types=["errand"], capacity=10)
    client = cluster.nodes[0].client()
    tasks = {
        client.call("task.submit", type="errand", payload=n, key=f"errand-{n}")["id"]: n
        for n in range(30)
    }
    leaders = cluster.leaders()
    left, served = set(tasks), set()
    deadline = time.monotonic() + ELECTED_S
    while left:
        assert time.monotonic() < deadline, f"{len(left)} tasks were given to nobody"
        for place, worker in enumerate(workers):
            for task in worker.call("worker.fetch", max=10, wait_ms=20)["tasks"]:
                assert task["id"] in left, f"{task} was given twice"
                error, _ = worker.answer(worker.ask(
                    "worker.complete", id=task["id"], lease=task["lease"], result=task["payload"]))
                if error and error["code"] == "stale_lease" and leaders != cluster.leaders():
                    # Its leader is another one, which gives it again.
                    continue
                assert error is None, error
                left.remove(task["id"])
                served.add(place)
    # Leaders may move on meanwhile; while they stay, each of them gives to its own worker, and what that one
    # is slow to take to others as well.
    if leaders == cluster.leaders():
        leading = {leaders[partition_of(task)].number - 1 for task in tasks}
        assert leading <= served, (served, leading)
    for task, number in tasks.items():
        view = cluster.nodes[2].call("task.result", id=task, wait_ms=WAIT_MS)
        assert (view["status"], view["result"]) == ("done", number), view


def who_does_not_lead_names_the_leader(cluster):
    until_led(cluster)
    by_address = {node.rpc_text: node for node in cluster.nodes}

    def refusal(node, partition):
        client = node.client()
        return client.answer(client.ask("cluster.transfer", partition=partition, node=1))[0]

    def is_named(partition):
        """Whether all but the leader name it; leaders may change between two questions."""
        leader = cluster.leaders()[partition]
        errors = [refusal(node, partition) for node in cluster.nodes if node is not leader]
        assert all(error is None or error["code"] == "not_leader" for error in errors), errors
        return all(error and by_address.get(error.get("leader")) is leader for error in errors)

    for partition in range(PARTITIONS):
        until(lambda: is_named(partition), f"the leader of partition {partition} is named")


def the_command_line_shows_and_changes_the_cluster(cluster):
    until_led(cluster)
    text = cluster.cli("status").stdout
    for node in cluster.nodes:
        assert f"{node.peers}" in text and node.rpc_text in text, text
    status = json.loads(cluster.cli("status", "--json").stdout)
    assert [node["id"] for node in status["nodes"]] == [1, 2, 3], status
    assert all(node["connected"] for node in status["nodes"]), status
    assert all(each["voters"] == [1, 2, 3] for each in status["partitions"]), status
    # Wherever a partition is led, it goes where it is told to, whoever is asked.
    for partition, leader in enumerate(cluster.leaders()[:2]):
        heir = next(node for node in cluster.nodes if node is not leader)
        asked = next(node for node in cluster.nodes if node not in (leader, heir))
        cluster.cli("transfer", str(partition), str(heir.number), node=asked)
    wrong = cluster.cli("transfer", str(PARTITIONS), "1", "--timeout", "3", ok=False)
    assert wrong.returncode == 1 and wrong.stderr, wrong


def a_node_joins_and_another_leaves(cluster, tasks):
    (new,), gone = cluster.spare, cluster.nodes[0]
    # Its file lists itself and whom it is to find.
    new.start(cluster.write_config("joins.toml", cluster.nodes + cluster.spare), start="join")
    assert not new.is_ready(), "a node that belongs to nothing takes no requests"
    joined = cluster.cli("join", "4", "--peers", new.peers, "--rpc", new.rpc_text)
    assert "has a vote in every partition" in joined.stdout, joined
    until_led(cluster)
    assert_done(cluster, dict(list(tasks.items())[:10]))
    cluster.cli("leave", "1", node=new)
    gone.stop()
    until_led(cluster)
    status = json.loads(cluster.cli("status", "--json", node=new).stdout)
    assert all(sorted(each["voters"]) == [2, 3, 4] for each in status["partitions"]), status
    tasks[200] = submit(new, 200)
    assert_done(cluster, tasks)
    cluster.nodes, cluster.spare = [*cluster.nodes[1:], new], []


def a_killed_leader_costs_a_pause(cluster, tasks):
    until_led(cluster)
    leader = cluster.leaders()[0]
    others = [node for node in cluster.nodes if node is not leader]
    before = {number: submit(leader, number, delay_ms=500) for number in range(300, 330)}
    leader.kill()
    began = time.monotonic()
    for number in range(330, 360):
        before[number] = submit_until_taken(others[number % 2], number)
    pause_s = time.monotonic() - began
    until_led(cluster)
    tasks.update(before)
    assert_done(cluster, tasks)
    leader.start(*leader.started_as)
    until_led(cluster)
    assert_done(cluster, before)
    print(f"   30 submissions after the kill took {pause_s:.2f} s")


def a_node_that_stops_hands_over(cluster, tasks):
    until_led(cluster)
    leader = cluster.leaders()[0]
    client = next(node for node in cluster.nodes if node is not leader).client()
    number, longest_s = 400, 0
    leader.signal(signal.SIGTERM)
    while leader.process.poll() is None:
        began = time.monotonic()
        tasks[number] = submit(client, number)
        longest_s = max(longest_s, time.monotonic() - began)
        number += 1
    assert leader.process.returncode == 0 and number > 400
    said = leader.log.read_text()
    assert "not all partitions were handed over" not in said, said[-2000:]
    # Handed over before the process ended: nobody waits for an election.
    assert leads_everything(cluster), "a partition has no leader after its leader stopped"
    tasks[number] = submit(client, number)
    leader.start(*leader.started_as)
    until_led(cluster)
    assert_done(cluster, {number: tasks[number]})
    print(f"   {number - 400} submissions meanwhile, the longest took {longest_s * 1000:.0f} ms")


def a_node_that_drains_takes_what_others_send(cluster, tasks):
    stopping, other = cluster.nodes[:2]
    began = time.monotonic()
    until(lambda: homes_led_by(stopping), "it leads what it should", SPREAD_S)
    print(f"   it was given a partition after {time.monotonic() - began:.1f} s")
    # A task that goes to another leader in the midst of it would not be waited for here.
    errand = submit_at_home(stopping)
    worker = stopping.client()
    worker.call("worker.register", types=["errand"], capacity=1)
    [held] = worker.call("worker.fetch", max=1, wait_ms=WAIT_MS)["tasks"]
    assert held["id"] == errand
    stopping.signal(signal.SIGTERM)
    until(lambda: not stopping.is_ready(), "it stops")
    # It waits for its worker, and leads what it leads meanwhile.
    for number in range(800, 860):
        tasks[number] = submit(other, number)
    assert stopping.process.poll() is None
    worker.call("worker.complete", id=errand, lease=held["lease"], result="late")
    assert stopping.process.wait(WAIT_MS / 1000) == 0
    view = other.client().call("task.result", id=errand, wait_ms=WAIT_MS)
    assert (view["status"], view["result"]) == ("done", "late"), view
    stopping.start(*stopping.started_as)
    cluster.until_ready()
    assert_done(cluster, tasks)


def a_minority_takes_nothing_and_says_so(cluster, tasks):
    alone, *others = cluster.nodes
    for node in others:
        node.kill()

    def not_ready():
        status, text = alone.get("/readyz")
        return status == 503 and json.loads(text)
    reason = until(not_ready, "a node without a majority is not ready", ELECTED_S)["reason"]
    assert "lead" in reason, reason
    assert alone.get("/healthz")[0] == 200
    client, began = alone.client(), time.monotonic()
    error, result = client.answer(client.ask("task.submit", type="echo", payload=1, key="minority"))
    assert result is None and error["code"] in ("not_leader", "unavailable"), (error, result)
    took_s = time.monotonic() - began
    assert took_s < 15, f"a client waited {took_s:.1f} s for nobody"
    print(f"   refused after {took_s:.2f} s: {error['code']}")
    assert figures(alone)["coreflow_cluster_leaderless"] == PARTITIONS
    for node in others:
        node.start(*node.started_as)
    until_led(cluster)
    tasks[500] = submit_until_taken(alone, 500)
    assert_done(cluster, tasks)


def everybody_is_killed_and_nothing_is_lost(cluster, tasks):
    late = {number: submit(cluster.nodes[number % 3], number, delay_ms=3000)
            for number in range(600, 630)}
    for node in cluster.nodes:
        node.kill()
    for node in cluster.nodes:
        node.start(*node.started_as)
    until_led(cluster)
    tasks.update(late)
    assert_done(cluster, tasks)
    for number, task in late.items():
        assert submit(cluster.nodes[(number + 1) % 3], number, delay_ms=3000) == task


def figures_tell_what_the_cluster_does(cluster):
    # Who leads is not to change meanwhile.
    until_spread(cluster)
    until_led(cluster)

    def sums_up():
        every = [figures(node) for node in cluster.nodes]
        leads = sum(each["coreflow_cluster_leads"] for each in every)
        return leads == PARTITIONS and every
    every = until(sums_up, "each partition is led once", ELECTED_S)
    for node, said in zip(cluster.nodes, every):
        assert said["coreflow_cluster_partitions"] == PARTITIONS
        assert said["coreflow_cluster_leaderless"] == 0
        for other in cluster.nodes:
            name = f'coreflow_cluster_link_connected{{node="{other.number}"}}'
            assert said.get(name) == (None if other is node else 1), (node.number, name)
    def forwarded():
        return sum(figures(node)["coreflow_cluster_forwarded_total"] for node in cluster.nodes)
    before = forwarded()
    for number in range(700, 730):
        ids = {submit(node, number) for node in cluster.nodes}
        assert len(ids) == 1, "a key stands for one task of the cluster"
    assert forwarded() - before >= 2 * 30, "each task was asked for at two nodes that lead it not"


TOKEN = "the-token-of-all-clients"


def keep_secrets(cluster):
    """All nodes have a token for clients and a secret of their own."""
    files = {"token": TOKEN, "secret": "what-only-nodes-know"}
    for name, text in files.items():
        path = cluster.folder / name
        path.write_text(text)
        path.chmod(0o600)
    keys = {"cluster": "secret_file", "server": "token_file"}
    text = cluster.config.read_text()
    for section, key in keys.items():
        line = f'{key} = "{cluster.folder / key.removesuffix("_file")}"\n'
        head = f"[{section}]\n"
        text = text.replace(head, head + line, 1) if head in text else f"{head}{line}\n{text}"
    cluster.config.write_text(text)


def nodes_with_a_token_and_a_secret_ask_each_other():
    """They prove the secret to each other, and do what clients ask of the others."""
    with cluster_of(3, prepare=keep_secrets) as cluster:
        error, _ = (stranger := cluster.nodes[0].client()).answer(stranger.ask("node.stats"))
        assert error["code"] == "unauthorized", error
        clients = [Client(node, TOKEN) for node in cluster.nodes]
        for number in range(30):
            ids = {submit(client, number) for client in clients}
            assert len(ids) == 1, "a key stands for one task of the cluster"
            task = ids.pop()
            for client in clients:
                assert client.call("task.result", id=task, wait_ms=WAIT_MS)["result"] == number
        said = "".join(node.log.read_text() for node in cluster.nodes)
        assert "does not prove" not in said and TOKEN not in said, said


def told(test, *args):
    began = time.monotonic()
    result = test(*args)
    print(f"ok {test.__name__} ({time.monotonic() - began:.1f} s)", flush=True)
    return result


def main():
    with cluster_of(3, spare=1) as cluster:
        tasks = told(any_node_takes_what_another_leads, cluster)
        for test in (an_acknowledgement_is_read_at_any_node,
                     workers_end_what_was_submitted_elsewhere,
                     who_does_not_lead_names_the_leader,
                     the_command_line_shows_and_changes_the_cluster):
            told(test, cluster)
        for test in (a_killed_leader_costs_a_pause, a_node_that_stops_hands_over,
                     a_node_that_drains_takes_what_others_send,
                     a_minority_takes_nothing_and_says_so,
                     everybody_is_killed_and_nothing_is_lost,
                     a_node_joins_and_another_leaves):
            told(test, cluster, tasks)
        told(figures_tell_what_the_cluster_does, cluster)
    told(nodes_with_a_token_and_a_secret_ask_each_other)


if __name__ == "__main__":
    main()
