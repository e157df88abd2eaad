"""A folder of pattern memory that was changed, cut or moved between two starts of a real node: what is
told, what is refused, what is kept, and how it gets whole again.

COREFLOW_SEED repeats the choice of what is damaged."""

import json
import os
import pathlib
import random
import signal
import subprocess
import tempfile
import threading
import time

from client import Client
from server import PROGRAM, ROOT, Server, serving

CONFIG = "tests/python/worker.toml"
SEED = int(os.environ.get("COREFLOW_SEED", random.SystemRandom().randrange(1 << 32)))
DIMENSION = 16
SETTINGS = (f"memory.dimension={DIMENSION}",)
ONE_CORE = (*SETTINGS, "cores.workers=[0]")


def vector(key):
    dice = random.Random(f"vector of {key}")
    return [dice.gauss(0, 1) for _ in range(DIMENSION)]


def fill(client, keys, batch=500):
    for start in range(0, len(keys), batch):
        items = [{"key": key, "vector": vector(key)} for key in keys[start : start + batch]]
        results = client.call("memory.put_batch", items=items)["results"]
        assert all("error" not in result for result in results), results[0]


def there(client, keys):
    """Those of the keys whose item is there, and as it was stored."""
    found = []
    for key in keys:
        error, item = client.answer(client.ask("memory.get", key=key))
        if error is None:
            assert all(abs(a - b) < 1e-5 for a, b in zip(item["vector"], vector(key))), key
            found.append(key)
    return found


def coreflow(*words):
    return subprocess.run([PROGRAM, *words], capture_output=True, text=True, timeout=60, cwd=ROOT)


def doctor(memory, *words):
    said = coreflow("doctor", "--memory", "--folder", str(memory), "--json", *words)
    return said.returncode, json.loads(said.stdout) if said.stdout else said.stderr


def refused(folder, *settings):
    words = ["serve", "--config", CONFIG, "--set", f"log.folder={folder}"]
    for setting in ("server.rpc_address=127.0.0.1:0", "server.http_address=127.0.0.1:0", *settings):
        words += ["--set", setting]
    ended = coreflow(*words)
    assert ended.returncode == 1, ended
    return ended.stderr


def files_that_are_gone_are_missed(folder):
    keys = [f"key-{number}" for number in range(100)]
    with serving(*ONE_CORE, config=CONFIG, folder=folder) as server:
        fill(Client(server), keys)
    memory = pathlib.Path(folder, "memory")
    for name in ("0000-00000000.rec", "0000-00000001.rec", "head"):
        file = memory / name
        content = file.read_bytes()
        file.unlink()
        assert name in refused(folder, *ONE_CORE)
        code, report = doctor(memory)
        assert code == 1 and name in str(report), report
        file.write_bytes(content)
        assert doctor(memory)[0] == 0
    (memory / "0000-00000000.rec").unlink()
    code, report = doctor(memory, "--repair")
    assert code == 0 and any("it is missing" in line for line in report["dropped"]), report
    assert doctor(memory)[0] == 0
    with serving(*ONE_CORE, config=CONFIG, folder=folder) as server:
        client = Client(server)
        assert client.call("memory.stats")["count"] == 0
        fill(client, keys)
        assert there(client, keys) == keys


def a_shortened_file_loses_what_was_behind_its_end(folder):
    keys = [f"key-{number}" for number in range(400)]
    with serving(*ONE_CORE, config=CONFIG, folder=folder) as server:
        fill(Client(server), keys)
    memory = pathlib.Path(folder, "memory")
    file = memory / "0000-00000000.rec"
    os.truncate(file, 20_000)
    code, report = doctor(memory)
    assert code == 1 and any(f"{file}: it has 20000 bytes" in it for it in report["damage"]), report
    with serving(*ONE_CORE, config=CONFIG, folder=folder) as server:
        client = Client(server)
        kept = there(client, keys)
        assert kept == keys[: len(kept)] and 50 < len(kept) < 400, len(kept)
        stats = client.call("memory.stats")
        assert any("it has 20000 bytes" in it for it in stats["damaged"]), stats
        # The checkpoint says what there was, so that each lost item is known, and counts once.
        assert (stats["lost_count"], stats["lost_unnamed_count"]) == (400 - len(kept), 0), stats
        print(f"   {len(kept)} of {len(keys)} items are there, {stats['lost_count']} are known as lost")
    assert report["lost_count"] == stats["lost_count"], (report, stats)
    assert len(report["damage"]) == 2, "items that cannot be named share a line"
    code, repaired = doctor(memory, "--repair")
    assert code == 0 and repaired["items"] == len(kept), repaired
    assert repaired["lost_count"] == stats["lost_count"], repaired


def damage_is_told_once_and_counted_in_items(folder):
    keys = [f"key-{number}" for number in range(200)]
    with serving(*ONE_CORE, config=CONFIG, folder=folder) as server:
        fill(Client(server), keys)
    memory = pathlib.Path(folder, "memory")
    file = memory / "0000-00000000.rec"
    content = bytearray(file.read_bytes())
    # Heads of records, which lie before vector and name; and the name of another one.
    for key in ("key-10\0", "key-20\0"):
        name = content.index(b"default" + key.encode())
        content[name - 4 * DIMENSION - 64] ^= 1
    content[content.index(b"default" + b"key-30\0")] ^= 1
    file.write_bytes(content)
    code, report = doctor(memory)
    assert (code, report["lost_count"], report["lost_unnamed_count"]) == (1, 3, 0), report
    assert len(report["damage"]) == 3, report
    for key in ("default/key-10", "default/key-20", "efault/key-30"):
        assert sum(key in line for line in report["damage"]) == 1, (key, report)
    with serving(*ONE_CORE, config=CONFIG, folder=folder) as server:
        client, deadline = Client(server), time.monotonic() + 20
        while (stats := client.call("memory.stats"))["lost_count"] < 3:
            assert time.monotonic() < deadline, stats
        assert (stats["lost_count"], stats["damaged_count"], len(stats["damaged"])) == (3, 3, 3), stats
        assert sorted(stats["lost"]) == sorted(report["damage"]), (stats, report)
    assert sorted(doctor(memory)[1]["damage"]) == sorted(report["damage"]), "after a start it is the same"
    # A file that grew loses nothing.
    with file.open("ab") as grown:
        grown.write(b"behind the end")
    code, now = doctor(memory)
    assert code == 1 and now["lost_count"] == 3 and len(now["damage"]) == 4, now
    assert any("(nothing is lost by it)" in line for line in now["damage"]), now
    with serving(*ONE_CORE, config=CONFIG, folder=folder) as server:
        stats = Client(server).call("memory.stats")
        assert (stats["lost_count"], stats["lost_unnamed_count"], len(stats["lost"])) == (3, 0, 3), stats
        # Who cannot look says so in another way than who finds damage.
        assert doctor(memory)[0] == doctor(memory, "--repair")[0] == 3
    said = coreflow("doctor", "--memory", "--folder", str(memory), "--repair")
    assert said.returncode == 0 and said.stdout.count("dropped: ") == 4, said
    assert said.stderr == "", "each is told once, where the report is"
    assert "3 items are lost" in said.stdout, said
    assert doctor(memory)[0] == 0
    assert doctor(pathlib.Path(folder, "nothing"))[0] == 3


def a_folder_without_head_and_lists_is_not_sent_round_in_circles(folder):
    with serving(*ONE_CORE, config=CONFIG, folder=folder) as server:
        fill(Client(server), ["a", "b"])
    memory = pathlib.Path(folder, "memory")
    listed, head = memory / "0000-files.list", memory / "head"
    before = listed.read_bytes()
    head.unlink()
    listed.unlink()
    for code, said in (doctor(memory), doctor(memory, "--repair"), (1, refused(folder, *ONE_CORE))):
        assert code == 1 and "From a copy of this folder bring back head, or one of those" in said, said
        assert "start with an empty one" in said, said
    # What it says helps.
    listed.write_bytes(before)
    code, report = doctor(memory, "--repair")
    assert code == 0 and report["lost_count"] == 0 and "head" in report["dropped"][0], report
    with serving(*ONE_CORE, config=CONFIG, folder=folder) as server:
        assert there(Client(server), ["a", "b"]) == ["a", "b"]


def what_is_lost_is_told_by_an_export_until_it_is_repaired(folder):
    dice = random.Random(SEED)
    keys = [f"key-{number}" for number in range(200)]
    with serving(*ONE_CORE, config=CONFIG, folder=folder) as server:
        fill(Client(server), keys)
    memory = pathlib.Path(folder, "memory")
    file, lost = memory / "0000-00000000.rec", dice.choice(keys)
    content = bytearray(file.read_bytes())
    content[content.index(lost.encode() + b"\0")] ^= 1
    file.write_bytes(content)
    out = pathlib.Path(folder, "out.jsonl")

    def export(server):
        address = f"{server.rpc[0]}:{server.rpc[1]}"
        return coreflow("memory", "--connect", address, "export", str(out))

    # The checkpoint covers the record, so that the start does not read it; the second start knows.
    for _ in range(2):
        with serving(*ONE_CORE, config=CONFIG, folder=folder) as server:
            said = export(server)
            assert said.returncode == 1 and "0000-00000000.rec" in said.stderr, said
            assert len(out.read_text().splitlines()) == len(keys) - 1
            stats = Client(server).call("memory.stats")
            assert stats["lost_count"] == 1 and stats["count"] == len(keys) - 1, stats
    code, report = doctor(memory, "--repair")
    assert code == 0 and report["items"] == len(keys) - 1, report
    assert doctor(memory)[0] == 0
    with serving(*ONE_CORE, config=CONFIG, folder=folder) as server:
        said = export(server)
        assert said.returncode == 0 and said.stderr == "", said
        assert there(Client(server), keys) == [key for key in keys if key != lost]


def another_embedder_is_refused_where_there_are_texts(folder):
    command = f'memory.embedder_command=["python3", "{ROOT}/examples/embedder.py"]'
    with serving(*SETTINGS, config=CONFIG, folder=folder) as server:
        Client(server).call("memory.put", key="a", text="words that were counted")
    said = refused(folder, *SETTINGS, "memory.embedder=exec", command)
    assert "lexical-2" in said and "memory.embedder_model" in said, said
    with serving(*SETTINGS, "memory.embedder=none", config=CONFIG, folder=folder) as server:
        Client(server).call("memory.delete", key="a")
    with serving(*SETTINGS, "memory.embedder=exec", command, config=CONFIG, folder=folder):
        pass
    with serving(*SETTINGS, config=CONFIG, folder=folder):
        pass


def disk_bytes(memory):
    """What the files take; none when one was renamed meanwhile, as a node does that writes a list anew."""
    try:
        return sum(file.stat().st_blocks * 512 for file in memory.iterdir())
    except FileNotFoundError:
        return None


def bytes_on_disk_are_those_of_the_files(folder):
    with serving(*SETTINGS, "memory.segment_mib=4", config=CONFIG, folder=folder) as server:
        client = Client(server)
        fill(client, [f"key-{number}" for number in range(50)])
        memory, deadline = pathlib.Path(folder, "memory"), time.monotonic() + 20
        while True:
            said, taken = client.call("memory.stats")["bytes_on_disk"], disk_bytes(memory)
            if taken is not None and abs(said - taken) < 100_000:
                break
            assert time.monotonic() < deadline, (said, taken)
    print(f"   memory.stats says {said} bytes, the files take {taken}")


def items_are_found_with_another_number_of_worker_cores(folder):
    processors = sorted(os.sched_getaffinity(0))
    if len(processors) < 2:
        print("   skipped: there is one processor")
        return
    one = ("cores.workers=[%d]" % processors[0],)
    two = ("cores.workers=[%d, %d]" % tuple(processors[:2]),)
    keys, stored = [f"key-{number}" for number in range(300)], 0
    # Two partitions on one core, and then on two again; the other way round in another folder.
    for name, order in (("a", (two, one, two)), ("b", (one, two, one))):
        stored = 0
        for cores in order:
            home = pathlib.Path(folder, name)
            with serving(*SETTINGS, *cores, config=CONFIG, folder=home) as server:
                client = Client(server)
                assert there(client, keys[:stored]) == keys[:stored]
                fill(client, keys[stored : stored + 100])
                stored += 100
                stats = client.call("memory.stats")
                assert (stats["count"], stats["damaged_count"]) == (stored, 0), stats
                for key in keys[:stored:7]:
                    hits = client.call("memory.search", vector=vector(key), k=1)["hits"]
                    assert hits[0]["key"] == key, (key, hits)


def a_kill_while_a_checkpoint_is_written_loses_nothing(folder):
    dice, kept, caught = random.Random(SEED), [], 0
    memory = pathlib.Path(folder, "memory")
    unfinished = memory / "0000.new"
    for attempt in range(20):
        server = Server(*ONE_CORE, config=CONFIG, folder=folder)
        client, done, problem = Client(server), threading.Event(), []
        assert client.call("memory.stats")["count"] == len(kept)
        for key in dice.sample(kept, min(len(kept), 50)):
            assert there(client, [key]) == [key]

        def load():
            try:
                # As many changes as make a checkpoint worth while, and more.
                for part in range(60):
                    keys = [f"{attempt}-{part}-{number}" for number in range(500)]
                    fill(client, keys)
                    kept.extend(keys)
            except (OSError, AssertionError) as end:
                if "connection ended" not in str(end) and isinstance(end, AssertionError):
                    problem.append(end)
            finally:
                done.set()

        thread = threading.Thread(target=load)
        thread.start()
        while not unfinished.exists() and not done.is_set():
            pass
        server.signal(signal.SIGKILL)
        server.wait()
        thread.join()
        assert not problem, problem
        caught += unfinished.exists()
        # Items that were under way may be there.
        with serving(*ONE_CORE, config=CONFIG, folder=folder) as server:
            client = Client(server)
            stats = client.call("memory.stats")
            assert stats["damaged_count"] == 0, stats
            late = [f"{attempt}-{part}-{number}" for part in range(60) for number in range(500)]
            known = set(kept)
            late = there(client, [key for key in late[:30_000] if key not in known][:500])
            kept.extend(late)
            assert stats["count"] == len(kept), (stats["count"], len(kept))
        if caught >= 2:
            break
    print(f"   {caught} of {attempt + 1} kills left a checkpoint that was not finished; {len(kept)} items")
    assert caught >= 1, "no kill came while a checkpoint was written"


def main():
    print(f"seed {SEED}: COREFLOW_SEED={SEED} repeats the choices")
    for test in (
        files_that_are_gone_are_missed,
        a_shortened_file_loses_what_was_behind_its_end,
        damage_is_told_once_and_counted_in_items,
        a_folder_without_head_and_lists_is_not_sent_round_in_circles,
        what_is_lost_is_told_by_an_export_until_it_is_repaired,
        another_embedder_is_refused_where_there_are_texts,
        bytes_on_disk_are_those_of_the_files,
        items_are_found_with_another_number_of_worker_cores,
        a_kill_while_a_checkpoint_is_written_loses_nothing,
    ):
        with tempfile.TemporaryDirectory(prefix="coreflow-") as folder:
            test(folder)
            print("ok", test.__name__, flush=True)


main()
