"""`coreflow run` as a person at a terminal meets it: the bar, an interruption, a pipe as the file."""

import json
import os
import pty
import re
import signal
import subprocess
import tempfile
import time

from server import PROGRAM, ROOT, descendants, lives

WAIT_S = 60
# Signals closer together than 50 ms are one.
APART_S = 0.1


def start(*words, **streams):
    command = [PROGRAM, "run", "--config", "examples/exec.toml", *words]
    # Unbuffered: what a test reads line by line is not missing in what it reads later.
    return subprocess.Popen(command, cwd=ROOT, bufsize=0, stdout=subprocess.PIPE, **streams)


def lines_of(*tasks):
    return "".join(json.dumps(task) + "\n" for task in tasks).encode()


def sleep(ms):
    return {"type": "sleep", "payload": {"ms": ms}}


def echo(value):
    return {"type": "echo", "payload": value}


def untold(text):
    """The lines that the message of an interrupted run names, each as a pair first and last."""
    found = re.search(r"interrupted: (\d+) lines have their result(.*)", text)
    assert found, text
    ranges = re.findall(r"lines? (\d+)(?: to (\d+)| (and all that follow))?", found[2])
    return int(found[1]), [(int(a), None if rest else int(b or a)) for a, b, rest in ranges]


def an_interrupted_run_writes_its_results_and_tells_what_it_did_not_run():
    run = start("--set", "server.drain_ms=200", "-", stdin=subprocess.PIPE, stderr=subprocess.PIPE)
    run.stdin.write(lines_of(echo(1), sleep(600000), echo(3), sleep(600000), echo(5)))
    run.stdin.flush()
    results = [json.loads(run.stdout.readline()) for _ in range(3)]
    assert {result["line"] for result in results} == {1, 3, 5}, results
    run.send_signal(signal.SIGINT)
    out, err = run.communicate(timeout=WAIT_S)
    assert run.returncode == 1 and out == b"", (run.returncode, out)
    assert untold(err.decode()) == (3, [(2, 2), (4, 4), (6, None)]), err.decode()


def no_line_is_lost_between_the_results_and_the_message():
    count = 20_000
    with tempfile.NamedTemporaryFile(suffix=".jsonl") as file:
        file.write(lines_of(*([sleep(20)] * count)))
        file.flush()
        run = start("--set", "server.drain_ms=100", file.name, stderr=subprocess.PIPE)
        first = run.stdout.readline()
        run.send_signal(signal.SIGTERM)
        out, err = run.communicate(timeout=WAIT_S)
    assert run.returncode == 1
    results = [json.loads(line) for line in [first, *out.splitlines()]]
    assert all(result["status"] == "done" for result in results), results
    ended, ranges = untold(err.decode())
    left = {line for a, b in ranges for line in range(a, b + 1)}
    assert ended == len(results) and 0 < ended < count, ended
    assert "more places" in err.decode() or (
        {result["line"] for result in results} | left == set(range(1, count + 1)))
    assert not {result["line"] for result in results} & left


def a_second_interruption_ends_the_run_at_once_and_its_children():
    command = json.dumps(["bash", "-c", "while read -r line; do sleep 600; done"])
    run = start("--set", f"agent.words.command={command}", "--set", "server.drain_ms=600000", "-",
                stdin=subprocess.PIPE, stderr=subprocess.DEVNULL)
    run.stdin.write(lines_of({"type": "words", "payload": 1}, echo(2)))
    run.stdin.flush()
    assert json.loads(run.stdout.readline())["line"] == 2
    deadline = time.monotonic() + WAIT_S
    while len(children := descendants(run.pid)) < 2:
        assert time.monotonic() < deadline, "the child does not work"
    run.send_signal(signal.SIGINT)
    time.sleep(APART_S)
    run.send_signal(signal.SIGINT)
    assert run.wait(WAIT_S) == 1
    run.stdin.close()
    while any(map(lives, children)):
        assert time.monotonic() < deadline, f"one of {children} outlives the run"


def the_bar_goes_to_standard_error_and_results_to_standard_output():
    screen, terminal = pty.openpty()
    tasks = ROOT / "examples/tasks.jsonl"
    run = start(str(tasks), stderr=terminal, env={**os.environ, "TERM": "xterm"})
    os.close(terminal)
    out = run.communicate(timeout=WAIT_S)[0]
    shown = b""
    try:
        while piece := os.read(screen, 1 << 16):
            shown += piece
    except OSError:
        pass  # the terminal is gone with the program
    assert run.returncode == 0, shown
    assert b"tasks" in shown and b"/5" in shown, shown
    results = [json.loads(line) for line in out.splitlines()]
    assert sorted(result["line"] for result in results) == [1, 2, 3, 4, 5], results


def a_pipe_is_a_file_too():
    with tempfile.TemporaryDirectory() as folder:
        pipe = os.path.join(folder, "tasks")
        os.mkfifo(pipe)
        run = start(pipe, stderr=subprocess.PIPE)
        with open(pipe, "wb") as writer:
            writer.write(lines_of(echo(1), echo(2)))
        out, err = run.communicate(timeout=WAIT_S)
    assert run.returncode == 0, err
    assert len(out.splitlines()) == 2, out


def a_reader_that_goes_away_ends_the_run():
    with tempfile.NamedTemporaryFile(suffix=".jsonl") as file:
        file.write(lines_of(*([sleep(10)] * 5000)))
        file.flush()
        run = start(file.name, stderr=subprocess.PIPE)
        assert json.loads(run.stdout.readline())["status"] == "done"
        run.stdout.close()
        err = run.stderr.read().decode()
    assert run.wait(WAIT_S) == 1 and "standard output" in err, err


for test in (an_interrupted_run_writes_its_results_and_tells_what_it_did_not_run,
             no_line_is_lost_between_the_results_and_the_message,
             a_second_interruption_ends_the_run_at_once_and_its_children,
             the_bar_goes_to_standard_error_and_results_to_standard_output, a_pipe_is_a_file_too,
             a_reader_that_goes_away_ends_the_run):
    test()
    print("ok", test.__name__)
