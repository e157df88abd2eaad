"""Pattern memory through all of its doors, against a real server: requests, tools, files, embedders."""

import array
import asyncio
import json
import pathlib
import random
import struct
import subprocess
import tempfile
import time
import urllib.request

import msgpack
from client import Client
from mcp import ClientSession
from mcp.client.streamable_http import streamablehttp_client
from server import PROGRAM, serving

WAIT_S = 60
SMALL = ("memory.dimension=4",)

# An embedder that does what a text asks for; other texts become (length, 1, 2, 3).
EMBEDDER = """
import json, os, sys, time
for line in sys.stdin:
    request = json.loads(line)
    texts = request["texts"]
    if "die" in texts:
        os._exit(7)
    if "hang" in texts:
        time.sleep(600)
    if "noise" in texts:
        print("loading ...", flush=True)
    if "object" in texts:
        answer = {"id": request["id"], "error": "a text that this model does not take"}
    else:
        vectors = [[len(text), 1, 2, 3] for text in texts]
        if "short" in texts:
            vectors[texts.index("short")] = [1, 2]
        if "wild" in texts:
            vectors[texts.index("wild")] = [1, 2, 3, 1e300]
        if "nan" in texts:
            vectors[texts.index("nan")] = [1, float("nan"), float("-inf"), 4]
        if "twice" in texts:
            vectors *= 2
        if "flat" in texts:
            vectors = [1, 2, 3, 4]
        answer = {"id": request["id"], "vectors": vectors}
    print(json.dumps(answer), flush=True)
"""


def fails(client, code, part, method, **params):
    error, result = client.answer(client.ask(method, **params))
    assert error is not None, f"{method} {params} is answered {result}"
    assert error["code"] == code and part in error["message"], error
    return error


def direction(i):
    """A vector that float16 and float32 have exactly, in a direction of its own."""
    chosen = random.Random(i)
    return [float(chosen.randint(-500, 500)) for _ in range(4)]


def float32(numbers):
    return array.array("f", numbers).tobytes()


def requests_are_stored_and_found():
    with serving(*SMALL) as server:
        client = Client(server)
        assert client.call("memory.put", key="a", vector=[1, 0, 0, 0]) == {
            "key": "a", "replaced": False}
        assert client.call("memory.put", key="b", vector=float32([0, 1, 0, 0]),
                           metadata={"n": 7, "by": "me"})["replaced"] is False
        assert client.call("memory.put", key="b", vector=[0, 2.5, 0, 0],
                           metadata={"n": 8})["replaced"] is True
        made = client.call("memory.put", vector=[0, 0, 1, 0], namespace="other")["key"]
        hits = client.call("memory.search", vector=[0.1, 1, 0, 0], k=2)["hits"]
        assert [hit["key"] for hit in hits] == ["b", "a"], hits
        assert hits[0]["score"] > 0.99 and hits[0]["metadata"] == {"n": 8}, hits
        assert hits[1]["metadata"] == {}, hits
        assert client.call("memory.search", vector=float32([0, 0, 1, 0]), k=1,
                           namespace="other")["hits"][0]["key"] == made
        assert client.call("memory.search", vector=[1, 1, 1, 1], k=9,
                           filter={"n": 8})["hits"][0]["key"] == "b"
        assert client.call("memory.search", vector=[1, 1, 1, 1], filter={"n": 9})["hits"] == []
        got = client.call("memory.get", key="b")
        assert got["vector"] == [0, 2.5, 0, 0] and got["namespace"] == "default", got
        assert "vector" not in client.call("memory.get", key="b", vector=False)
        stats = client.call("memory.stats")
        assert stats["count"] == 3 and stats["embedder"] == "lexical" and stats["durable"], stats
        assert stats["namespaces"] == {"default": 2, "other": 1}, stats
        assert client.call("memory.delete", key="a") == {"deleted": True}
        assert client.call("memory.delete", key="a") == {"deleted": False}
        fails(client, "not_found", "", "memory.get", key="a")
        assert all(hit["key"] != "a"
                   for hit in client.call("memory.search", vector=[1, 0, 0, 0])["hits"])

        # Many at once, on one connection and in one request.
        numbers = [client.ask("memory.put", key=f"p{i}", vector=direction(i), namespace="many")
                   for i in range(700)]
        for number in numbers:
            assert client.answer(number)[0] is None
        items = [{"key": f"q{i}", "vector": direction(-i - 1), "namespace": "many"} for i in range(300)]
        items.insert(7, {"key": "short", "vector": [1]})
        results = client.call("memory.put_batch", items=items)["results"]
        assert results.pop(7)["error"]["code"] == "invalid"
        assert all(result["replaced"] is False for result in results) and len(results) == 300
        keys, cursor = [], None
        while True:
            page = client.call("memory.list", namespace="many", limit=90, cursor=cursor)
            keys += [item["key"] for item in page["items"]]
            cursor = page.get("cursor")
            if cursor is None:
                break
        assert len(keys) == len(set(keys)) == 1000, len(keys)
        recall = client.call("memory.stats", sample=50)["recall"]
        assert recall["recall"] > 0.8 and recall["queries"] > 0, recall

        with urllib.request.urlopen(server.url + "/metrics", timeout=WAIT_S) as answer:
            assert "coreflow_memory_vectors 1002" in answer.read().decode()


def puts_of_a_connection_take_effect_in_their_order():
    with serving(*SMALL) as server:
        client = Client(server)
        for round in range(30):
            # Many at once, in one piece of the stream, that end with the key; then few, that end with it.
            asked = []
            for group in [range(40), range(3)]:
                keys = [f"other-{i}" for i in group] + ["the key"]
                for key in keys:
                    metadata = {"group": len(keys), "round": round}
                    asked.append(["memory.put", {"key": key, "vector": direction(round), "metadata": metadata}])
            items = [{"key": "the key", "vector": direction(round), "metadata": {"group": 0, "round": round}}]
            asked.append(["memory.put_batch", {"items": items}])
            client.connection.sendall(
                b"".join(msgpack.packb([0, 10_000 + at, method, [params]]) for at, (method, params) in enumerate(asked))
            )
            for at in range(len(asked)):
                error, result = client.answer(10_000 + at)
                assert error is None, error
            got = client.call("memory.get", key="the key")
            assert got["metadata"] == {"group": 0, "round": round}, (round, got["metadata"])


def what_is_wrong_is_said():
    with serving(*SMALL) as server:
        client = Client(server)

        def refused(part, method="memory.put", code="invalid", **params):
            fails(client, code, part, method, **params)

        refused("vector or text is missing", key="a")
        refused("vector and text are both there", vector=[1, 0, 0, 0], text="a")
        refused("vector has 3 numbers, this memory's have 4", vector=[1, 0, 0])
        refused("vector[1] is not finite", vector=[1, float("nan"), 0, 0])
        refused("vector[0] is not finite", vector=float32([float("inf"), 1, 0, 0]))
        refused("vector is zero", vector=[0, 0, 0, 0])
        refused("colour is not a field", vector=[1, 0, 0, 0], colour="red")
        refused("vector must be an array", vector={"a": 1})
        refused("vector has 5 bytes", vector=b"12345")
        refused("metadata must be a map", vector=[1, 0, 0, 0], metadata=[1])
        refused("metadata must be a map", vector=[1, 0, 0, 0], metadata={1: 2})
        refused("the text has no word", text=" ?! ")
        refused("key is 257 bytes", code="too_large", vector=[1, 0, 0, 0], key="k" * 257)
        refused("namespace is 65 bytes", code="too_large", vector=[1, 0, 0, 0], namespace="n" * 65)
        for k in (0, -1, 1.5, "3"):
            refused("k must be an integer from 1 to 1000", "memory.search", vector=[1, 0, 0, 0], k=k)
        refused("vector[2] is beyond 1e17", vector=[1, 0, -2e17, 0])
        refused("vector[0] is beyond 1e17", "memory.search", vector=[2e17, 0, 0, 0])
        refused("k must be an integer from 1 to 1000", "memory.search", vector=[1, 0, 0, 0], k=1001)
        refused("filter must be a map", "memory.search", vector=[1, 0, 0, 0], filter=3)
        refused("", "memory.list", cursor="what is that")
        assert client.call("memory.stats")["count"] == 0


def nested(depth):
    """Metadata that are so deep."""
    value = 1
    for _ in range(depth - 1):
        value = [value]
    return {"a": value}


def limits_are_those_of_the_page():
    vector = [1, 0, 0, 0]
    with serving(*SMALL) as server:
        client = Client(server)

        def limit(method, code, inside, beyond, **more):
            for params in inside:
                error, _ = client.answer(client.ask(method, **more, **params))
                assert error is None, (method, error)
            for params in beyond:
                fails(client, code, "", method, **more, **params)

        put = {"vector": vector, "key": "a"}
        limit("memory.put", "too_large", [{"key": "k" * 256}], [{"key": "é" * 129}], vector=vector)
        limit("memory.put", "too_large", [{"namespace": "n" * 64}], [{"namespace": "n" * 65}], **put)
        limit("memory.put", "invalid", [], [{"namespace": ""}], **put)
        limit("memory.put", "too_large", [{"metadata": {"a": "x" * 65530}}],
              [{"metadata": {"a": "x" * 65531}}], **put)
        words = "word " * 13108
        for method in ("memory.put", "memory.search"):
            limit(method, "too_large", [{"text": words[:65536]}], [{"text": words[:65537]}])
            limit(method, "invalid", [{"vector": [1e17, -1e17, 0, 0]}],
                  [{"vector": [1, 1.01e17, 0, 0]}, {"vector": [1, 1e39, 0, 0]}])
        search = {"vector": vector}
        limit("memory.search", "invalid", [{"k": 1}, {"k": 1000}], [{"k": 0}, {"k": 1001}], **search)
        limit("memory.search", "invalid", [{"ef": 1}, {"ef": 4096}], [{"ef": 0}, {"ef": 4097}], **search)
        fields = [{"filter": {f"f{i}": i for i in range(count)}} for count in (64, 65)]
        limit("memory.search", "invalid", fields[:1], fields[1:], **search)
        limit("memory.search", "too_large", [], [{"filter": {"a": "x" * 65536}}], **search)
        limit("memory.list", "invalid", [{"limit": 1000}], [{"limit": 0}, {"limit": 1001}])
        limit("memory.stats", "invalid", [{"sample": 0}, {"sample": 1000}], [{"sample": 1001}])
        items = [{"key": str(i % 7), "vector": vector} for i in range(10_001)]
        limit("memory.put_batch", "too_large", [{"items": items[:-1]}], [{"items": items}])
        # As many searches as were asked for, however many cores there are.
        assert [client.call("memory.stats", sample=n)["recall"]["queries"] for n in (1, 2, 3)] == [1, 2, 3]
        # Rounding takes no cosine beyond what one can be.
        for i in range(300):
            client.call("memory.put", key=f"s{i}", vector=[x / 7 for x in direction(i)], namespace="s")
        for i in range(300):
            hits = client.call("memory.search", vector=direction(i), k=300, namespace="s")["hits"]
            assert hits[0]["score"] > 0.999999, hits[0]
            assert all(-1 <= hit["score"] <= 1 for hit in hits), hits[0]
        # The last of two fields counts, and null is none.
        assert client.call("memory.put", vector=vector, text=None, metadata=None)["replaced"] is False
        limit("memory.put", "invalid", [{"metadata": nested(61)}], [], **put)
        client.ask("memory.put", **put, metadata=nested(62))
        said = b"".join(iter(lambda: client.connection.recv(4096), b""))
        assert b"nested deeper than 64" in said, said


def what_is_stored_outlives_the_node():
    with tempfile.TemporaryDirectory() as folder:
        for start in range(2):
            with serving(*SMALL, folder=folder) as server:
                client = Client(server)
                if start == 0:
                    for i in range(50):
                        client.call("memory.put", key=f"k{i}", vector=direction(i))
                    client.call("memory.delete", key="k7")
                    server.process.kill()
                    server.wait()
                else:
                    stats = client.call("memory.stats")
                    assert stats["count"] == 49, stats
                    fails(client, "not_found", "", "memory.get", key="k7")
                    hit = client.call("memory.search", vector=direction(49), k=1)["hits"][0]
                    assert hit["key"] == "k49", hit


def texts_that_share_words_are_found():
    with serving() as server:
        client = Client(server)
        texts = {
            "deploy": "The deployment failed because the database migration timed out",
            "retry": "Retry flaky network calls with exponential backoff",
            "german": "Der Benutzer wünscht kurze Antworten",
        }
        for key, text in texts.items():
            client.call("memory.put", key=key, text=text)
        for query, key in (("database migrations time out", "deploy"),
                           ("exponential backoff", "retry"), ("kurze Antwort", "german")):
            hit = client.call("memory.search", text=query, k=1)["hits"][0]
            assert hit["key"] == key and hit["text"] == texts[key], (query, hit)
    with serving("memory.embedder=none") as server:
        fails(Client(server), "invalid", "set memory.embedder", "memory.put", text="a")


def an_embedder_may_be_a_child_that_fails():
    with tempfile.TemporaryDirectory() as folder:
        script = pathlib.Path(folder, "embedder.py")
        script.write_text(EMBEDDER)
        command = json.dumps(["python3", str(script)])
        with serving(*SMALL, "memory.embedder=exec", f"memory.embedder_command={command}",
                     "memory.embedder_timeout_ms=1500") as server:
            client = Client(server)

            def until_well():
                deadline = time.monotonic() + WAIT_S
                while True:
                    error, result = client.answer(client.ask("memory.put", key="w", text="word"))
                    if error is None:
                        return result
                    assert "it is started again in" in error["message"], error
                    assert time.monotonic() < deadline, error
                    time.sleep(0.02)

            until_well()
            assert client.call("memory.get", key="w")["vector"] == [4, 1, 2, 3]
            assert client.call("memory.search", text="four", k=1)["hits"][0]["key"] == "w"
            # Each of many is answered by itself, the bad ones with the embedder's name.
            texts = ["fine", "short", "wild", "nan"] + [f"t{i}" for i in range(200)]
            items = [{"key": text, "text": text} for text in texts]
            results = client.call("memory.put_batch", items=items)["results"]
            assert "embedder.py gave a vector of 2 numbers" in results[1]["error"]["message"]
            assert "number [3] is not finite" in results[2]["error"]["message"], results[2]
            assert "number [1] is not finite" in results[3]["error"]["message"], results[3]
            assert results[1]["error"]["code"] == "unavailable", results[1]
            assert results[3]["error"]["code"] == "invalid", results[3]
            assert all("key" in results[i] for i in range(204) if i not in (1, 2, 3)), results
            children = server.children()
            for wrong, part in (("object", "does not take"), ("twice", "2 vectors for 1 texts"),
                                ("flat", "no array of arrays"), ("nan", "not finite")):
                items = [{"text": text} for text in ("good", wrong, "well")]
                results = client.call("memory.put_batch", items=items)["results"]
                assert part in results[1]["error"]["message"], results
                assert "key" in results[0] and "key" in results[2], results
            assert server.children() == children, "it lives on"
            for text, part in (("die", "exit status: 7"),
                               ("noise", "no answer: not JSON: column 1: expected a value"),
                               ("hang", "was silent for 1500 ms")):
                fails(client, "unavailable", part, "memory.put", text=text)
                until_well()
            # An import passes over the text that has no vector, and no other.
            lines = "".join(json.dumps({"key": text, "text": text}) + "\n"
                            for text in ("one", "nan", "three"))
            pathlib.Path(folder, "texts.jsonl").write_text(lines)
            words = [PROGRAM, "memory", "import", "texts.jsonl", "--namespace", "i"]
            done = subprocess.run([*words, "--connect", "%s:%d" % server.rpc], cwd=folder,
                                  capture_output=True, text=True, timeout=WAIT_S, check=False)
            assert done.returncode == 1 and "stored 2 items" in done.stdout, done
            assert "line 2: the embedder" in done.stderr and "not finite" in done.stderr, done
            # What needs no embedder does not wait for it.
            waits = client.ask("memory.put", text="hang")
            began = time.monotonic()
            client.call("memory.put", key="v", vector=[1, 2, 3, 4])
            assert time.monotonic() - began < 1.2
            error, _ = client.answer(waits)
            assert error["code"] == "unavailable", error
    broken = 'memory.embedder_command=["/no/such/program"]'
    with serving(*SMALL, "memory.embedder=exec", broken) as server:
        fails(Client(server), "unavailable", "/no/such/program", "memory.put", text="a")


def an_import_waits_where_there_is_no_room():
    with tempfile.TemporaryDirectory() as folder:
        script = pathlib.Path(folder, "embedder.py")
        script.write_text(EMBEDDER)
        command = json.dumps(["python3", str(script)])
        lines = "".join(json.dumps({"text": f"lesson {i}"}) + "\n" for i in range(3000))
        pathlib.Path(folder, "lessons.jsonl").write_text(lines)
        with serving(*SMALL, "memory.embedder=exec", f"memory.embedder_command={command}",
                     "memory.embedder_queue=1") as server:
            client = Client(server)
            words = [PROGRAM, "memory", "import", "lessons.jsonl", "--json"]
            done = subprocess.Popen([*words, "--connect", "%s:%d" % server.rpc], cwd=folder,
                                    stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
            # Others are told that the embedder is busy, some at least of those that ask all the time.
            refused = 0
            while done.poll() is None:
                error, _ = client.answer(client.ask("memory.search", text="lesson", k=1))
                assert error is None or error["code"] == "backpressure", error
                refused += error is not None
            assert done.returncode == 0
            said = json.load(done.stdout)
            assert said == {"stored": 3000, "replaced": 0, "next": 3001, "complete": True}, said
            assert client.call("memory.stats")["count"] == 3000
            assert refused > 0


async def tools(url):
    async with streamablehttp_client(url) as (reader, writer, _):
        async with ClientSession(reader, writer) as session:
            await session.initialize()
            names = {tool.name for tool in (await session.list_tools()).tools}
            wanted = {"store", "retrieve", "search", "delete", "list", "stats"}
            assert {f"memory_{name}" for name in wanted} <= names, names

            async def call(name, **arguments):
                answer = await session.call_tool(f"memory_{name}", arguments)
                assert not answer.isError, answer
                return answer.structuredContent

            stored = await call("store", text="Tests must not depend on their order",
                                metadata={"source": "review"})
            assert stored["replaced"] is False
            hits = (await call("search", text="order of tests", k=3))["hits"]
            assert hits[0]["key"] == stored["key"], hits
            assert hits[0]["metadata"] == {"source": "review"}, hits
            item = await call("retrieve", key=stored["key"])
            assert item["text"].startswith("Tests") and "vector" not in item, item
            assert len((await call("list"))["items"]) == 1
            stats = await call("stats")
            assert stats["count"] == 1 and stats["embedder"] == "lexical", stats
            assert (await call("delete", key=stored["key"]))["deleted"] is True
            wrong = await session.call_tool("memory_search", {"text": "a", "k": 0})
            assert wrong.isError and "k must be an integer from 1 to 1000" in str(wrong.content), wrong


def models_store_and_search():
    with serving() as server:
        asyncio.run(asyncio.wait_for(tools(server.url + "/mcp"), WAIT_S))


def npy(path, rows, code="<f4"):
    """A file as NumPy writes it."""
    head = f"{{'descr': '{code}', 'fortran_order': False, 'shape': ({len(rows)}, {len(rows[0])}), }}"
    head = head.ljust(117) + "\n"
    with open(path, "wb") as file:
        file.write(b"\x93NUMPY\x01\x00" + struct.pack("<H", len(head)) + head.encode())
        for row in rows:
            file.write(struct.pack(f"<{len(row)}{'e' if code == '<f2' else 'f'}", *row))


def files_are_imported_and_exported():
    with serving(*SMALL) as server, tempfile.TemporaryDirectory() as folder:
        client = Client(server)

        def memory(*words, code=0):
            command = [PROGRAM, "memory", *map(str, words), "--connect", "%s:%d" % server.rpc]
            done = subprocess.run(command, cwd=folder, capture_output=True, text=True,
                                  timeout=WAIT_S, check=False)
            assert done.returncode == code, (words, done)
            return done.stderr if code == 2 else done.stdout + (done.stderr if code else "")

        def told(*words, **options):
            return json.loads(memory(*words, "--json", **options))

        rows = [direction(i) for i in range(3000)]
        npy(f"{folder}/rows.npy", rows)
        npy(f"{folder}/half.npy", rows[:5], "<f2")
        assert told("import", "rows.npy", "--namespace", "n") == {
            "stored": 3000, "replaced": 0, "next": 3000, "complete": True}
        again = told("import", "rows.npy", "--namespace", "n", "--from", 2990)
        assert (again["stored"], again["replaced"]) == (10, 10), again
        assert client.call("memory.get", key="rows.npy:17", namespace="n")["vector"] == rows[17]
        pathlib.Path(folder, "keys").write_text("".join(f"half {i}\n" for i in range(5)))
        assert "stored 5 items" in memory("import", "half.npy", "--keys-from", "keys")
        assert client.call("memory.get", key="half 3")["vector"] == rows[3]
        pathlib.Path(folder, "few").write_text("a\nb\n")
        said = memory("import", "half.npy", "--keys-from", "few", "--namespace", "few", code=1)
        assert "it has 2 keys" in said and "2 items are stored; go on with --from 2" in said, said

        hits = told("search", "--file", "rows.npy", "--row", 42, "-k", 1, "--namespace", "n")["hits"]
        assert hits[0]["key"] == "rows.npy:42", hits
        assert "half 1" in memory("search", "--vector", json.dumps(rows[1]), "-k", 1,
                                  "--namespace", "default")
        assert "there are 3000 rows" in memory("search", "--file", "rows.npy", "--row", 3000, code=2)
        memory("search", "-k", 3, code=2)
        memory("search", "some words", "--text", "some words", code=2)
        assert "this memory's have 4" in memory("search", "--vector", "[1]", code=2)

        lines = [{"key": "t", "text": "Some words", "metadata": {"a": [1, None]}},
                 {"key": "v", "vector": [1, 2, 3, 4], "namespace": "lines"}]
        text = "".join(json.dumps(line) + "\n" for line in lines)
        pathlib.Path(folder, "lines.jsonl").write_text(text + '\n{"text":')
        said = memory("import", "lines.jsonl", "--namespace", "texts", code=1)
        assert "line 4: is not JSON: column 9" in said and "stored 2 items" in said, said
        assert told("search", "--text", "some words", "-k", 1)["hits"][0]["key"] == "t"
        assert told("search", "some words", "-k", 1)["hits"][0]["key"] == "t"
        assert told("get", "v", "--namespace", "lines", "--vector")["vector"] == [1, 2, 3, 4]
        assert "v" in memory("list", "--namespace", "lines")
        assert told("stats")["namespaces"]["n"] == 3000
        assert "lexical" in memory("stats")

        assert told("export", "all.jsonl") == {"written": 3007 + 2}
        exported = [json.loads(line) for line in pathlib.Path(folder, "all.jsonl").open()]
        by_name = {(item["namespace"], item["key"]): item for item in exported}
        assert by_name["texts", "t"] == {**lines[0], "namespace": "texts"}, by_name["texts", "t"]
        assert by_name["n", "rows.npy:2999"]["vector"] == rows[2999]
        before = pathlib.Path(folder, "all.jsonl").read_bytes()
        memory("export", "all.jsonl", "--namespace", "nosuch", code=1)
        assert pathlib.Path(folder, "all.jsonl").read_bytes() == before, "it is as it was"
        memory("export", "one.npy", code=2)
        assert "wrote 3000 items" in memory("export", "one.npy", "--namespace", "n")
        assert not list(pathlib.Path(folder).glob("*.part")), "all is in its place"
        keys = pathlib.Path(folder, "one.npy.keys").read_text().splitlines()
        data = pathlib.Path(folder, "one.npy").read_bytes()[128:]
        for place in (0, 1234, 2999):
            row = list(struct.unpack_from("<4f", data, 16 * place))
            assert row == rows[int(keys[place].split(":")[1])], (place, row)
        memory("import", "one.npy", "--keys-from", "one.npy.keys", "--namespace", "copy")
        assert told("import", "all.jsonl")["replaced"] == 3009

        assert "deleted" in memory("delete", "t", "--namespace", "texts")
        assert "there was none" in memory("delete", "t", "--namespace", "texts", code=1)
        memory("get", "t", "--namespace", "texts", code=1)

        npy(f"{folder}/wide.npy", [[1, 2]])
        assert "its rows have 2 numbers" in memory("import", "wide.npy", code=2)
        cut = pathlib.Path(folder, "cut.npy")
        cut.write_bytes(pathlib.Path(folder, "rows.npy").read_bytes()[:-1])
        assert "its head tells of 3000 rows" in memory("import", "cut.npy", code=2)
        cut.write_text("no array")
        assert "is no NumPy array" in memory("import", "cut.npy", code=2)
        assert "ends in none of" in memory("import", "keys", code=2)
        memory("import", "nothing.npy", code=2)


def a_full_memory_refuses_and_keeps_what_it_has():
    with serving(*SMALL, "memory.max_vectors=8") as server:
        client = Client(server)
        answers = [client.answer(client.ask("memory.put", key=f"k{i}", vector=[i, 1, 2, 3]))
                   for i in range(40)]
        refused = [error for error, _ in answers if error]
        assert refused and all(error["code"] == "backpressure" for error in refused), refused
        assert len(refused) == 32 and "retry_after_ms" not in refused[0], refused[0]
        assert client.call("memory.stats")["count"] == 8
        for key in [f"k{i}" for i in range(8)]:
            assert client.call("memory.put", key=key, vector=[1, 2, 3, 4])["replaced"], key


for test in (requests_are_stored_and_found, puts_of_a_connection_take_effect_in_their_order,
             what_is_wrong_is_said,
             limits_are_those_of_the_page,
             what_is_stored_outlives_the_node, texts_that_share_words_are_found,
             an_embedder_may_be_a_child_that_fails, an_import_waits_where_there_is_no_room,
             models_store_and_search, files_are_imported_and_exported,
             a_full_memory_refuses_and_keeps_what_it_has):
    test()
    print("ok", test.__name__, flush=True)
