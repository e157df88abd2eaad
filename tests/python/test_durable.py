"""What a node acknowledged is there after it was killed, and ends."""

import asyncio
import os
import random
import signal
import socket
import subprocess
import tempfile

import aio_msgpack_rpc
from cluster import free_addresses
from server import PROGRAM, ROOT, Server, serving, split

CONFIG = "tests/python/worker.toml"
SEED = int(os.environ.get("COREFLOW_SEED", random.SystemRandom().randrange(1 << 32)))
KILLS = 8


async def connect(server, patience_s=30):
    reader, writer = await asyncio.open_connection(*server.rpc)
    return aio_msgpack_rpc.Client(reader, writer, response_timeout=patience_s), writer


def kill(server):
    server.signal(signal.SIGKILL)
    server.wait()


async def every_acknowledged_task_ends_through_kills(folder):
    dice = random.Random(SEED)
    acknowledged, ended, submitted = {}, set(), 0

    async def submit(client, number):
        task = dict(type="errand", payload=number, key=f"order-{number}")
        acknowledged[number] = (await client.call("task.submit", task))["id"]

    async def work(server):
        # The client goes on waiting for a server that was killed.
        client, _ = await connect(server, patience_s=2)
        await client.call("worker.register", {"types": ["errand"], "capacity": 100})
        while True:
            for task in (await client.call("worker.fetch", {"max": 50, "wait_ms": 1000}))["tasks"]:
                end = {"id": task["id"], "lease": task["lease"], "result": task["payload"]}
                await client.call("worker.complete", end)
                ended.add(task["id"])

    async def load(server):
        nonlocal submitted
        client, _ = await connect(server, patience_s=2)
        # What got no answer before is submitted again under its key.
        open_numbers = [number for number in range(submitted) if number not in acknowledged]
        await asyncio.gather(*(submit(client, number) for number in open_numbers))
        while True:
            numbers = range(submitted, submitted + 100)
            submitted += 100
            await asyncio.gather(*(submit(client, number) for number in numbers))

    for number in range(KILLS):
        server = Server(config=CONFIG, folder=folder)
        jobs = [asyncio.ensure_future(job(server)) for job in (load, work)]
        await asyncio.sleep(dice.uniform(0.05, 0.4))
        kill(server)
        for job in jobs:
            job.cancel()
        await asyncio.gather(*jobs, return_exceptions=True)
        print(f"   kill {number}: {len(acknowledged)} of {submitted} acknowledged, {len(ended)} ended", flush=True)
    assert acknowledged and ended, "the kills came too early to show anything"

    with serving(config=CONFIG, folder=folder) as server:
        client, _ = await connect(server)
        job = asyncio.ensure_future(work(server))
        for number, task in acknowledged.items():
            view = await client.call("task.result", {"id": task, "wait_ms": 20000})
            assert view["status"] == "done" and view["result"] == number, view
        job.cancel()
        for number, task in list(acknowledged.items())[:200]:
            again = dict(type="errand", payload=number, key=f"order-{number}")
            assert (await client.call("task.submit", again))["id"] == task, "its key is remembered"
    print(f"   {len(acknowledged)} acknowledged, {len(ended)} ended before the last kill")


async def leases_and_dead_letters_survive(folder):
    server = Server(config=CONFIG, folder=folder)
    client, _ = await connect(server)
    await client.call("worker.register", {"types": ["parcel"], "capacity": 10})
    ids = []
    for payload in ("dies", "runs", "waits"):
        more = {"delay_ms": 3600000} if payload == "waits" else {}
        answer = await client.call("task.submit", dict(type="parcel", payload=payload, **more))
        ids.append(answer["id"])
    held = {}
    while len(held) < 2:
        tasks = (await client.call("worker.fetch", {"max": 10, "wait_ms": 5000}))["tasks"]
        held.update({task["payload"]: task for task in tasks})
    dies = held["dies"]
    end = {"id": dies["id"], "lease": dies["lease"], "error": "for good", "retry": False}
    await client.call("worker.fail", end)
    kill(server)

    with serving(config=CONFIG, folder=folder) as server:
        client, _ = await connect(server)
        (letter,) = (await client.call("dead.list", {}))["tasks"]
        assert (letter["id"], letter["error"]) == (ids[0], "for good"), letter
        assert (await client.call("task.status", {"id": ids[2]}))["status"] == "delayed"
        await client.call("worker.register", {"types": ["parcel"], "capacity": 10})
        (task,) = (await client.call("worker.fetch", {"max": 10, "wait_ms": 5000}))["tasks"]
        assert task["id"] == ids[1], "what was leased runs again"
        assert task["lease"] != held["runs"]["lease"], "a lease of the life before is not given again"
        stale = {"id": ids[1], "lease": held["runs"]["lease"], "result": "from before"}
        try:
            await client.call("worker.complete", stale)
            raise AssertionError("a lease of the life before ended the task")
        except Exception as error:
            assert "stale_lease" in str(error), error
        await client.call("dead.requeue", {"id": ids[0]})
    with serving(config=CONFIG, folder=folder) as server:
        client, _ = await connect(server)
        assert (await client.call("task.status", {"id": ids[0]}))["status"] == "queued"


async def each_type_has_keys_of_its_own(folder):
    def order(agent_type, number, payload="an order"):
        return dict(type=agent_type, payload=payload, key=f"order-{number}")

    first, batch = {}, [order(kind, 2) for kind in ("errand", "parcel")]
    for _ in range(2):
        with serving(config=CONFIG, folder=folder) as server:
            client, _ = await connect(server)
            for kind in ("errand", "parcel"):
                submitted = (await client.call("task.submit", order(kind, 1)))["id"]
                assert first.setdefault(kind, submitted) == submitted
            in_batch = (await client.call("task.submit_batch", {"tasks": batch}))["ids"]
            assert first.setdefault("batch", in_batch) == in_batch
            assert len({first["errand"], first["parcel"], *in_batch}) == 4, (first, in_batch)
            for task in (order("errand", 1, "another"), order("parcel", 2, "another")):
                for method, asked in (("submit", task), ("submit_batch", {"tasks": [task]})):
                    try:
                        await client.call(f"task.{method}", asked)
                        raise AssertionError("a key of one type stands for one task")
                    except Exception as error:
                        assert "conflict" in str(error), error
            kill(server)


async def tasks_of_an_unconfigured_type_are_told_of_while_they_wait(folder):
    async def warnings(ids):
        """What a start without the type says; then those tasks are cancelled."""
        with tempfile.TemporaryFile("w+") as said:
            with serving(config="examples/exec.toml", folder=folder, stderr=said) as server:
                client, _ = await connect(server)
                for task in ids:
                    assert (await client.call("task.cancel", {"id": task}))["cancelled"]
            said.seek(0)
            return [line for line in said if "not configured" in line]

    with serving(config=CONFIG, folder=folder) as server:
        client, _ = await connect(server)
        ids = []
        for delay_ms in (0, 0, 3600000):
            task = dict(type="errand", payload=1, delay_ms=delay_ms)
            ids.append((await client.call("task.submit", task))["id"])
        gone = await client.call("task.submit", dict(type="parcel", payload=1))
        await client.call("task.cancel", gone)
    (warning,) = await warnings(ids)
    assert "errand" in warning and "waiting=3" in warning.replace("\x1b[3m", ""), warning
    assert await warnings([]) == [], "all of them have ended"


async def until_totals(client, **expected):
    """Waits until the node's figures say so: they are some milliseconds old."""
    for _ in range(2000):
        totals = (await client.call("node.stats", {}))["totals"]
        found = {name: totals[name] for name in expected}
        if found == expected:
            return totals
        await asyncio.sleep(0.01)
    raise AssertionError(f"expected {expected}, found {found}")


async def the_figures_tell_what_is_kept(folder):
    settings = ("tasks.dead_max=1", "tasks.queue_bytes=65536")
    with serving(*settings, config=CONFIG, folder=folder) as server:
        client, _ = await connect(server)
        for number in range(3):
            task = dict(type="parcel", payload=number, delay_ms=3600000, key=f"later-{number}")
            first, again = [await client.call("task.submit", task) for _ in range(2)]
            assert first == again
        await until_totals(client, tasks_delayed=3, tasks_repeated=3, keys=3)
        await client.call("worker.register", {"types": ["errand"], "capacity": 100})
        for number in range(4):
            await client.call("task.submit", dict(type="errand", payload=number, max_attempts=1))
        failed = 0
        while failed < 4:
            for task in (await client.call("worker.fetch", {"max": 4, "wait_ms": 5000}))["tasks"]:
                end = {"id": task["id"], "lease": task["lease"], "retry": False}
                await client.call("worker.fail", end)
                failed += 1
        totals = await until_totals(client, tasks_dead=4)
        # One is kept on each shard that has any.
        letters, purged = totals["dead_letters"], totals["dead_letters_purged"]
        assert 1 <= letters <= 2 and letters + purged == 4, totals
        (letter, *_) = (await client.call("dead.list", {}))["tasks"]
        await client.call("dead.requeue", {"id": letter["id"]})
        await until_totals(client, dead_letters_requeued=1, dead_letters=letters - 1)
        payload = "x" * 1000
        many = [dict(type="parcel", payload=payload) for _ in range(500)]
        await client.call("task.submit_batch", {"tasks": many})
        totals = await until_totals(client, tasks_queued=501, tasks_recovered=0)
        assert 200 < totals["tasks_cold"] < 501, totals
        kill(server)
    with serving(*settings, config=CONFIG, folder=folder) as server:
        client, _ = await connect(server)
        totals = await until_totals(client, tasks_recovered=504, tasks_delayed=3, keys=3)
        assert totals["dead_letters"] == letters - 1 and totals["tasks_cold"] > 200, totals


async def refusals_for_want_of_room_in_the_log_are_counted(folder):
    small = ("log.block_kib=4", "log.segment_mib=8", "log.keep_mib=32")
    with serving(*small, "tasks.queue_primary=100000", config=CONFIG, folder=folder) as server:
        client, _ = await connect(server)
        task = dict(type="parcel", payload="x" * 3000)
        refused = 0
        while not refused:
            burst = [client.call("task.submit", task) for _ in range(500)]
            for answer in await asyncio.gather(*burst, return_exceptions=True):
                if isinstance(answer, Exception):
                    assert "'retry_after_ms': 20" in str(answer), answer
                    refused += 1
        print(f"   {refused} refused")
        await until_totals(client, tasks_refused=refused)


def run_to_its_end(command, folder, *settings):
    """A command with the tests' configuration; what it said, and its exit code."""
    words = [PROGRAM, *command, "--config", CONFIG]
    for setting in (f"log.folder={folder}", *settings):
        words += ["--set", setting]
    return subprocess.run(words, cwd=ROOT, capture_output=True, text=True, timeout=30)


async def a_second_node_is_refused(folder):
    with serving(config=CONFIG, folder=folder) as server:
        anywhere = ("server.rpc_address=127.0.0.1:0", "server.http_address=127.0.0.1:0")
        second = run_to_its_end(["serve"], folder, *anywhere)
        assert second.returncode == 1, second
        assert str(server.process.pid) in second.stderr, second.stderr


async def a_node_serves_on_the_ports_of_one_that_was_killed(folder):
    rpc, http = free_addresses(2)
    addresses = (f"server.rpc_address={rpc}", f"server.http_address={http}")
    for _ in range(2):
        with serving(*addresses, config=CONFIG, folder=folder) as server:
            clients = [socket.create_connection(address) for address in (server.rpc, server.http)]
            client, _ = await connect(server)
            await client.call("node.health", {})
            # The node closes its ends first, which the kernel remembers for a minute.
            kill(server)
        for client in clients:
            client.settimeout(30)
            try:
                assert client.recv(1) == b""
            except ConnectionResetError:
                pass
            client.close()
    with serving(*addresses, config=CONFIG, folder=folder) as server:
        assert (server.rpc, server.http) == (split(rpc), split(http))
        client, writer = await connect(server)
        assert (await client.call("node.health", {}))["ready"]
        writer.close()
        with tempfile.TemporaryDirectory(prefix="coreflow-") as other_folder:
            second = run_to_its_end(["serve"], other_folder, *addresses)
        assert second.returncode == 1 and "rpc_address" in second.stderr, second


async def a_start_that_fails_for_its_port_leaves_the_log_alone(folder):
    def opened():
        said = run_to_its_end(["doctor", "--log"], folder)
        assert said.returncode == 0, said
        return said.stdout.splitlines()[-1]

    with serving(config=CONFIG, folder=folder):
        pass
    before = opened()
    assert "opened 1 times" in before, before
    for key, other in (("rpc_address", "http_address"), ("http_address", "rpc_address")):
        with socket.create_server(("127.0.0.1", 0)) as taken:
            address = f"server.{key}=127.0.0.1:{taken.getsockname()[1]}"
            (free,) = free_addresses(1)
            refused = run_to_its_end(["serve"], folder, address, f"server.{other}={free}")
        assert refused.returncode == 1 and key in refused.stderr, refused
    assert opened() == before, "nobody opened it"


async def main():
    print(f"seed {SEED}: COREFLOW_SEED={SEED} repeats the times of the kills")
    for test in (
        every_acknowledged_task_ends_through_kills,
        leases_and_dead_letters_survive,
        each_type_has_keys_of_its_own,
        tasks_of_an_unconfigured_type_are_told_of_while_they_wait,
        the_figures_tell_what_is_kept,
        refusals_for_want_of_room_in_the_log_are_counted,
        a_second_node_is_refused,
        a_node_serves_on_the_ports_of_one_that_was_killed,
        a_start_that_fails_for_its_port_leaves_the_log_alone,
    ):
        with tempfile.TemporaryDirectory(prefix="coreflow-") as folder:
            await asyncio.wait_for(test(folder), 120)
            print("ok", test.__name__)


asyncio.run(main())
