#!/usr/bin/env python3
"""Makes a large set of vectors from a smaller one, with queries and their true neighbours.

Rows of the base are taken in turns, made one long, and given noise of their own, so that a million
of a hundred thousand lie as densely as real ones: 0.03 a number is a length of 0.6 where there are
384. Without a base its rows are made around 500 centres, as `coreflow bench` makes them. Written
are vectors.npy, queries.npy and truth.npy: for each query the rows of its nearest neighbours by
cosine, the nearest first, found by comparing it with all vectors as they are in the file.

The same options make the same files. To measure a million of them (about 1 GB of files, 3 GB of memory):

  scripts/vector_set.py --base F.npy --queries Q.npy --out target/million
  coreflow bench memory --only hnsw_index --vectors target/million/vectors.npy
  coreflow bench latency --only search_latency --vectors target/million/vectors.npy \\
    --queries target/million/queries.npy --truth target/million/truth.npy
"""

import argparse
from pathlib import Path

from vector_peers import ROOT, enter_environment

# Rows that are in memory at a time.
BLOCK = 20_000
# Without a base.
MADE, DIMENSIONS, CENTRES = 100_000, 384, 500
NEIGHBOURS = 100


def arguments():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--base", type=Path, help=".npy of float16 or float32 [default: made ones]")
    parser.add_argument("--queries", type=Path, help=".npy of the same kind [default: rows of the base with noise]")
    parser.add_argument("--rows", type=int, default=1_000_000, help="how many vectors [default: 1000000]")
    parser.add_argument("--count", type=int, default=100, help="how many queries, the first of --queries [default: 100]")
    parser.add_argument("--noise", type=float, default=0.03, help="deviation of each number [default: 0.03]")
    parser.add_argument("--seed", type=int, default=7, help="of the noise [default: 7]")
    parser.add_argument("--float32", action="store_true", help="write float32, not float16")
    parser.add_argument("--no-install", action="store_true", help="numpy is there already")
    parser.add_argument("--out", type=Path, default=ROOT / "target" / "vector-set", help="folder of the files")
    options = parser.parse_args()
    if options.rows < NEIGHBOURS or options.count < 1 or options.noise < 0:
        parser.error(f"--rows must be {NEIGHBOURS} or more, --count 1 or more, and --noise not below 0")
    return options


def main():
    options = arguments()
    enter_environment(["numpy"], options.no_install)
    import numpy as np

    def one_long(rows):
        rows = rows.astype(np.float32)
        lengths = np.linalg.norm(rows, axis=1, keepdims=True)
        if not np.all(np.isfinite(lengths)) or not np.all(lengths > 0):
            raise SystemExit("a row is zero or not finite: it has no direction")
        return rows / lengths

    random = np.random.default_rng(options.seed)
    noisy = lambda rows: rows + options.noise * random.standard_normal(rows.shape, dtype=np.float32)
    if options.base is None:
        centres = random.standard_normal((CENTRES, DIMENSIONS), dtype=np.float32)
        base = centres[np.arange(MADE) % CENTRES] + random.standard_normal((MADE, DIMENSIONS), dtype=np.float32)
    else:
        base = np.load(options.base, mmap_mode="r")
    kind = np.float32 if options.float32 else np.float16
    if options.queries is None:
        queries = noisy(one_long(base[random.integers(len(base), size=options.count)]))
    else:
        queries = np.load(options.queries, mmap_mode="r")[: options.count]
    if base.ndim != 2 or queries.ndim != 2 or base.shape[1] != queries.shape[1] or len(queries) == 0:
        raise SystemExit(f"the base is {base.shape} and the queries are {queries.shape}: rows of one length are wanted")
    queries = one_long(queries).astype(kind)

    options.out.mkdir(parents=True, exist_ok=True)
    shape = (options.rows, base.shape[1])
    vectors = np.lib.format.open_memmap(options.out / "vectors.npy", mode="w+", dtype=kind, shape=shape)
    asked = one_long(queries)
    nearness = np.full((len(queries), 0), 0, dtype=np.float32)
    nearest = np.full((len(queries), 0), 0, dtype=np.int32)
    for first in range(0, options.rows, BLOCK):
        rows = np.arange(first, min(first + BLOCK, options.rows))
        block = noisy(one_long(base[rows % len(base)])).astype(kind)
        vectors[rows] = block
        # What is found so far, and the block: the nearest of both stay.
        nearness = np.concatenate([nearness, asked @ one_long(block).T], axis=1)
        nearest = np.concatenate([nearest, np.broadcast_to(rows.astype(np.int32), (len(queries), len(rows)))], axis=1)
        order = np.argsort(-nearness, axis=1, kind="stable")[:, :NEIGHBOURS]
        nearness, nearest = (np.take_along_axis(of, order, axis=1) for of in (nearness, nearest))
    vectors.flush()
    np.save(options.out / "queries.npy", queries)
    np.save(options.out / "truth.npy", nearest)
    print(f"{options.rows} vectors and {len(queries)} queries of {base.shape[1]} numbers, {kind.__name__}: {options.out}")


if __name__ == "__main__":
    main()
