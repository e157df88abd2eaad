"""The life of a task as submitters and workers see it, over MessagePack-RPC."""

import asyncio
import time

import aio_msgpack_rpc
from server import serving

CONFIG = "tests/python/worker.toml"


class Connection:
    """A client that can hang up."""

    @classmethod
    async def open(cls, server):
        self = cls()
        self.reader, self.writer = await asyncio.open_connection(*server.rpc)
        self.client = aio_msgpack_rpc.Client(self.reader, self.writer, response_timeout=30)
        return self

    async def call(self, method, **params):
        return await self.client.call(method, params)

    async def submit(self, payload, agent_type="errand", **more):
        return (await self.call("task.submit", type=agent_type, payload=payload, **more))["id"]

    async def status(self, task):
        return await self.call("task.status", id=task)

    async def result(self, task):
        return await self.call("task.result", id=task, wait_ms=20000)

    async def fetch(self, maximum=10, wait_ms=20000):
        return (await self.call("worker.fetch", max=maximum, wait_ms=wait_ms))["tasks"]

    def hang_up(self):
        self.writer.transport.abort()


async def worker(server, types=("errand",), capacity=100):
    connection = await Connection.open(server)
    await connection.call("worker.register", types=list(types), capacity=capacity)
    return connection


async def refused(code, call):
    try:
        await call
    except Exception as error:  # the client's own class wraps what the server said
        assert code in str(error), f"expected {code}, got {error}"
        return str(error)
    raise AssertionError(f"expected the error {code}")


async def until(condition, what, limit_s=20):
    deadline = time.monotonic() + limit_s
    while True:
        value = await condition()
        if value:
            return value
        assert time.monotonic() < deadline, f"waited in vain: {what}"
        await asyncio.sleep(0.01)


async def a_worker_fetches_and_completes(server):
    client, hand = await Connection.open(server), await worker(server)
    tasks = [await client.submit({"n": n}) for n in range(5)]
    seen = {}
    while len(seen) < 5:
        for task in await hand.fetch():
            assert task["attempt"] == 1 and task["type"] == "errand", task
            assert 0 < task["deadline_ms"] <= 60000, task
            seen[task["id"]] = task["payload"]["n"]
            await hand.call(
                "worker.complete", id=task["id"], lease=task["lease"], result=task["payload"]["n"] * 2
            )
    assert [seen[task] for task in tasks] == list(range(5))
    for n, task in enumerate(tasks):
        ended = await client.result(task)
        assert (ended["status"], ended["result"]) == ("done", n * 2), ended
    hand.hang_up()


async def a_waiting_fetch_is_answered_by_the_next_task(server):
    client, hand = await Connection.open(server), await worker(server, ("errand", "parcel"))
    waiting = asyncio.ensure_future(hand.fetch())
    task = await client.submit("late", agent_type="parcel")
    (leased,) = await waiting
    assert (leased["id"], leased["type"]) == (task, "parcel")
    await hand.call("worker.complete", id=task, lease=leased["lease"])
    assert (await client.result(task))["result"] is None
    assert await hand.fetch(wait_ms=50) == [], "a wait without tasks ends empty"
    hand.hang_up()


async def failures_are_repeated_then_dead_then_requeued(server):
    client, hand = await Connection.open(server), await worker(server)
    task = await client.submit("hopeless", max_attempts=3)
    for attempt in (1, 2, 3):
        (leased,) = await hand.fetch()
        assert (leased["id"], leased["attempt"]) == (task, attempt), leased
        await hand.call("worker.fail", id=task, lease=leased["lease"], error=f"no {attempt}")
    dead = await client.result(task)
    assert (dead["status"], dead["attempts"], dead["error"]) == ("dead", 3, "no 3"), dead
    listed = (await client.call("dead.list"))["tasks"]
    assert task in {entry["id"] for entry in listed}, listed

    await client.call("dead.requeue", id=task)
    (leased,) = await hand.fetch()
    assert (leased["id"], leased["payload"], leased["attempt"]) == (task, "hopeless", 1), leased
    await hand.call("worker.complete", id=task, lease=leased["lease"], result="after all")
    assert (await client.result(task))["result"] == "after all"
    assert task not in {entry["id"] for entry in (await client.call("dead.list"))["tasks"]}
    await refused("conflict", client.call("dead.requeue", id=task))

    final = await client.submit("no second try")
    (leased,) = await hand.fetch()
    await hand.call(
        "worker.fail", id=final, lease=leased["lease"], error="broken for good", retry=False
    )
    assert (await client.result(final))["attempts"] == 1
    hand.hang_up()


async def a_late_completion_is_stale(server):
    client, hand = await Connection.open(server), await worker(server)
    task = await client.submit("slow", timeout_ms=100, max_attempts=5)
    (first,) = await hand.fetch()
    (second,) = await hand.fetch()
    assert second["id"] == task and second["attempt"] == 2, second
    assert second["lease"] != first["lease"]
    late = hand.call("worker.complete", id=task, lease=first["lease"], result="late")
    await refused("stale_lease", late)
    await hand.call("worker.extend", id=task, lease=second["lease"], ms=60000)
    await refused("stale_lease", hand.call("worker.extend", id=task, lease=first["lease"], ms=9))
    await hand.call("worker.complete", id=task, lease=second["lease"], result="in time")
    again = hand.call("worker.complete", id=task, lease=second["lease"], result="twice")
    await refused("stale_lease", again)
    ended = await client.result(task)
    assert (ended["result"], ended["attempts"]) == ("in time", 2), ended
    await refused("stale_lease", hand.call("worker.fail", id=task, lease=1, error="x"))
    hand.hang_up()


async def an_extended_lease_outlives_its_timeout(server):
    client, hand = await Connection.open(server), await worker(server)
    task = await client.submit("slow", timeout_ms=200)
    (leased,) = await hand.fetch()
    await hand.call("worker.extend", id=task, lease=leased["lease"], ms=60000)
    assert await hand.fetch(wait_ms=600) == [], "nobody else got it after its timeout"
    await hand.call("worker.complete", id=task, lease=leased["lease"], result=1)
    assert (await client.result(task))["attempts"] == 1
    hand.hang_up()


async def what_a_vanished_worker_holds_goes_to_others(server):
    client, lost = await Connection.open(server), await worker(server)
    tasks = {await client.submit(n) for n in range(20)}
    held = set()
    while len(held) < 20:
        held |= {task["id"] for task in await lost.fetch(20)}
    lost.hang_up()
    hand, done = await worker(server), set()
    while len(done) < 20:
        for task in await hand.fetch(20):
            assert task["attempt"] == 2, task
            await hand.call("worker.complete", id=task["id"], lease=task["lease"])
            done.add(task["id"])
    assert done == tasks
    for task in tasks:
        assert (await client.result(task))["status"] == "done"
    hand.hang_up()


async def a_worker_holds_no_more_than_its_capacity(server):
    client, hand = await Connection.open(server), await worker(server, capacity=3)
    for n in range(10):
        await client.submit(n)

    async def taken():
        held.extend(await hand.fetch(wait_ms=0))
        return len(held) >= 3

    held = []
    await until(taken, "three tasks")
    assert len(held) <= 3 * 2, "at most its capacity of each of two shards"
    rest = 10
    while rest:
        for task in held:
            await hand.call("worker.complete", id=task["id"], lease=task["lease"])
            rest -= 1
        held = await hand.fetch() if rest else []
    hand.hang_up()


async def a_key_is_one_task(server):
    client, hand = await Connection.open(server), await worker(server)
    order = dict(type="parcel", payload=[1, 2], key="order-7")
    first = await asyncio.gather(*(client.call("task.submit", **order) for _ in range(50)))
    assert len({answer["id"] for answer in first}) == 1, "fifty at once are one"
    other = {**order, "payload": [1, 3]}
    await refused("conflict", client.call("task.submit", **other))
    batch = client.call("task.submit_batch", tasks=[dict(type="parcel", payload=0), other])
    await refused("conflict", batch)
    hand.hang_up()
    hand = await worker(server, ("parcel",))
    (leased,) = await hand.fetch()
    await hand.call("worker.complete", id=leased["id"], lease=leased["lease"], result="sent")
    again = await client.call("task.submit", **order)
    assert again == first[0], "after its end as well"
    assert await hand.fetch(wait_ms=100) == []
    hand.hang_up()


async def a_delayed_task_waits(server):
    client, hand = await Connection.open(server), await worker(server)
    begun = time.monotonic()
    task = await client.submit("later", delay_ms=400)
    assert (await client.status(task))["status"] == "delayed"
    (leased,) = await hand.fetch()
    assert time.monotonic() - begun >= 0.4
    await hand.call("worker.complete", id=task, lease=leased["lease"])
    cancelled = await client.submit("never", delay_ms=60000)
    assert (await client.call("task.cancel", id=cancelled))["cancelled"]
    assert (await client.result(cancelled))["status"] == "cancelled"
    hand.hang_up()


async def urgent_tasks_come_first(server):
    client = await Connection.open(server)
    for priority in ("low", "normal", "high", "critical"):
        await client.submit(priority, agent_type="parcel", priority=priority)
    ranks = ["critical", "high", "normal", "low"]
    hand, order = await worker(server, ("parcel",), 1), []
    while len(order) < 4:
        for task in await hand.fetch(1):
            order.append((task["id"].split("-")[0], ranks.index(task["payload"])))
            await hand.call("worker.complete", id=task["id"], lease=task["lease"])
    # Tasks are spread over shards; within each the order holds.
    for shard in {shard for shard, _ in order}:
        within = [rank for of, rank in order if of == shard]
        assert within == sorted(within), order
    hand.hang_up()


async def lists_come_in_parts(server):
    client = await Connection.open(server)
    tasks = {await client.submit(n, agent_type="parcel") for n in range(250)}
    found, cursor = set(), None
    while True:
        more = {"cursor": cursor} if cursor else {}
        part = await client.call("task.list", status="queued", type="parcel", **more)
        assert len(part["tasks"]) <= 100
        found |= {entry["id"] for entry in part["tasks"]}
        cursor = part.get("cursor")
        if not cursor:
            break
    assert tasks <= found
    await refused("invalid", client.call("task.list", cursor="nonsense"))
    for task in tasks:
        await client.call("task.cancel", id=task)


async def bad_requests_are_explained(server):
    client = await Connection.open(server)
    await refused("register", client.call("worker.fetch", max=1))
    await refused("not_found", client.call("worker.register", types=["nobody"], capacity=1))
    said = await refused("invalid", client.call("worker.register", types=["echo"], capacity=1))
    assert "remote" in said, said
    await refused("invalid", client.call("worker.register", types=[], capacity=1))
    await refused("invalid", client.call("worker.register", types=["errand"], capacity=0))
    missing = "t0-" + "0" * 32
    await refused("stale_lease", client.call("worker.complete", id=missing, lease=1))
    await refused("not_found", client.call("dead.requeue", id=missing))
    await refused("invalid", client.call("worker.complete", id="what", lease=1))


async def all_cores_together_have_as_many_workers_as_max_allows(server):
    # One worker may be there, whichever core its connection lives on.
    hands = [await Connection.open(server) for _ in range(4)]

    def register(hand):
        return hand.call("worker.register", types=["errand"], capacity=1)

    async def registers(hand):
        try:
            await register(hand)
            return True
        except Exception as error:
            assert "conflict" in str(error), error
            return False

    while hands:
        hand = hands.pop()
        # The core may not know yet that the one before has gone.
        await until(lambda: registers(hand), "a place for a worker", limit_s=5)
        listed = (await hand.call("agent.list", type="errand"))["agents"]
        assert len(listed) == 1, listed
        for other in hands:
            await refused("conflict", register(other))
        hand.hang_up()


async def a_full_queue_refuses_before_it_accepts(server):
    client = await Connection.open(server)
    ids = []
    while True:
        try:
            ids.append(await client.submit(len(ids), agent_type="parcel"))
        except Exception as error:
            assert "backpressure" in str(error) and "retry_after_ms" in str(error), error
            break
        assert len(ids) <= 40
    for task in ids:
        assert (await client.status(task))["status"] == "queued", "what was accepted stays"
    # A transient task makes no room for another: the policy rejects.
    await refused("backpressure", client.submit(0, agent_type="parcel", durable=False))


async def a_full_queue_evicts_what_is_not_durable(server):
    client = await Connection.open(server)
    durable = [await client.submit(n, agent_type="parcel", priority="low") for n in range(10)]
    transient = [
        await client.submit(n, agent_type="parcel", priority="low", durable=False)
        for n in range(10)
    ]
    # More urgent ones find the queues full, and room where transient tasks are.
    for n in range(10):
        await client.submit(n, agent_type="parcel", priority="high")
    ends = [await client.status(task) for task in transient]
    assert {end["status"] for end in ends} == {"dead"}, ends
    assert all("evicted" in end["error"] for end in ends), "its owner is told why"
    for task in durable:
        assert (await client.status(task))["status"] == "queued", "a durable one never goes"

    async def counted():
        totals = (await client.call("node.stats"))["totals"]
        return (totals["tasks_evicted"], totals["tasks_dead"]) == (10, 10)

    await until(counted, "the figures tell of them")


async def main():
    tests = (
        a_worker_fetches_and_completes,
        a_waiting_fetch_is_answered_by_the_next_task,
        failures_are_repeated_then_dead_then_requeued,
        a_late_completion_is_stale,
        an_extended_lease_outlives_its_timeout,
        what_a_vanished_worker_holds_goes_to_others,
        a_worker_holds_no_more_than_its_capacity,
        a_key_is_one_task,
        a_delayed_task_waits,
        urgent_tasks_come_first,
        lists_come_in_parts,
        bad_requests_are_explained,
    )
    with serving(config=CONFIG) as server:
        for test in tests:
            await asyncio.wait_for(test(server), 60)
            print("ok", test.__name__)
    with serving("agent.errand.max=1", config=CONFIG) as server:
        test = all_cores_together_have_as_many_workers_as_max_allows
        await asyncio.wait_for(test(server), 60)
        print("ok", test.__name__)
    room = ("tasks.queue_primary=10", "tasks.queue_overflow=0")
    for policy, test in (
        ("reject", a_full_queue_refuses_before_it_accepts),
        ("low_priority", a_full_queue_evicts_what_is_not_durable),
    ):
        with serving(*room, f"tasks.drop_policy={policy}", config=CONFIG) as server:
            await asyncio.wait_for(test(server), 60)
            print("ok", test.__name__)


asyncio.run(main())
