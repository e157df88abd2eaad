#!/usr/bin/env python3
"""Searches 384-dimensional vectors with other libraries and with coreflow, on one core.

Called by scripts/peers.sh --only-vectors, which has its help. Every library gets the same vectors,
the same queries and one thread on one core. Rounds of all libraries and widths take turns, so that
what else the machine does meets all of them; the best round of each counts. Recall is the part
of the ten true neighbours by cosine that was found. coreflow runs as `bench --only
pattern_search` on the same files, before the others and after them.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
VENV = ROOT / "target" / "venv-vectors"
PACKAGES = ["numpy", "hnswlib", "faiss-cpu", "usearch", "scann"]
K = 10
RERANKED = 2 * K
EF = [16, 24, 32, 48, 64, 100, 150, 200, 300]
LEAVES = [10, 20, 40, 60, 100, 150]
ROUNDS = 3
# Single queries pay for Python with each call, so that fewer of them tell enough.
SINGLE = 200


def arguments():
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--vectors", type=Path, help=".npy of float16 or float32 [default: made ones]")
    parser.add_argument("--queries", type=Path, help=".npy of the same kind")
    parser.add_argument("--truth", type=Path, help=".npy of integers [default: computed]")
    parser.add_argument("--rows", type=int, help="only so many of the vectors; truth is computed then")
    parser.add_argument("--core", type=int, default=os.cpu_count() - 1, help="the core to run on")
    program = ROOT / "target" / "release" / "coreflow"
    parser.add_argument("--program", type=Path, default=program, help="coreflow [default: target/release/coreflow]")
    parser.add_argument("--seconds", type=float, default=20, help="how long coreflow's curve takes")
    parser.add_argument("--rounds", type=int, default=ROUNDS, help="rounds of each point")
    parser.add_argument("--only", help="only libraries whose name has this in it")
    parser.add_argument("--no-install", action="store_true", help="leave out libraries that are missing")
    parser.add_argument("--out", type=Path, default=ROOT / "target" / "vector-peers", help="folder of the report")
    return parser.parse_args()


def enter_environment(packages, no_install):
    """Goes on in the virtual environment, where the libraries are."""
    python = VENV / "bin" / "python"
    if Path(sys.prefix) == VENV:
        return
    if not python.exists() and no_install:
        sys.exit(f"{VENV} is not there; without --no-install it is made")
    if not python.exists():
        subprocess.run([sys.executable, "-m", "venv", VENV], check=True)
    if not no_install:
        for package in packages:
            install = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
            # One that does not come here is left out, and told below. hnswlib wants a C++ compiler.
            subprocess.run([*install, package], check=False)
    threads = {name: "1" for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")}
    os.execve(python, [str(python), *sys.argv], {**os.environ, **threads})


def load(options, np):
    """Vectors, queries and the true neighbours; both of length one."""
    if options.vectors is None:
        random = np.random.default_rng(7)
        centres = random.standard_normal((500, 384), dtype=np.float32)
        near = lambda count: centres[np.arange(count) % 500] + random.standard_normal((count, 384), dtype=np.float32)
        base, queries = near(options.rows or 100_000), near(1000)
    else:
        base = np.load(options.vectors)[: options.rows].astype(np.float32)
        queries = np.load(options.queries).astype(np.float32)
    base, queries = (np.ascontiguousarray(x / np.linalg.norm(x, axis=1, keepdims=True)) for x in (base, queries))
    if options.truth is not None and options.rows is None:
        truth = np.load(options.truth)[:, :K]
    else:
        truth = np.argsort(-(queries @ base.T), axis=1)[:, :K]
    return base, queries, truth


class Hnswlib:
    name, knob, widths = "hnswlib", "ef", EF

    def __init__(self, base):
        import hnswlib

        self.index = hnswlib.Index(space="ip", dim=base.shape[1])
        self.index.init_index(max_elements=len(base), M=16, ef_construction=200)
        self.index.set_num_threads(1)
        self.index.add_items(base)

    def search(self, queries, width):
        self.index.set_ef(width)
        return self.index.knn_query(queries, k=K)[0]


class Faiss:
    name, knob, widths, quantized, refined = "faiss HNSW f32", "ef", EF, False, False

    def __init__(self, base):
        import faiss

        faiss.omp_set_num_threads(1)
        kind = faiss.ScalarQuantizer.QT_8bit
        dimensions = base.shape[1]
        self.graph = faiss.IndexHNSWSQ(dimensions, kind, 16) if self.quantized else faiss.IndexHNSWFlat(dimensions, 16)
        self.graph.hnsw.efConstruction = 200
        self.graph.train(base)
        self.graph.add(base)
        self.index = self.graph
        if self.refined:
            self.flat = faiss.IndexFlatL2(dimensions)
            self.flat.add(base)
            self.index = faiss.IndexRefine(self.graph, self.flat)
            self.index.k_factor = RERANKED / K

    def search(self, queries, width):
        self.graph.hnsw.efSearch = width
        return self.index.search(queries, K)[1]


class FaissSq8(Faiss):
    name, quantized = "faiss HNSW SQ8", True


class FaissSq8Refined(FaissSq8):
    name, refined = "faiss HNSW SQ8 + re-rank", True


class Usearch:
    name, knob, widths = "usearch i8 + re-rank", "ef", EF

    def __init__(self, base):
        from usearch.index import Index

        self.base = base
        self.index = Index(ndim=base.shape[1], metric="cos", dtype="i8", connectivity=16, expansion_add=200)
        import numpy as np

        self.np = np
        self.index.add(np.arange(len(base)), base, threads=1)

    def search(self, queries, width):
        np = self.np
        self.index.expansion_search = width
        found = self.index.search(queries, RERANKED, threads=1).keys
        found = np.asarray(found, dtype=np.int64).reshape(len(queries), -1)
        nearness = np.einsum("qkd,qd->qk", self.base[found], queries)
        order = np.argsort(-nearness, axis=1)[:, :K]
        return np.take_along_axis(found, order, axis=1)


class Scann:
    name, knob, widths = "ScaNN", "leaves", LEAVES

    def __init__(self, base):
        import scann

        leaves = max(1, int(len(base) ** 0.5 * 2))
        builder = scann.scann_ops_pybind.builder(base, K, "dot_product").set_n_training_threads(1)
        builder = builder.tree(num_leaves=leaves, num_leaves_to_search=50, training_sample_size=len(base))
        self.index = builder.score_ah(2, anisotropic_quantization_threshold=0.2).reorder(100).build()

    def search(self, queries, width):
        if len(queries) == 1:
            return self.index.search(queries[0], leaves_to_search=width)[0][None, :]
        return self.index.search_batched(queries, leaves_to_search=width)[0]


LIBRARIES = [Hnswlib, Faiss, FaissSq8, FaissSq8Refined, Usearch, Scann]


def recall_of(found, truth):
    return sum(len(set(a) & set(b)) for a, b in zip(found.tolist(), truth.tolist())) / truth.size


def coreflow(options, files):
    if not options.program.exists() or (options.only and options.only not in "coreflow"):
        return None
    words = [options.program, "bench", "throughput", "--only", "pattern_search", "--seconds", str(options.seconds), "--json"]
    words += ["--out", str(options.out / "coreflow"), *files]
    ended = subprocess.run(words, capture_output=True, text=True, check=False)
    if ended.returncode != 0:
        print(ended.stderr, file=sys.stderr)
        return None
    result = json.loads(ended.stdout)["results"][0]
    curves = [("coreflow", "curve"), ("coreflow + re-rank", "curve_reranked")]
    named = {
        name: [
            {"width": p["ef"], "recall": p["recall"], "batched_per_s": p["throughput_searches_per_s"], "single_per_s": None}
            for p in result[curve]
        ]
        for name, curve in curves
    }
    return {"build_s": result["build_s"], "points": named}


def best_at(points, recall):
    rates = [p["batched_per_s"] for p in points if p["recall"] >= recall]
    return max(rates, default=None)


def main():
    options = arguments()
    enter_environment(PACKAGES, options.no_install)
    import numpy as np

    os.sched_setaffinity(0, {options.core})
    options.out.mkdir(parents=True, exist_ok=True)
    base, queries, truth = load(options, np)
    names = [("--vectors", base), ("--queries", queries), ("--truth", truth.astype(np.int32))]
    files = []
    for option, array in names:
        path = options.out / f"{option[2:]}.npy"
        np.save(path, array)
        files += [option, str(path)]
    print(f"{len(base)} vectors of {base.shape[1]}, {len(queries)} queries, core {options.core}, load {os.getloadavg()}")

    runs = [coreflow(options, files)]
    libraries, report = [], {}
    for library in LIBRARIES:
        if options.only and options.only not in library.name:
            continue
        began = time.process_time()
        try:
            built = library(base)
        except ImportError as error:
            print(f"left out: {library.name}: {error}", file=sys.stderr)
            continue
        report[library.name] = {"build_s": time.process_time() - began, "points": []}
        libraries.append(built)
        print(f"{library.name}: built in {report[library.name]['build_s']:.1f} s")
    best = {}
    for _ in range(options.rounds):
        for library in libraries:
            for width in library.widths:
                began = time.perf_counter()
                found = library.search(queries, width)
                batched = len(queries) / (time.perf_counter() - began)
                few = queries[:SINGLE]
                began = time.perf_counter()
                for at in range(len(few)):
                    library.search(few[at : at + 1], width)
                single = len(few) / (time.perf_counter() - began)
                former = best.get((library.name, width), (0, 0, 0))
                best[library.name, width] = (max(batched, former[0]), max(single, former[1]), recall_of(np.asarray(found), truth))
    for (name, width), (batched, single, recall) in best.items():
        point = {"width": width, "recall": recall, "batched_per_s": batched, "single_per_s": single}
        report[name]["points"].append(point)
    runs.append(coreflow(options, files))
    for at, run in enumerate(runs):
        for name, points in (run or {"points": {}})["points"].items():
            report[f"{name} ({['before', 'after'][at]})"] = {"build_s": run["build_s"], "points": points}

    print(f"\n{'':32} {'width':>6} {'recall':>7} {'batched/s':>10} {'single/s':>10}")
    for name, of in report.items():
        for point in of["points"]:
            single = f"{point['single_per_s']:10.0f}" if point["single_per_s"] else f"{'':>10}"
            print(f"{name:32} {point['width']:6} {point['recall']:7.4f} {point['batched_per_s']:10.0f} {single}")
    print(f"\n{'':32} {'build s':>8} {'at 0.95':>9} {'at 0.99':>9}   (batched searches a second)")
    for name, of in report.items():
        rates = [best_at(of["points"], recall) for recall in (0.95, 0.99)]
        shown = [f"{rate:9.0f}" if rate else f"{'-':>9}" for rate in rates]
        print(f"{name:32} {of['build_s']:8.1f} {' '.join(shown)}")
    path = options.out / "report.json"
    path.write_text(json.dumps({"load": os.getloadavg(), "libraries": report}, indent=1))
    print(f"\n{path}")


if __name__ == "__main__":
    main()
