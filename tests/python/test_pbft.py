"""Four real nodes that agree by PBFT: any of them takes what a client asks, one of them may die at any
time or lie, and what one acknowledged is there for all others, who have the same log."""

import os
import re
import shutil
import signal
import subprocess
import threading
import time

from cluster import PARTITIONS, ROOT, cluster_of, until
from server import PROGRAM
from test_cluster import (
    any_node_takes_what_another_leads, assert_done, figures, partition_of, submit_until_taken, told)

# Several changes of the view, on a machine where other tests run.
CHANGED_S = 40
# A hundred of these fill more than one file of the log.
PARCEL_BYTES = 150_000
# The program of a node that lies when its environment asks for it.
BYZANTINE = os.environ.get("COREFLOW_BYZANTINE", PROGRAM + "-byzantine")


def partitions(node):
    return node.call("cluster.status")["partitions"]


def primaries(node):
    return [each.get("leader") for each in partitions(node)]


def until_led_by_the_living(cluster, but=()):
    """Every node that lives knows of each partition a primary that lives."""
    numbers = {node.number for node in cluster.living()} - {node.number for node in but}
    led = lambda node: set(primaries(node)) <= numbers
    until(lambda: all(led(node) for node in cluster.living() if node not in but),
          "all partitions have primaries that live", CHANGED_S)


def assert_alike(nodes):
    """The nodes have committed the same entries in all partitions, from the first one on: the chain
    is a hash over all of them."""
    heads = {}

    def are_alike():
        heads.clear()
        for node in nodes:
            found = partitions(node)
            assert len(found) == PARTITIONS
            assert not any(each["diverged"] for each in found), (node.number, found)
            heads[node.number] = [(each["committed"], each["chain"]) for each in found]
        return all(head == heads[nodes[0].number] for head in heads.values())

    until(are_alike, "the logs are alike", CHANGED_S)
    return sum(committed for committed, _ in heads[nodes[0].number])


def assert_done_in_time(cluster, tasks):
    """Every task is done for every node, also where views change meanwhile."""
    changing = 0
    for node in cluster.living():
        client = node.client()
        for number, task in tasks.items():
            deadline = time.monotonic() + CHANGED_S
            while True:
                error, view = client.answer(client.ask("task.result", id=task, wait_ms=20_000))
                if error is None:
                    break
                assert error["code"] in ("not_leader", "unavailable"), (node.number, number, error)
                assert time.monotonic() < deadline, (node.number, number, error, partitions(node))
                changing += 1
                time.sleep(0.05)
            said = (view["status"], view.get("result"))
            assert said == ("done", number), (node.number, task, view)
    print(f"{len(tasks)} tasks are done for all; {changing} times a view changed meanwhile")


class Submitter(threading.Thread):
    """Submits tasks to nodes in turn, again until one of them takes each."""

    def __init__(self, nodes, first):
        super().__init__(daemon=True)
        self.nodes, self.number, self.tasks = nodes, first, {}
        self.stopping, self.failed = threading.Event(), None
        self.start()

    def run(self):
        try:
            while not self.stopping.is_set():
                self.submit_one()
        except BaseException as failed:
            self.failed = failed

    def submit_one(self):
        deadline = time.monotonic() + CHANGED_S
        for step in range(1_000_000):
            node = self.nodes[(self.number + step) % len(self.nodes)]
            try:
                client = node.client()
                error, result = client.answer(client.ask(
                    "task.submit", type="echo", payload=self.number, key=f"order-{self.number}"))
            except (OSError, AssertionError):
                error = {"code": "gone"}
            if error is None:
                self.tasks[self.number] = result["id"]
                self.number += 1
                return
            codes = ("not_leader", "unavailable", "gone", "backpressure")
            assert error["code"] in codes, error
            assert time.monotonic() < deadline, f"task {self.number} is not taken: {error}"
            time.sleep(0.02)

    def stop(self):
        """What was acknowledged, by number."""
        self.stopping.set()
        self.join(CHANGED_S + 5)
        if self.failed:
            raise self.failed
        return self.tasks

    def until_more(self, count):
        goal = len(self.tasks) + count
        until(lambda: self.failed or len(self.tasks) >= goal, f"{count} more tasks", CHANGED_S)
        if self.failed:
            raise self.failed


def primaries_are_spread_and_requests_are_finished_by_tentative_answers(cluster):
    until_led_by_the_living(cluster)
    assert set(primaries(cluster.nodes[0])) == {1, 2, 3, 4}
    fast, slow = ([figures(node)[f'coreflow_pbft_finished_total{{path="{path}"}}']
                   for node in cluster.nodes] for path in ("fast", "slow"))
    assert sum(fast) > 0, (fast, slow)
    wrong = [figures(node)["coreflow_pbft_wrong_total"] for node in cluster.nodes]
    assert not any(wrong), f"nobody lies here, and somebody saw lies: {wrong}"
    print(f"finished by tentative answers: {fast}, by committed ones: {slow}")
    text = cluster.cli("status").stdout
    assert "PRIMARY" in text and "agrees" in text and "diverged" not in text, text


def members_never_change(cluster):
    done = cluster.cli("leave", "2", "--timeout", "5", ok=False)
    assert "never join or leave" in done.stderr, done


def a_primary_that_dies_is_replaced_and_comes_back(cluster, tasks):
    """Each node in turn: its partitions go to others, and it catches up when it is back."""
    submitter = Submitter(cluster.nodes, 1000)
    for node in cluster.nodes:
        submitter.until_more(20)
        node.kill()
        until_led_by_the_living(cluster)
        submitter.until_more(20)
        node.start(*node.started_as)
        cluster.until_ready()
    submitter.until_more(20)
    more = submitter.stop()
    tasks.update(more)
    assert_done(cluster, tasks)
    entries = assert_alike(cluster.nodes)
    print(f"{len(tasks)} tasks through four deaths: 0 lost; {entries} entries, the same in all logs")


def a_node_that_stops_gives_its_partitions_up_at_once(cluster):
    node = cluster.nodes[primaries(cluster.nodes[0])[0] - 1]
    began = time.monotonic()
    node.stop()
    until_led_by_the_living(cluster)
    print(f"a node that stops is replaced within {time.monotonic() - began:.2f} s")
    node.start(*node.started_as)
    cluster.until_ready()


def everybody_dies_and_all_is_there(cluster, tasks):
    for node in cluster.living():
        node.kill()
    for node in cluster.nodes:
        node.start(*node.started_as)
    cluster.until_ready()
    until_led_by_the_living(cluster)
    assert_done(cluster, tasks)
    # The key is remembered by whoever leads now.
    for number, task in list(tasks.items())[:20]:
        assert submit_until_taken(cluster.nodes[number % 4], number) == task
    assert_alike(cluster.nodes)


def two_of_four_that_are_gone_stop_everything_and_nothing_is_lost(cluster, tasks):
    """What is not agreed on by three is not acknowledged."""
    for node in cluster.nodes[2:]:
        node.kill()
    client = cluster.nodes[0].client()
    error, result = client.answer(client.ask(
        "task.submit", type="echo", payload=7777, key="order-7777", timeout_ms=1000))
    assert error is not None and error["code"] == "unavailable", (error, result)
    # They say so: nobody is told to be the leader, and a balancer sends its clients elsewhere.
    for node in cluster.nodes[:2]:
        until(lambda: node.get("/readyz")[0] == 503, "a node without a quorum is not ready", CHANGED_S)
        assert primaries(node) == [None] * PARTITIONS, partitions(node)
        assert f"coreflow_cluster_leaderless {PARTITIONS}" in node.get("/metrics")[1]
    for node in cluster.nodes[2:]:
        node.start(*node.started_as)
    cluster.until_ready()
    until_led_by_the_living(cluster)
    # What was asked for then may be agreed on now: it is the same task.
    tasks[7777] = submit_until_taken(cluster.nodes[3], 7777, timeout_ms=1000)
    assert_done(cluster, tasks)
    assert_alike(cluster.nodes)


def the_doctor_finds_their_logs_whole(cluster):
    for node in cluster.living():
        node.stop()
    for node in cluster.nodes:
        words = [PROGRAM, "doctor", "--log", "--folder", str(node.folder)]
        done = subprocess.run(words, capture_output=True, text=True, timeout=120)
        assert done.returncode == 0, done
    print("the doctor finds four whole logs")


def a_node_whose_log_is_lost_does_not_begin_another(cluster):
    """It would vote again on what it has forgotten. All nodes have stopped."""
    node = cluster.nodes[1]
    aside = node.folder.with_name("aside")
    node.folder.rename(aside)
    config, start = node.started_as
    words = [PROGRAM, "serve", "--config", str(config)]
    for setting in (f"cluster.node={node.number}", f"cluster.start={start}", f"log.folder={node.folder}",
                    f"consensus.identity_file={node.identity}"):
        words += ["--set", setting]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.returncode != 0 and "bring the folder back" in plain(done.stderr), done
    shutil.rmtree(node.folder, ignore_errors=True)
    aside.rename(node.folder)
    node.start(config, start)
    node.kill()
    print("a node that has lost its folder, as its key's file says, does not start; with its folder it does")


def a_node_that_lies_changes_nothing(cluster, liar):
    """It equivocates, votes for what nobody ordered, forges and keeps things back, all the time, while
    tasks are submitted to the others. Of four nodes one may be faulty: another one dies when the
    liar has come to its senses."""
    correct = [node for node in cluster.nodes if node is not liar]
    submitter = Submitter(correct, 20_000)
    submitter.until_more(1500)
    wrong = {node.number: sum(each["wrong"] for each in partitions(node)) for node in correct}
    # Each lie was told, and each of the others was lied to and noticed.
    assert set(lies_told(liar)) == set(LIES.split(",")), lies_told(liar)
    assert all(wrong.values()), f"somebody noticed nothing: {wrong}"
    changes = sum(each["view_changes"] for node in correct for each in partitions(node))
    # Its own partitions have other primaries since the first entries that it ordered twice.
    assert changes > 0, "nobody left the view of a primary that orders two entries at one place"
    tasks = submitter.stop()
    entries = assert_alike(correct)
    print(f"{len(tasks)} tasks while a node lied; the others saw {wrong} messages that no correct node "
          f"sends, and left {changes} views; {entries} entries, the same in their logs")
    # From here on it tells the truth.
    liar.kill()
    liar.environment = {}
    liar.start(*liar.started_as)
    cluster.until_ready()
    until_led_by_the_living(cluster)
    assert_alike(cluster.nodes)
    submitter = Submitter(correct, 40_000)
    submitter.until_more(50)
    killed = correct[primaries(correct[0])[0] % len(correct)]
    killed.kill()
    until_led_by_the_living(cluster)
    submitter.until_more(50)
    killed.start(*killed.started_as)
    cluster.until_ready()
    tasks |= submitter.stop()
    assert_done_in_time(cluster, tasks)
    entries = assert_alike(cluster.nodes)
    print(f"{len(tasks)} tasks acknowledged, 0 lost; {entries} entries, the same in all logs")


def a_lying_primary_can_acknowledge_nothing_for_others(cluster, liar):
    """It says of every task that another node hands on that it has accepted it, forgets it, and takes no
    notice of what others ask for. What the doors of the others acknowledge is there for all."""
    correct = [node for node in cluster.nodes if node is not liar]
    until_led_by_the_living(cluster)
    led = [at for at, leader in enumerate(primaries(correct[0])) if leader == liar.number]
    assert led, "the liar leads nothing"
    # This is what a door of another node would have believed.
    client = liar.client()
    made_up = client.call("here.task.submit", type="echo", payload=7, key="never")["id"]
    began = time.monotonic()
    submitter = Submitter(correct, 50_000)
    # Keys are spread over all partitions, also those that the liar leads: they go on without it.
    submitter.until_more(1)
    longest, last = 0, time.monotonic()
    while len(submitter.tasks) < 300:
        count = len(submitter.tasks)
        submitter.until_more(1)
        if len(submitter.tasks) > count:
            longest, last = max(longest, time.monotonic() - last), time.monotonic()
    tasks = submitter.stop()
    assert {partition_of(task) for task in tasks.values()} == set(range(PARTITIONS))
    told_lies = lies_told(liar)
    assert told_lies.get("starve"), told_lies
    client = correct[0].client()
    error, view = client.answer(client.ask("task.status", id=made_up))
    assert error is not None, f"a task that never was: {view}"
    after = primaries(correct[0])
    assert all(after[at] != liar.number for at in led), (led, after)
    liar.kill()
    liar.environment = {}
    liar.start(*liar.started_as)
    cluster.until_ready()
    assert_done_in_time(cluster, tasks)
    entries = assert_alike(cluster.nodes)
    print(f"{len(tasks)} tasks in {last - began:.1f} s beside a primary that acknowledges and forgets; "
          f"the longest wait {longest:.2f} s (a change of the view); 0 lost; {entries} entries alike")


def a_lying_primary_frees_nothing_that_lives(cluster, liar):
    """It says that its whole log is not needed, while tasks wait in it. The others keep them, through a
    start of all of them."""
    correct = [node for node in cluster.nodes if node is not liar]
    until_led_by_the_living(cluster)
    tasks, echoes = {}, 0
    seen = lambda: [node.log.read_text().count("in which something lives") for node in correct]
    deadline = time.monotonic() + 2 * CHANGED_S
    # Nobody takes parcels yet: they wait in the log, in every partition, and fill more than one of its files.
    while not all(seen()):
        for step in range(30 if len(tasks) < 120 else 0):
            number = 70_000 + len(tasks)
            node = correct[number % len(correct)]
            tasks[number] = taken(node, "parcel", number, [number, "x" * PARCEL_BYTES])
        # What runs to its end makes its primary propose.
        for step in range(20):
            echoes += 1
            taken(correct[step % len(correct)], "echo", 60_000_000 + echoes)
        assert time.monotonic() < deadline, f"not seen: {seen()}, {lies_told(liar)}"
    assert lies_told(liar).get("compact"), lies_told(liar)
    believed = seen()
    for node in cluster.nodes:
        node.kill()
    liar.environment = {}
    for node in cluster.nodes:
        node.start(*node.started_as)
    cluster.until_ready()
    until_led_by_the_living(cluster)
    for number, task in tasks.items():
        view = status_of(correct[number % len(correct)], task)
        assert view["status"] == "queued", (number, task, view)
    assert_alike(cluster.nodes)
    print(f"{len(tasks)} tasks wait after a primary said that nothing was needed and all were killed "
          f"(noticed {believed} times); 0 lost")


def a_lying_primary_uses_no_tokens_up(cluster, liar):
    """It reserves all fencing tokens that there are: the others do not accept that, and go on."""
    correct = [node for node in cluster.nodes if node is not liar]
    until_led_by_the_living(cluster)
    submitter = Submitter(correct, 80_000)
    until(lambda: submitter.failed or lies_told(liar).get("tokens"), "it lies", CHANGED_S)
    submitter.until_more(100)
    tasks = submitter.stop()
    liar.kill()
    liar.environment = {}
    liar.start(*liar.started_as)
    cluster.until_ready()
    assert_done_in_time(cluster, tasks)
    assert_alike(cluster.nodes)
    for node in cluster.nodes:
        assert "no fencing tokens any more" not in node.log.read_text(), node.number
    print(f"{len(tasks)} tasks beside a primary that reserves all tokens; 0 lost, no partition stands still")


def a_node_that_asks_in_the_names_of_others_takes_nothing_from_them(cluster, liar):
    """It asks for what others ask for, under the same names, and orders that first where it is the primary.
    Before names were bound to who asks, it took each that it saw, until doors had lost patience."""
    correct = [node for node in cluster.nodes if node is not liar]
    until_led_by_the_living(cluster)
    began, tasks = time.monotonic(), {}
    for step in range(120):
        number = 100_000 + step
        client = correct[step % len(correct)].client()
        # Keys are spread over all partitions, also those that the liar leads.
        tasks[number] = client.call(
            "task.submit", type="echo", payload=number, key=f"order-{number}")["id"]
    took = time.monotonic() - began
    told_lies = lies_told(liar)
    assert told_lies.get("names"), told_lies
    assert_done_in_time_for(correct, cluster, liar, tasks)
    print(f"{len(tasks)} tasks in {took:.1f} s beside a node that asks in their names {told_lies['names']} "
          f"times or more; each was accepted at once and is done")


def a_node_that_asks_for_too_much_leaves_others_their_share(cluster, liar):
    """It asks for many more tasks that nobody does than there is room for. The others take no more from it
    than one node may have, and their own doors go on."""
    correct = [node for node in cluster.nodes if node is not liar]
    until_led_by_the_living(cluster)
    submitter = Submitter(correct, 110_000)
    is_refused = lambda: any("takes up all that one may" in node.log.read_text() for node in correct)
    until(lambda: submitter.failed or is_refused(), f"it is refused: {lies_told(liar)}", CHANGED_S)
    submitter.until_more(200)
    tasks = submitter.stop()
    assert {partition_of(task) for task in tasks.values()} == set(range(PARTITIONS))
    told_lies = lies_told(liar)
    assert_done_in_time_for(correct, cluster, liar, tasks)
    print(f"{len(tasks)} tasks beside a node that asked for 500 at once {told_lies['flood']} times or more, where "
          "there is room for 400; all that doors acknowledged are done")


def a_lying_primary_fills_no_share_of_others(cluster, liar):
    """It orders copies of tasks that never were under requests that each of the others once made, more than
    there is room for. Nobody takes part in that, and their doors go on."""
    correct = [node for node in cluster.nodes if node is not liar]
    until_led_by_the_living(cluster)
    submitter = Submitter(correct, 120_000)
    until(lambda: submitter.failed or lies_told(liar).get("copies"), "it lies", CHANGED_S)
    submitter.until_more(300)
    tasks = submitter.stop()
    assert {partition_of(task) for task in tasks.values()} == set(range(PARTITIONS))
    told_lies = lies_told(liar)
    for node in correct:
        assert "takes up all that one may" not in node.log.read_text(), node.number
    assert_done_in_time_for(correct, cluster, liar, tasks)
    print(f"{len(tasks)} tasks beside a primary that ordered 250 copies in the name of each other node "
          f"{told_lies['copies']} times or more, where there is room for 400; nobody's share is taken up")


def a_primary_that_frees_nothing_and_fills_the_logs_is_left(cluster, liar):
    """Where it leads it never says that anything of the log is not needed, and orders a quarter of a MiB of
    nothing with all that it writes. Without its reign's end the logs of all would grow beyond their limit, and
    every door refuse what is submitted, for ever."""
    correct = [node for node in cluster.nodes if node is not liar]
    until_led_by_the_living(cluster)
    led = [at for at, leader in enumerate(primaries(correct[0])) if leader == liar.number]
    assert led, "the liar leads nothing"
    sizes = lambda: [log_mib(node) for node in correct]
    began, largest, longest, refused = time.monotonic(), [0, 0, 0], 0, 0
    # Half a MiB of log each, with its result: eight times what is kept.
    for number in range(130_000, 130_500):
        asked = time.monotonic()
        while True:
            client = correct[number % len(correct)].client()
            error, _ = client.answer(client.ask(
                "task.submit", type="echo", payload=[number, "x" * 250_000], key=f"order-{number}"))
            if error is None:
                break
            assert error["code"] in ("unavailable", "backpressure"), error
            assert time.monotonic() - asked < 3 * CHANGED_S, (number, error, sizes(), partitions(correct[0]))
            refused += 1
            time.sleep(0.1)
        longest = max(longest, time.monotonic() - asked)
        largest = [max(pair) for pair in zip(largest, sizes())]
    took, told_lies = time.monotonic() - began, lies_told(liar)
    assert told_lies.get("hoard"), told_lies
    after = primaries(correct[0])
    assert all(after[at] != liar.number for at in led), (led, after)
    # What is kept is 32 MiB: submissions alone may double that. All of it together were more than 250.
    assert max(largest) <= 6 * 32, largest
    liar.kill()
    liar.environment = {}
    liar.start(*liar.started_as)
    cluster.until_ready()
    assert_alike(cluster.nodes)
    print(f"500 tasks of half a MiB in {took:.0f} s beside a primary that frees nothing; refused {refused} times, "
          f"the longest wait {longest:.0f} s (its reign's end); logs of at most {largest} MiB, now {sizes()}")


def assert_done_in_time_for(correct, cluster, liar, tasks):
    """The liar tells the truth from here on."""
    liar.kill()
    liar.environment = {}
    liar.start(*liar.started_as)
    cluster.until_ready()
    assert_done_in_time(cluster, tasks)
    assert_alike(cluster.nodes)


def a_door_goes_on_behind_a_silent_primary(cluster):
    """A primary that stands still: what a door of another node was asked for ends with an
    acknowledgement, after the view has changed, and no client has to ask again."""
    until_led_by_the_living(cluster)
    silent = cluster.nodes[primaries(cluster.nodes[0])[0] - 1]
    door = next(node for node in cluster.nodes if node is not silent)
    silent.signal(signal.SIGSTOP)
    try:
        began = time.monotonic()
        client, tasks = door.client(), {}
        for number in range(90_000, 90_030):
            # No key: it may not be submitted twice.
            tasks[number] = client.call("task.submit", type="echo", payload=number)["id"]
        took = time.monotonic() - began
        for number in range(90_030, 90_060):
            tasks[number] = client.call(
                "task.submit", type="echo", payload=number, key=f"order-{number}")["id"]
        assert {partition_of(task) for task in tasks.values()} == set(range(PARTITIONS))
    finally:
        silent.signal(signal.SIGCONT)
    cluster.until_ready()
    assert_done_in_time(cluster, tasks)
    assert_alike(cluster.nodes)
    print(f"{len(tasks)} tasks accepted at once beside a primary that stands still, the first 30 in "
          f"{took:.2f} s; 0 lost")


LIES = "equivocate,vote,forge,withhold"


def lies_told(liar):
    """How often a liar says that it told each lie."""
    found = re.findall(r'this node has lied.*?lie="?(\w+)"?.*?times=(\d+)', plain(liar.log.read_text()))
    return {lie: int(times) for lie, times in found}


def log_mib(node):
    """How long a node's log is on the disk; files come and go meanwhile."""
    words = ["du", "--block-size=1M", "--apparent-size", "--summarize", str(node.folder)]
    return int(subprocess.run(words, capture_output=True, text=True).stdout.split()[0])


def plain(text):
    return re.sub(r"\x1b\[[0-9;]*m", "", text)


def taken(node, agent_type, number, payload=None):
    def answer():
        client = node.client()
        error, result = client.answer(client.ask(
            "task.submit", type=agent_type, payload=payload or number, key=f"order-{number}"))
        assert error is None or error["code"] in ("not_leader", "unavailable"), error
        return result and result["id"]
    return until(answer, f"task {number} is taken", CHANGED_S)


def status_of(node, task):
    def answer():
        client = node.client()
        error, view = client.answer(client.ask("task.status", id=task))
        assert error is None or error["code"] in ("not_leader", "unavailable"), (task, error)
        return view
    return until(answer, f"the status of {task}", CHANGED_S)


def liar_of(cluster, lies=LIES):
    """The last node runs a program that lies. There is little room where it fills that."""
    if lies in ("flood", "copies"):
        text = cluster.config.read_text()
        room = "queue_primary = 100\nqueue_overflow = 300\n"
        cluster.config.write_text(text.replace("[tasks]\n", "[tasks]\n" + room))
    if lies == "hoard":
        text = cluster.config.read_text()
        # Results that are remembered are needed.
        text = text.replace("[tasks]\n", "[tasks]\nretained = 5\n")
        cluster.config.write_text(text.replace("segment_mib = 8\n", "segment_mib = 8\nkeep_mib = 32\n"))
    liar = cluster.nodes[-1]
    liar.program, liar.environment = BYZANTINE, {"COREFLOW_LIES": lies}


def main():
    with cluster_of(4, agrees=True) as cluster:
        tasks = told(any_node_takes_what_another_leads, cluster)
        told(primaries_are_spread_and_requests_are_finished_by_tentative_answers, cluster)
        told(members_never_change, cluster)
        told(a_primary_that_dies_is_replaced_and_comes_back, cluster, tasks)
        told(a_node_that_stops_gives_its_partitions_up_at_once, cluster)
        told(everybody_dies_and_all_is_there, cluster, tasks)
        told(two_of_four_that_are_gone_stop_everything_and_nothing_is_lost, cluster, tasks)
        told(the_doctor_finds_their_logs_whole, cluster)
        told(a_node_whose_log_is_lost_does_not_begin_another, cluster)
    with cluster_of(4, agrees=True) as cluster:
        told(a_door_goes_on_behind_a_silent_primary, cluster)
    if not os.path.exists(BYZANTINE):
        print(f"a node that lies: skipped, there is no program that does ({BYZANTINE}: "
              "cargo build --features byzantine)")
        return
    with cluster_of(4, agrees=True, prepare=liar_of) as cluster:
        told(a_node_that_lies_changes_nothing, cluster, cluster.nodes[-1])
        told(the_doctor_finds_their_logs_whole, cluster)
    for lies, test in (
        ("starve,acknowledge", a_lying_primary_can_acknowledge_nothing_for_others),
        ("compact", a_lying_primary_frees_nothing_that_lives),
        ("tokens", a_lying_primary_uses_no_tokens_up),
        ("names", a_node_that_asks_in_the_names_of_others_takes_nothing_from_them),
        ("flood", a_node_that_asks_for_too_much_leaves_others_their_share),
        ("copies", a_lying_primary_fills_no_share_of_others),
        ("hoard", a_primary_that_frees_nothing_and_fills_the_logs_is_left),
    ):
        prepare = lambda cluster, lies=lies: liar_of(cluster, lies)
        with cluster_of(4, agrees=True, prepare=prepare) as cluster:
            told(test, cluster, cluster.nodes[-1])


if __name__ == "__main__":
    main()
