"""`coreflow memory` against a real server: what an import does with wrong rows, a full memory, a signal,
a node that is silent; items one by one, lists, names."""

import json
import os
import pathlib
import signal
import struct
import subprocess
import tempfile
import time
import urllib.request

from client import Client
from server import PROGRAM, serving

WAIT_S = 60
SMALL = ("memory.dimension=4",)

# An embedder that takes its time, a line after the other.
SLOW = """
import json, sys, time
for line in sys.stdin:
    request = json.loads(line)
    time.sleep(0.05)
    vectors = [[len(text), 1, 2, 3] for text in request["texts"]]
    print(json.dumps({"id": request["id"], "vectors": vectors}), flush=True)
"""


def row(i):
    return [float(i % 97 - 48), float(i % 89 - 44), float(i % 83 - 41), 1.0]


def fvecs(path, rows):
    data = b"".join(struct.pack(f"<i{len(row)}f", len(row), *row) for row in rows)
    pathlib.Path(path).write_bytes(data)


class Shell:
    """Runs `coreflow memory` in a folder, against a server."""

    def __init__(self, server, folder):
        self.server, self.folder = server, folder

    def words(self, *words):
        return [PROGRAM, "memory", *map(str, words), "--connect", "%s:%d" % self.server.rpc]

    def run(self, *words, code=0, stdin=None):
        done = subprocess.run(self.words(*words), cwd=self.folder, capture_output=True, text=True,
                              timeout=WAIT_S, check=False, input=stdin)
        assert done.returncode == code, (words, done)
        return done

    def told(self, *words, **options):
        return json.loads(self.run(*words, "--json", **options).stdout)

    def begin(self, *words):
        return subprocess.Popen(self.words(*words), cwd=self.folder, stdout=subprocess.PIPE,
                                stderr=subprocess.PIPE, text=True)


def mcp(server, body):
    """The answer to a request that is JSON already."""
    headers = {"content-type": "application/json", "accept": "application/json, text/event-stream"}
    request = urllib.request.Request(server.url + "/mcp", body.encode(), headers)
    with urllib.request.urlopen(request, timeout=WAIT_S) as answer:
        return json.loads(answer.read())


def wrong_records_are_told_and_the_others_are_stored():
    with serving(*SMALL) as server, tempfile.TemporaryDirectory() as folder:
        client, shell = Client(server), Shell(server, folder)
        rows = [row(i) for i in range(3000)]
        rows[7] = [1, float("nan"), 2, 3]
        rows[1500] = [0, 0, 0, 0]
        rows[2999] = [1, 2, 1e18, 3]
        fvecs(f"{folder}/rows.fvecs", rows)
        done = shell.run("import", "rows.fvecs", code=1)
        assert "stored 2997 items" in done.stdout, done
        for part in ("3 rows are wrong and not stored", "row 7: vector[1] is not finite",
                     "row 1500: vector is zero", "row 2999: vector[2] is beyond 1e17"):
            assert part in done.stderr, (part, done.stderr)
        assert client.call("memory.stats")["count"] == 2997
        assert client.call("memory.get", key="rows.fvecs:8")["vector"] == rows[8]
        again = shell.told("import", "rows.fvecs", code=1)
        assert (again["stored"], again["replaced"], again["next"]) == (2997, 2997, 3000), again
        assert again["complete"] and again["wrong_count"] == 3, again
        reason = "vector[1] is not finite in float32"
        assert again["wrong"][0] == {"row": 7, "reason": reason}, again

        good = {"key": "a", "vector": [1, 2, 3, 4]}
        lines = [json.dumps(good), '{"key":"b","vector":[1,2,NaN,4]}', '{"text":', "[]",
                 '{"key":"c","vector":[1,2,3,4],"colour":1}', "x" * (3 << 20),
                 '{"key":"d","vector":[1,2]}', json.dumps({**good, "key": "e"})]
        pathlib.Path(folder, "lines.jsonl").write_text("\n".join(lines))
        done = shell.run("import", "lines.jsonl", "--namespace", "n", code=1)
        assert "stored 2 items" in done.stdout, done
        for part in ("6 lines are wrong", "line 2: is not JSON: column 26: expected a number",
                     "line 3: is not JSON: column 9: expected a value, and the text ends",
                     "line 4: is no JSON object", "line 5: colour is not a field",
                     "line 6: is longer than 2097152 bytes", "line 7: vector has 2 numbers"):
            assert part in done.stderr, (part, done.stderr)
        assert shell.told("get", "e", "--namespace", "n")["key"] == "e"
        # --from passes over lines whatever is in them.
        assert shell.told("import", "lines.jsonl", "--from", 8)["stored"] == 1

        # Where all are wrong the file is, and that is told soon.
        pathlib.Path(folder, "none.jsonl").write_text("nonsense\n" * 5000)
        done = shell.run("import", "none.jsonl", code=1)
        assert "more than 1000 lines are wrong" in done.stderr, done
        assert len(done.stderr.splitlines()) < 30, done.stderr
        fvecs(f"{folder}/wide.fvecs", [[1, 2]])
        done = shell.run("import", "wide.fvecs", code=2)
        assert "its rows have 2 numbers, this memory's vectors have 4" in done.stderr, done
        fvecs(f"{folder}/bent.fvecs", [row(0), row(1), [1, 2, 3, 4, 5, 6, 7], [1]])
        done = shell.run("import", "bent.fvecs", code=1)
        assert "row 2: has 7 numbers, the first row has 4" in done.stderr, done
        assert "2 items are stored; go on with --from 2" in done.stderr, done
        # Whatever comes behind, what is before is stored, and the row that is wrong is named.
        for name, last, part in (
            ("longer", [row(9)[0]] * 6, "row 3: has 6 numbers, the first row has 4"),
            ("shorter", [1.0], "row 3: has 1 numbers, the first row has 4"),
        ):
            fvecs(f"{folder}/{name}.fvecs", [row(0), row(1), row(2), last, row(4), row(5)])
            told = shell.told("import", f"{name}.fvecs", "--namespace", name, code=1)
            assert (told["stored"], told["next"], told["complete"]) == (3, 3, False), told
            assert part in told["reason"], told
            assert client.call("memory.stats")["namespaces"][name] == 3
        data = pathlib.Path(folder, "rows.fvecs").read_bytes()
        pathlib.Path(folder, "cut.fvecs").write_bytes(data[: 20 * 10 + 11])
        said = shell.run("import", "cut.fvecs", "--namespace", "cut", code=1).stderr
        assert "row 10: is cut off: the file ends in the middle of a row of 4 numbers" in said, said
        assert "9 items are stored; go on with --from 10" in said, said


def positions_that_a_file_has_not_are_refused():
    with serving(*SMALL) as server, tempfile.TemporaryDirectory() as folder:
        client, shell = Client(server), Shell(server, folder)
        fvecs(f"{folder}/rows.fvecs", [row(i) for i in range(5)])
        text = "".join(json.dumps({"key": f"k{i}", "vector": row(i)}) + "\n" for i in range(5))
        pathlib.Path(folder, "lines.jsonl").write_text(text)
        for words, part in (
            (("rows.fvecs", "--from", 6), "--from 6: rows.fvecs: has 5 rows, counted from 0"),
            (("lines.jsonl", "--from", 0), "--from 0: lines are counted from 1"),
            (("lines.jsonl", "--from", 7), "--from 7: lines.jsonl: has 5 lines, counted from 1"),
        ):
            said = shell.run("import", *words, code=2).stderr
            assert part in said, (part, said)
        assert client.call("memory.stats")["count"] == 0
        # Where an import ended at the end of the file, nothing is left.
        assert shell.told("import", "rows.fvecs", "--from", 5)["stored"] == 0
        assert shell.told("import", "lines.jsonl", "--from", 6)["stored"] == 0
        assert shell.told("import", "lines.jsonl", "--from", 5)["stored"] == 1
        pathlib.Path(folder, "folder.npy").mkdir()
        for words in (("import", "folder.npy"), ("search", "--file", "folder.npy")):
            said = shell.run(*words, code=2).stderr
            assert "folder.npy: is a folder" in said, said


def a_key_that_metadata_have_twice_is_refused_at_every_door():
    with serving(*SMALL) as server, tempfile.TemporaryDirectory() as folder:
        client, shell = Client(server), Shell(server, folder)
        twice = '{"by":"me","n":1,"by":"you"}'
        for words in (("put", "a", "--vector", "[1,2,3,4]", "--metadata", twice),
                      ("search", "--vector", "[1,2,3,4]", "--filter", twice)):
            said = shell.run(*words, code=2).stderr
            assert "has the key by twice" in said, said
        line = '{"key":"%s","vector":[1,2,3,4],"metadata":%s}\n'
        pathlib.Path(folder, "lines.jsonl").write_text(line % ("a", twice) + line % ("b", '{"by":1}'))
        told = shell.told("import", "lines.jsonl", code=1)
        assert told["stored"] == 1 and told["wrong"] == [
            {"line": 1, "reason": "metadata has the key by twice"}], told
        # Over MessagePack-RPC, whose client here cannot write such a map by itself.
        vector = b"\xa6vector\x94\x01\x02\x03\x04"
        for method, field in (("memory.put", b"\xa8metadata"), ("memory.search", b"\xa6filter")):
            params = b"\x82" + vector + field + b"\x82\xa2by\x01\xa2by\x02"
            error, _ = client.answer(client.ask_raw(method, params))
            assert error["code"] == "invalid" and "has the key by twice" in error["message"], error
        body = json.dumps({"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {
            "name": "memory_store", "arguments": {"vector": [1, 2, 3, 4], "metadata": "TWICE"}}})
        said = mcp(server, body.replace('"TWICE"', twice))
        assert said["result"]["isError"] and "has the key by twice" in str(said), said
        assert client.call("memory.stats")["count"] == 1


def a_full_memory_ends_an_import_soon():
    with serving(*SMALL, "memory.max_vectors=100") as server, \
            tempfile.TemporaryDirectory() as folder:
        client, shell = Client(server), Shell(server, folder)
        fvecs(f"{folder}/rows.fvecs", [row(i) for i in range(3000)])
        begun = time.monotonic()
        done = shell.run("import", "rows.fvecs", code=1)
        took = time.monotonic() - begun
        for part in ("the memory is full: default/rows.fvecs:", "memory.max_vectors",
                     "100 items are stored; go on with --from "):
            assert part in done.stderr, (part, done.stderr)
        assert took < 20, f"it took {took:.1f} s to say so"
        assert client.call("memory.stats")["count"] == 100
        # The row that is named is the one to go on with, also where several cores answer.
        for _ in range(5):
            told = shell.told("import", "rows.fvecs", code=1)
            assert told["reason"].startswith(f"row {told['next']} is refused: the memory is full"), told
            assert "It has 100 items, and memory.max_vectors is 100" in told["reason"], told
        print(f"   an import into a full memory ended after {took:.2f} s", flush=True)
        # What is there can be replaced, and what is deleted makes room, on any core.
        keys = [item["key"] for item in shell.told("list")["items"]]
        assert len(keys) == 100, keys
        for key in keys:
            assert client.call("memory.put", key=key, vector=row(5))["replaced"], key
        error, _ = client.answer(client.ask("memory.put", key="new", vector=row(1)))
        assert error["code"] == "backpressure" and "default/new" in error["message"], error
        assert "retry_after_ms" not in error, error
        items = [{"key": keys[0], "vector": row(9)}, {"key": "new", "vector": row(1)}]
        results = client.call("memory.put_batch", items=items)["results"]
        assert results[0]["replaced"] and "default/new" in results[1]["error"]["message"], results
        for number, key in enumerate(keys):
            client.call("memory.delete", key=key)
            client.call("memory.put", key=f"other-{number}", vector=row(number))
        assert client.call("memory.stats")["count"] == 100


def slow_serving(folder):
    script = pathlib.Path(folder, "embedder.py")
    script.write_text(SLOW)
    command = json.dumps(["python3", str(script)])
    lines = "".join(json.dumps({"text": f"lesson {i}"}) + "\n" for i in range(20_000))
    pathlib.Path(folder, "lessons.jsonl").write_text(lines)
    return serving(*SMALL, "memory.embedder=exec", f"memory.embedder_command={command}")


def until_stored(client, count):
    deadline = time.monotonic() + WAIT_S
    while client.call("memory.stats")["count"] < count:
        assert time.monotonic() < deadline, "nothing is stored"
        time.sleep(0.01)


def until_listening(process):
    """Until a program has taken SIGINT over."""
    deadline = time.monotonic() + WAIT_S
    while True:
        status = pathlib.Path(f"/proc/{process.pid}/status").read_text()
        caught = next(line for line in status.splitlines() if line.startswith("SigCgt"))
        if int(caught.split()[1], 16) >> (signal.SIGINT - 1) & 1:
            return
        assert time.monotonic() < deadline and process.poll() is None, "it does not listen"
        time.sleep(0.01)


def goes_on(said):
    """What an import that ended early says: how many are stored, and from where to go on."""
    last = said.strip().splitlines()[-1].split()
    assert last[1:4] == ["items", "are", "stored;"] and last[-2] == "--from", said
    return int(last[0]), int(last[-1])


def an_import_that_is_interrupted_says_how_to_go_on():
    with tempfile.TemporaryDirectory() as folder, slow_serving(folder) as server:
        client, shell = Client(server), Shell(server, folder)
        for number in (signal.SIGINT, signal.SIGTERM):
            before = client.call("memory.stats")["count"]
            running = shell.begin("import", "lessons.jsonl", "--from", before + 1)
            until_stored(client, before + 300)
            os.kill(running.pid, number)
            signalled = time.monotonic()
            _, said = running.communicate(timeout=WAIT_S)
            took = time.monotonic() - signalled
            assert running.returncode == 1 and "interrupted" in said, (running.returncode, said)
            stored, start = goes_on(said)
            assert took < 10, f"it took {took:.1f} s to end"
            assert start == before + stored + 1, "all that was under way was answered"
            assert client.call("memory.stats")["count"] == before + stored
            print(f"   ended {took:.2f} s after {number.name}, {stored} stored", flush=True)
        # An export that is interrupted leaves the file as it was, and nothing beside it.
        out = pathlib.Path(folder, "out.jsonl")
        out.write_text("before")
        server.signal(signal.SIGSTOP)
        running = shell.begin("export", "out.jsonl")
        until_listening(running)
        os.kill(running.pid, signal.SIGINT)
        server.signal(signal.SIGCONT)
        _, said = running.communicate(timeout=WAIT_S)
        assert running.returncode == 1 and "out.jsonl is as it was" in said, said
        assert out.read_text() == "before" and not list(pathlib.Path(folder).glob("*.part"))
        # A second signal ends it at once.
        running = shell.begin("import", "lessons.jsonl")
        server.signal(signal.SIGSTOP)
        try:
            until_listening(running)
            os.kill(running.pid, signal.SIGINT)
            # Signals of one kind that come at once are one.
            while running.poll() is None:
                time.sleep(0.05)
                os.kill(running.pid, signal.SIGINT)
            assert running.wait() == -signal.SIGINT
        finally:
            server.signal(signal.SIGCONT)
        running.communicate()


def an_import_gives_up_on_a_node_that_is_silent():
    with tempfile.TemporaryDirectory() as folder, slow_serving(folder) as server:
        client, shell = Client(server), Shell(server, folder)
        running = shell.begin("import", "lessons.jsonl", "--patience", "4")
        until_stored(client, 300)
        server.signal(signal.SIGSTOP)
        stopped = time.monotonic()
        try:
            _, said = running.communicate(timeout=WAIT_S)
        finally:
            server.signal(signal.SIGCONT)
        took = time.monotonic() - stopped
        assert running.returncode == 1, said
        assert "the node has not answered for 2 s; still trying" in said, said
        assert "error: the node has not answered for 4 s" in said, said
        assert took < 15, f"it took {took:.1f} s"
        stored, start = goes_on(said)
        assert stored >= 300 and start == stored + 1, said
        print(f"   gave up after {took:.1f} s of silence, {stored} stored", flush=True)
        until_stored(client, stored)
        done = shell.told("import", "lessons.jsonl", "--from", 19_900)
        assert (done["stored"], done["next"]) == (101, 20_001), done


def items_are_put_and_listed_one_by_one():
    with serving(*SMALL) as server, tempfile.TemporaryDirectory() as folder:
        client, shell = Client(server), Shell(server, folder)
        said = shell.run("stats", "--sample", 5).stdout
        assert "no partition has two items" in said and "{" not in said and "[" not in said, said
        metadata = '{"by":"me","n":[1,2]}'
        assert shell.run("put", "a", "--text", "some words", "--metadata", metadata).stdout \
            == "stored a\n"
        said = shell.run("put", "a", "--text", "other words").stdout
        assert said == "stored a in the place of another\n", said
        made = shell.told("put", "--vector", "[1,-2,3,4]", "--namespace", "v")["key"]
        assert shell.told("get", made, "--namespace", "v", "--vector")["vector"] == [1, -2, 3, 4]
        told = shell.told("put", "b", "--vector", "-", stdin="[-1,2,3,4]")
        assert told == {"key": "b", "replaced": False}, told
        for words, part in (
            (("put", "c"), "--text"),
            (("put", "c", "--text", "a", "--vector", "[1,2,3,4]"), "cannot be used with"),
            (("put", "c", "--vector", "[1,2,x,4]"), "--vector is not JSON: column 6: expected a value"),
            (("put", "c", "--vector", "[1,2]"), "vector has 2 numbers"),
            (("put", "c", "--text", "a", "--metadata", "[1]"), "metadata must be a map"),
            (("put", "c", "--text", "a", "--metadata", '{"a":NaN}'), "JSON has no NaN"),
            (("search", "--text", "a", "--filter", "{"), "--filter is not JSON: column 2: expected"),
        ):
            said = shell.run(*words, code=2).stderr
            assert part in said and "Error" not in said, (words, said)
        for i in range(30):
            client.call("memory.put", key=f"k{i}", vector=row(i), namespace="list")
        said = shell.run("stats", "--sample", 5).stdout
        assert "namespaces.list" in said and "recall.recall" in said and "{" not in said, said
        seen, cursor = [], None
        for limit in (7, 10, 10, 10):
            words = ["list", "--namespace", "list", "--limit", limit]
            page = shell.told(*words, *(["--cursor", cursor] if cursor else []))
            assert len(page["items"]) == min(limit, 30 - len(seen)), (limit, page)
            seen += [item["key"] for item in page["items"]]
            cursor = page.get("cursor")
        assert cursor is None and len(set(seen)) == len(seen) == 30, seen
        said = shell.run("list", "--limit", "0", code=2).stderr
        assert "a whole number, 1 or more" in said, said
        said = shell.run("list", "--limit", "2").stdout.splitlines()
        assert len(said) == 4 and said[0].startswith("KEY") and "--cursor" in said[3], said
        # Two files of one name are told apart by a prefix.
        for name in ("one", "two"):
            pathlib.Path(folder, name).mkdir()
            fvecs(f"{folder}/{name}/rows.fvecs", [row(len(name) + i) for i in range(5)])
        words = ("--namespace", "files")
        shell.run("import", "one/rows.fvecs", *words)
        assert shell.told("import", "two/rows.fvecs", *words)["replaced"] == 5
        assert shell.told("import", "two/rows.fvecs", *words, "--key-prefix", "two/")["replaced"] == 0
        assert client.call("memory.get", key="two/4", namespace="files")["vector"] == row(7)


for test in (wrong_records_are_told_and_the_others_are_stored,
             positions_that_a_file_has_not_are_refused,
             a_key_that_metadata_have_twice_is_refused_at_every_door, a_full_memory_ends_an_import_soon,
             an_import_that_is_interrupted_says_how_to_go_on,
             an_import_gives_up_on_a_node_that_is_silent, items_are_put_and_listed_one_by_one):
    test()
    print("ok", test.__name__, flush=True)
