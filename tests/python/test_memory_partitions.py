"""A memory of four partitions, as a node with four cores made it, through the doors of one with fewer:
what a search finds is what a comparison with all items finds.

COREFLOW_SEED repeats the vectors."""

import os
import pathlib
import random
import signal
import tempfile
import zlib

from client import Client
from server import serving

CONFIG = "tests/python/worker.toml"
SEED = int(os.environ.get("COREFLOW_SEED", random.SystemRandom().randrange(1 << 32)))
PARTITIONS = 4
DIMENSION = 24
ITEMS = 2000
QUERIES = 60
K = 10
# Searches that weigh 200 candidates of each partition find all but a few of a thousand.
RECALL_LEAST = 0.98


def dot(one, other):
    return sum(a * b for a, b in zip(one, other))


# What is nearer is larger.
NEARNESS = {
    "cosine": lambda one, other: dot(one, other) / (dot(one, one) * dot(other, other)) ** 0.5,
    "euclidean": lambda one, other: -sum((a - b) ** 2 for a, b in zip(one, other)),
    "dot": dot,
}


def vector(dice):
    """Lengths differ, so that the metrics do not agree."""
    length = dice.uniform(0.5, 2)
    return [length * dice.gauss(0, 1) for _ in range(DIMENSION)]


def make_folder(folder, metric):
    """An empty memory of four partitions, in the first format: its head and nothing else."""
    text = (
        f"coreflow pattern memory, format 1\ndimension {DIMENSION}\nmetric {metric}\n"
        f"partitions {PARTITIONS}\nsalt {SEED % 1000}\n"
    )
    memory = pathlib.Path(folder, "memory")
    memory.mkdir()
    (memory / "head").write_text(f"{text}sum {zlib.crc32(text.encode())}\n")


def store(client, vectors):
    """Items are of two namespaces, by their keys."""
    keys = list(vectors)
    for start in range(0, len(keys), 200):
        items = [
            {"key": key, "namespace": space(key), "vector": vectors[key]}
            for key in keys[start : start + 200]
        ]
        results = client.call("memory.put_batch", items=items)["results"]
        assert all("error" not in result for result in results), results


def space(key):
    return "third" if int(key.split("-")[1]) % 3 == 0 else "rest"


def check(client, nearness, vectors, dice):
    """How much searches find of what is truly nearest."""
    found = wanted = 0
    for number in range(QUERIES):
        query = vector(dice)
        inside = {"namespace": "third"} if number % 3 == 0 else {}
        allowed = [key for key in vectors if not inside or space(key) == "third"]
        near = {key: nearness(query, vectors[key]) for key in allowed}
        true = sorted(allowed, key=near.get, reverse=True)[:K]
        hits = [hit["key"] for hit in client.call("memory.search", vector=query, k=K, ef=200, **inside)["hits"]]
        assert len(set(hits)) == K and set(hits) <= set(allowed), (hits, inside)
        order = [near[hit] for hit in hits]
        slack = 1e-4 * max(map(abs, order))
        assert all(a >= b - slack for a, b in zip(order, order[1:])), order
        found += len(set(hits) & set(true))
        wanted += K
    return found / wanted


def four_partitions_find_what_a_comparison_with_all_finds(metric, folder):
    dice, settings = random.Random(SEED), (f"memory.dimension={DIMENSION}", f"memory.metric={metric}")
    make_folder(folder, metric)
    vectors = {f"key-{number}": vector(dice) for number in range(ITEMS)}
    recalls = []
    with serving(*settings, config=CONFIG, folder=folder) as server:
        client = Client(server)
        store(client, vectors)
        stats = client.call("memory.stats")
        counts = [partition["count"] for partition in stats["partitions"]]
        assert len(counts) == PARTITIONS and sum(counts) == ITEMS, stats
        assert min(counts) > ITEMS / PARTITIONS / 2, "each has its part"
        recalls.append(check(client, NEARNESS[metric], vectors, dice))
        # A part is replaced, a part deleted.
        changed = {key: vector(dice) for key in dice.sample(sorted(vectors), ITEMS // 5)}
        store(client, changed)
        vectors.update(changed)
        for key in dice.sample(sorted(vectors), ITEMS // 5):
            assert client.call("memory.delete", key=key, namespace=space(key))["deleted"]
            del vectors[key]
        recalls.append(check(client, NEARNESS[metric], vectors, dice))
        server.signal(signal.SIGKILL)
        server.wait()
    with serving(*settings, config=CONFIG, folder=folder) as server:
        client = Client(server)
        assert client.call("memory.stats")["count"] == len(vectors)
        recalls.append(check(client, NEARNESS[metric], vectors, dice))
    said = ", ".join(f"{recall:.4f}" for recall in recalls)
    print(f"   {metric}: recall {said} (stored; replaced and deleted; after a kill)", flush=True)
    assert min(recalls) >= RECALL_LEAST, recalls


def main():
    print(f"seed {SEED}: COREFLOW_SEED={SEED} repeats the vectors")
    for metric in NEARNESS:
        with tempfile.TemporaryDirectory(prefix="coreflow-") as folder:
            four_partitions_find_what_a_comparison_with_all_finds(metric, folder)
    print("ok", four_partitions_find_what_a_comparison_with_all_finds.__name__)


main()
