"""What pattern memory acknowledged is found after the node was killed; damage is told; messages do
not wait for it.

COREFLOW_SEED repeats the times of the kills; COREFLOW_MEMORY_ITEMS=100000 measures with so many items."""

import array
import os
import pathlib
import random
import signal
import statistics
import subprocess
import tempfile
import threading
import time

from client import Client
from server import PROGRAM, Server, serving

CONFIG = "tests/python/worker.toml"
SEED = int(os.environ.get("COREFLOW_SEED", random.SystemRandom().randrange(1 << 32)))
ITEMS = int(os.environ.get("COREFLOW_MEMORY_ITEMS", 2000))
DIMENSION = 64
SETTINGS = (f"memory.dimension={DIMENSION}",)
KILLS = 6
KEYS = 400


def vector(dice):
    numbers = [dice.gauss(0, 1) for _ in range(DIMENSION)]
    length = sum(number * number for number in numbers) ** 0.5
    return [number / length for number in numbers]


def item(key, version):
    return {
        "key": key,
        "namespace": "kept",
        "vector": vector(random.Random(f"{key} {version}")),
        "metadata": {"version": version},
    }


class Ledger:
    """Of each key the last version that was acknowledged, and those that were sent after it; a version
    below zero is a delete."""

    def __init__(self):
        self.acknowledged, self.sent, self.next = {}, {}, 1

    def check(self, client):
        kept = 0
        for key, sent in self.sent.items():
            error, found = client.answer(client.ask("memory.get", key=key, namespace="kept"))
            allowed = {self.acknowledged.get(key, -1), *sent}
            if error:
                assert error["code"] == "not_found", error
                assert any(version < 0 for version in allowed), f"{key} is lost: {allowed}"
                version = -1
            else:
                version = found["metadata"]["version"]
                assert version in allowed, f"{key} is {version}, not of {allowed}"
                kept += 1
            self.acknowledged[key], self.sent[key] = version, []
        return kept


def every_answer(client, count):
    """The errors of so many answers, in whatever order they come."""
    answers = {}
    while len(answers) < count:
        for _, number, error, _ in client.unpacker:
            answers[number] = error
        if len(answers) < count:
            piece = client.connection.recv(65536)
            assert piece, "the connection ended before the answer"
            client.unpacker.feed(piece)
    return answers


def load(server, ledger, dice):
    """Puts and deletes until the server is gone; each key has one request under way at most."""
    client = Client(server)
    try:
        while True:
            asked = []
            for key in dice.sample(range(KEYS), 40):
                key = f"key-{key}"
                version = ledger.next
                ledger.next += 1
                if dice.random() < 0.2:
                    number = client.ask("memory.delete", key=key, namespace="kept")
                    version = -version
                else:
                    number = client.ask("memory.put", **item(key, version))
                ledger.sent.setdefault(key, []).append(version)
                asked.append((number, key, version))
            answers = every_answer(client, len(asked))
            for number, key, version in asked:
                error = answers[number]
                assert error is None or error["code"] == "backpressure", error
                if error is None:
                    ledger.acknowledged[key] = version
                    ledger.sent[key] = ledger.sent[key][ledger.sent[key].index(version) + 1 :]
    except (OSError, AssertionError) as end:
        if isinstance(end, AssertionError) and "connection ended" not in str(end):
            raise


def acknowledged_items_are_found_through_kills(folder):
    dice, ledger = random.Random(SEED), Ledger()
    for number in range(KILLS):
        server = Server(*SETTINGS, config=CONFIG, folder=folder)
        failed = []

        def run():
            try:
                load(server, ledger, random.Random(dice.random()))
            except BaseException as problem:
                failed.append(problem)

        thread = threading.Thread(target=run)
        thread.start()
        time.sleep(dice.uniform(0.1, 0.8))
        server.signal(signal.SIGKILL)
        server.wait()
        thread.join()
        assert not failed, failed
        with serving(*SETTINGS, config=CONFIG, folder=folder) as server:
            client = Client(server)
            kept = ledger.check(client)
            stats = client.call("memory.stats")
            assert stats["count"] == kept and stats["durable"], stats
            assert stats["damaged_count"] == 0, stats
            for key, version in dice.sample(sorted(ledger.acknowledged.items()), 30):
                wanted = item(key, abs(version))
                hits = client.call("memory.search", vector=wanted["vector"], k=3, namespace="kept")
                best = hits["hits"][0]
                assert (version < 0) == (best["score"] < 0.999), (key, version, best)
                assert version < 0 or best["key"] == key, (key, best)
        print(f"   kill {number}: {ledger.next - 1} changes sent, {kept} items are there", flush=True)
    assert ledger.next > 80 * KILLS, "the kills came too early to show much"


def a_damaged_record_is_told_and_not_answered_with(folder):
    with serving(*SETTINGS, config=CONFIG, folder=folder) as server:
        client = Client(server)
        for number in range(20):
            client.call("memory.put", **item(f"key-{number}", number))
    files = sorted(pathlib.Path(folder, "memory").glob("*.rec"))
    broken = array.array("f", item("key-7", 7)["vector"]).tobytes()
    for file in files:
        content = bytearray(file.read_bytes())
        at = content.find(broken)
        if at >= 0:
            content[at + 5] ^= 8
            file.write_bytes(content)
            break
    else:
        raise AssertionError("the vector lies in no file")
    words = [PROGRAM, "doctor", "--memory", f"{folder}/memory"]
    said = subprocess.run(words, capture_output=True, text=True, timeout=30)
    assert said.returncode == 1 and file.name in said.stdout, said
    assert "kept/key-7" in said.stdout, said
    with serving(*SETTINGS, config=CONFIG, folder=folder) as server:
        client = Client(server)
        error, _ = client.answer(client.ask("memory.get", key="key-7", namespace="kept"))
        assert file.name in error["message"] and "kept/key-7" in error["message"], error
        hits = client.call("memory.search", vector=item("key-7", 7)["vector"], k=20)["hits"]
        assert len(hits) == 19 and all(hit["key"] != "key-7" for hit in hits), hits
        stats = client.call("memory.stats")
        assert stats["damaged_count"] == 1 and file.name in stats["damaged"][0], stats
        assert client.call("memory.put", **item("key-7", 8))["replaced"]
        assert client.call("memory.get", key="key-7", namespace="kept")["metadata"] == {"version": 8}


def a_flipped_bit_in_what_was_stored_last_is_told_after_a_kill(folder):
    names = [f"key-{number}" for number in range(20)]
    with serving(*SETTINGS, config=CONFIG, folder=folder) as server:
        client = Client(server)
        for name in names:
            client.call("memory.put", **item(name, 1))
        server.signal(signal.SIGKILL)
        server.wait()
    # Of each partition the record behind which there is none.
    last = {}
    for file in sorted(pathlib.Path(folder, "memory").glob("*.rec")):
        content = file.read_bytes()
        vectors = {name: array.array("f", item(name, 1)["vector"]).tobytes() for name in names}
        places = {content.find(vectors[name]): name for name in names}
        if max(places) >= 0:
            last[file] = max(places), places[max(places)]
    spoilt = {name for _, name in last.values()}
    for number, (file, (at, _)) in enumerate(last.items()):
        content = bytearray(file.read_bytes())
        # A vector, and a checksum in the head before it.
        content[at + 5 if number % 2 else at - 64] ^= 8
        file.write_bytes(content)
    words = [PROGRAM, "doctor", "--memory", f"{folder}/memory"]
    said = subprocess.run(words, capture_output=True, text=True, timeout=30)
    assert said.returncode == 1 and all(f"kept/{name}" in said.stdout for name in spoilt), said
    for _ in range(2):
        with serving(*SETTINGS, config=CONFIG, folder=folder) as server:
            client = Client(server)
            stats = client.call("memory.stats")
            assert (stats["count"], stats["lost_count"]) == (len(names) - len(spoilt), len(spoilt)), stats
            for name in names:
                error, _ = client.answer(client.ask("memory.get", key=name, namespace="kept"))
                assert (name in spoilt) == (error is not None), (name, error)
                assert error is None or error["code"] == "unavailable", error
            server.signal(signal.SIGKILL)
            server.wait()
    print(f"   the last of {len(last)} partitions: {', '.join(sorted(spoilt))}", flush=True)


def texts_of_one_key_do_not_overtake_each_other(folder):
    dice = random.Random(SEED)
    settings = (f"memory.dimension={DIMENSION}", "memory.embedder=lexical")
    with serving(*settings, config=CONFIG, folder=folder) as server:
        client = Client(server)
        for number in range(40):
            long = " ".join(f"word{dice.randrange(10**6)}" for _ in range(dice.choice([200, 2000, 5000])))
            short = f"the last of {number}"
            puts = [client.ask("memory.put", key=f"key-{number}", text=text) for text in (long, short)]
            gone = client.ask("memory.put", key="gone", text=long), client.ask("memory.delete", key="gone")
            for asked in (*puts, *gone):
                error, _ = client.answer(asked)
                assert error is None, error
            assert client.call("memory.get", key=f"key-{number}")["text"] == short
            error, _ = client.answer(client.ask("memory.get", key="gone"))
            assert error and error["code"] == "not_found", error


def memory_that_nobody_uses_takes_no_room(folder):
    with serving(*SETTINGS, config=CONFIG, folder=folder) as server:
        assert Client(server).call("memory.stats")["count"] == 0
    assert not list(pathlib.Path(folder, "memory").glob("*.rec"))


def another_dimension_is_refused(folder):
    with serving(*SETTINGS, config=CONFIG, folder=folder):
        pass
    words = [PROGRAM, "serve", "--config", CONFIG]
    for setting in (f"log.folder={folder}", "memory.dimension=32"):
        words += ["--set", setting]
    ended = subprocess.run(words, capture_output=True, text=True, timeout=30)
    assert ended.returncode != 0 and "memory.folder" in ended.stderr, ended


def calls(server, seconds):
    """Milliseconds that calls of an agent take, one after the other."""
    client, times = Client(server), []
    agent = client.call("agent.list", type="echo")["agents"][0]["id"]
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        begun = time.perf_counter()
        client.call("agent.call", id=agent, payload=1, timeout_ms=5000)
        times.append((time.perf_counter() - begun) * 1000)
    return sorted(times)


def say(name, times):
    p50, p99 = statistics.median(times), times[int(len(times) * 0.99)]
    print(f"   {name}: p50 {p50:.2f} ms, p99 {p99:.2f} ms, {len(times)} of them", flush=True)


def messages_do_not_wait_for_memory(folder):
    dice = random.Random(SEED)
    with serving(*SETTINGS, config=CONFIG, folder=folder) as server:
        client = Client(server)
        say("calls of an agent, alone", calls(server, 2))
        begun = time.monotonic()
        for start in range(0, ITEMS, 200):
            items = [item(f"key-{number}", 1) for number in range(start, min(start + 200, ITEMS))]
            results = client.call("memory.put_batch", items=items)["results"]
            assert all("error" not in result for result in results), results[0]
        took = time.monotonic() - begun
        print(f"   {ITEMS} items of {DIMENSION} numbers stored in {took:.1f} s, {ITEMS / took:.0f} a second")
        stop = threading.Event()

        def work(what):
            client, number = Client(server), 0
            while not stop.is_set():
                number += 1
                if what == "search":
                    client.call("memory.search", vector=vector(dice), k=100, ef=1000)
                else:
                    items = [item(f"{what}-{number}-{place}", 1) for place in range(50)]
                    client.call("memory.put_batch", items=items)

        threads = [threading.Thread(target=work, args=(what,)) for what in ("search", "put")]
        [thread.start() for thread in threads]
        say("the same under wide searches and puts", calls(server, 4))
        stop.set()
        [thread.join() for thread in threads]
        times = []
        for _ in range(300):
            asked = vector(dice)
            begun = time.perf_counter()
            client.call("memory.search", vector=asked, k=10)
            times.append((time.perf_counter() - begun) * 1000)
        say("searches through the door, k = 10", sorted(times))
        stats = client.call("memory.stats", sample=20)
        print(f"   recall of a sample {stats['recall']}, {stats['bytes_per_vector']:.0f} bytes a vector")
    begun = time.monotonic()
    with serving(*SETTINGS, config=CONFIG, folder=folder) as server:
        count = Client(server).call("memory.stats")["count"]
        print(f"   a start with {count} items took {time.monotonic() - begun:.1f} s")


def main():
    print(f"seed {SEED}: COREFLOW_SEED={SEED} repeats the times of the kills")
    for test in (
        acknowledged_items_are_found_through_kills,
        a_damaged_record_is_told_and_not_answered_with,
        a_flipped_bit_in_what_was_stored_last_is_told_after_a_kill,
        texts_of_one_key_do_not_overtake_each_other,
        memory_that_nobody_uses_takes_no_room,
        another_dimension_is_refused,
        messages_do_not_wait_for_memory,
    ):
        with tempfile.TemporaryDirectory(prefix="coreflow-") as folder:
            test(folder)
            print("ok", test.__name__)


main()
