"""Three real nodes: tasks of a type without an agent on the node that keeps them go to workers of other
nodes, and end there as they would at home, through the death of a worker's node."""

import statistics
import threading
import time

from client import Client
from cluster import PARTITIONS, cluster_of, until
from server import WAIT_S

TASKS = 3000
# An election, a death that gossip has to see, and attempts that begin again, on a busy machine.
SETTLED_S = 60


class Worker(threading.Thread):
    """A worker of one node that answers what it gets with twice the number, until it is told to stop or its
    node is gone."""

    def __init__(self, node, types=("errand",), capacity=100, pause_s=0.0):
        super().__init__(daemon=True)
        self.node, self.capacity, self.pause_s = node, capacity, pause_s
        self.client = Client(node)
        self.client.call("worker.register", types=list(types), capacity=capacity)
        self.got, self.ended, self.stale = [], [], 0
        self.trouble, self.stops = None, False
        self.start()

    def run(self):
        try:
            while not self.stops:
                tasks = self.client.call("worker.fetch", max=self.capacity, wait_ms=100)["tasks"]
                self.got += [(task["id"], task["attempt"]) for task in tasks]
                if self.pause_s:
                    time.sleep(self.pause_s)
                asked = [
                    (task, self.client.ask("worker.complete", id=task["id"], lease=task["lease"],
                                           result=2 * task["payload"]))
                    for task in tasks
                ]
                for task, number in asked:
                    error, _ = self.client.answer(number)
                    if error is None:
                        self.ended.append(task["id"])
                    else:
                        assert error["code"] == "stale_lease", error
                        self.stale += 1
        except (OSError, AssertionError) as trouble:
            self.trouble = trouble

    def stop(self):
        self.stops = True
        self.join(WAIT_S)
        assert self.trouble is None, self.trouble
        self.client.connection.close()


def figure(node, name):
    status, text = node.get("/metrics")
    assert status == 200
    lines = (line.rsplit(" ", 1) for line in text.splitlines() if not line.startswith("#"))
    return sum(float(value) for series, value in lines if series.split("{")[0] == name)


def total(cluster, name):
    return sum(figure(node, name) for node in cluster.living())


def submit(cluster, count, first=0, **more):
    """Tasks that all nodes take, each the same number."""
    tasks, each = {}, count // len(cluster.living())
    for place, node in enumerate(cluster.living()):
        numbers = range(first + place * each, first + (place + 1) * each)
        for start in range(0, each, 500):
            part = numbers[start : start + 500]
            specs = [{"type": "errand", "payload": number, **more} for number in part]
            ids = node.call("task.submit_batch", tasks=specs)["ids"]
            tasks.update(zip(ids, part))
    return tasks


def all_done(cluster, tasks, attempts=None):
    """Every task has its own result, for a node that keeps few of them."""
    client = cluster.living()[-1].client()
    deadline = time.monotonic() + SETTLED_S
    tried = []
    for task, number in tasks.items():
        view = client.call("task.result", id=task, wait_ms=20000)
        while view["status"] in ("queued", "delayed", "running"):
            assert time.monotonic() < deadline, (task, view)
            view = client.call("task.result", id=task, wait_ms=1000)
        assert (view["status"], view.get("result")) == ("done", 2 * number), (task, view)
        tried.append(view["attempts"])
    if attempts is not None:
        assert set(tried) == {attempts}, (min(tried), max(tried))
    return tried


def until_leaders_stay(cluster):
    """Each partition has a node that it prefers; an attempt ends with the reign in which it began."""
    def stay():
        turn = [cluster.nodes[number % len(cluster.nodes)] for number in range(PARTITIONS)]
        return cluster.leaders() == turn
    until(stay, "every node leads its partitions", SETTLED_S)


def one_worker_serves_all_nodes(cluster):
    worker = Worker(cluster.nodes[1])
    begun = time.monotonic()
    tasks = submit(cluster, TASKS)
    all_done(cluster, tasks, attempts=1)
    took = time.monotonic() - begun
    lent = total(cluster, "coreflow_tasks_lent_total")
    back = total(cluster, "coreflow_tasks_lent_back_total")
    assert figure(cluster.nodes[1], "coreflow_tasks_lent_total") == 0, "it has a worker itself"
    assert sorted(worker.ended) == sorted(tasks), "each task ended at the one worker, once"
    assert {attempt for _, attempt in worker.got} == {1}
    assert lent - back >= TASKS * 0.5, (lent, back)
    assert total(cluster, "coreflow_tasks_lent_lost_total") == 0
    done = total(cluster, "coreflow_tasks_done_total")
    assert done == TASKS, f"{done} of {TASKS}: a lent task counts where it is kept"
    print(f"one worker of three nodes: {TASKS / took:.0f} tasks a second, {lent:.0f} lent, "
          f"{back:.0f} of them came back")
    return worker


def one_at_a_time(cluster):
    """What the way to another node adds."""
    times = []
    for node in cluster.nodes:
        client, took = node.client(), []
        for number in range(100):
            begun = time.monotonic()
            task = client.call("task.submit", type="errand", payload=number)["id"]
            view = client.call("task.result", id=task, wait_ms=20000)
            assert view["result"] == 2 * number, view
            took.append(time.monotonic() - begun)
        times.append(1000 * statistics.median(took))
    print(f"submitted, run and answered: {times[1]:.2f} ms at the worker's node, "
          f"{times[0]:.2f} and {times[2]:.2f} ms at the others (medians)")


def a_worker_extends_and_fails_what_is_lent(cluster):
    client = cluster.nodes[1].client()
    client.call("worker.register", types=["parcel"], capacity=10)
    keeper = cluster.nodes[0].client()

    def lent():
        """A task that is surely kept by another node than the worker's."""
        leaders = cluster.leaders()
        task = keeper.call("task.submit", type="parcel", payload=7, timeout_ms=2000)["id"]
        leased = until(lambda: client.call("worker.fetch", max=1, wait_ms=1000)["tasks"], "a task")
        assert leaders[int(task[1 : task.index("-")])] is cluster.nodes[0]
        assert (leased[0]["id"], leased[0]["attempt"]) == (task, 1), (task, leased)
        return task, leased[0]["lease"]

    task, lease = lent()
    client.call("worker.extend", id=task, lease=lease, ms=20000)
    # Longer than the attempt and the way may take without that.
    time.sleep(4.5)
    view = keeper.call("task.status", id=task)
    assert (view["status"], view["attempts"]) == ("running", 1), view
    client.call("worker.complete", id=task, lease=lease, result="late")
    view = keeper.call("task.result", id=task, wait_ms=20000)
    assert (view["status"], view["result"], view["attempts"]) == ("done", "late", 1), view
    error, _ = client.answer(client.ask("worker.complete", id=task, lease=lease, result=1))
    assert error["code"] == "stale_lease", error

    task, lease = lent()
    client.call("worker.fail", id=task, lease=lease, error="broken", retry=False)
    view = keeper.call("task.result", id=task, wait_ms=20000)
    assert (view["status"], view["error"], view["attempts"]) == ("dead", "broken", 1), view

    task, lease = lent()
    client.call("worker.fail", id=task, lease=lease, error="try again")
    leased = until(lambda: client.call("worker.fetch", max=1, wait_ms=1000)["tasks"], "another one")
    assert (leased[0]["id"], leased[0]["attempt"]) == (task, 2), leased
    assert leased[0]["lease"] != lease
    # One that is cancelled where it is kept is over here, too.
    assert keeper.call("task.cancel", id=task) == {"cancelled": True}

    def is_stale():
        error, _ = client.answer(client.ask("worker.extend", id=task, lease=leased[0]["lease"], ms=1000))
        assert error is None or error["code"] == "stale_lease", error
        return error
    until(is_stale, "the worker's node hears of it", SETTLED_S)
    error, _ = client.answer(client.ask("worker.complete", id=task, lease=leased[0]["lease"], result=1))
    assert error["code"] == "stale_lease", error
    assert keeper.call("task.status", id=task)["status"] == "cancelled"
    client.connection.close()


def a_worker_of_its_own_comes_first(cluster, far):
    """While a node has a worker itself it lends nothing, and what waited goes to that worker."""
    before = figure(cluster.nodes[0], "coreflow_tasks_lent_total")
    near = Worker(cluster.nodes[0])
    tasks = submit(cluster, 600, first=10000)
    all_done(cluster, tasks, attempts=1)
    assert figure(cluster.nodes[0], "coreflow_tasks_lent_total") == before
    # Its node keeps a third of them; of the others it may be lent some.
    theirs = [task for task in tasks if task in set(near.ended)]
    assert len(theirs) >= 200, len(theirs)
    assert not set(far.ended) & set(near.ended)
    near.stop()


def the_death_of_a_workers_node_loses_nothing(cluster, first):
    first.stop()
    victim = Worker(cluster.nodes[1], pause_s=0.05)
    tasks = submit(cluster, TASKS, first=20000)
    until(lambda: len(victim.ended) >= 300, "many tasks are done", SETTLED_S)
    second = Worker(cluster.nodes[2], pause_s=0.01)
    until(lambda: len(second.ended) >= 100, "the second worker has its share", SETTLED_S)
    begun = time.monotonic()
    cluster.nodes[1].kill()
    tried = all_done(cluster, tasks)
    took = time.monotonic() - begun
    ended = victim.ended + second.ended
    assert len(set(second.ended)) == len(second.ended)
    again = sum(attempts > 1 for attempts in tried)
    # The victim held no more than its capacity, and its node's queue and ways no more than that.
    assert 0 < again <= 600, again
    assert max(tried) <= 3, max(tried)
    print(f"the node of a worker died among {TASKS} tasks: all are done {took:.1f} s later, {again} took "
          f"another attempt, {len(ended) - len(set(ended))} were answered twice")
    second.stop()
    cluster.nodes[1].start(*cluster.nodes[1].started_as)
    cluster.until_ready()


def a_node_that_stops_gives_back_what_waits(cluster):
    until_leaders_stay(cluster)
    leaver = Worker(cluster.nodes[1], capacity=20, pause_s=0.1)
    tasks = submit(cluster, 600, first=30000)
    until(lambda: len(leaver.ended) >= 40, "some tasks are done", SETTLED_S)
    lost = total(cluster, "coreflow_tasks_lent_lost_total")
    stayer = Worker(cluster.nodes[2])
    cluster.nodes[1].stop()
    tried = all_done(cluster, tasks)
    assert total(cluster, "coreflow_tasks_lent_lost_total") <= lost + 20
    print(f"the node of a worker stopped among 600 tasks: all are done, {sum(tried) - len(tried)} "
          f"attempts were repeated")
    stayer.stop()


def main():
    with cluster_of(3) as cluster:
        until_leaders_stay(cluster)
        worker = one_worker_serves_all_nodes(cluster)
        one_at_a_time(cluster)
        a_worker_extends_and_fails_what_is_lent(cluster)
        a_worker_of_its_own_comes_first(cluster, worker)
        the_death_of_a_workers_node_loses_nothing(cluster, worker)
        a_node_that_stops_gives_back_what_waits(cluster)
    print("ok")


main()
