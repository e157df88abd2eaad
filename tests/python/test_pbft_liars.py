"""Four real nodes that agree by PBFT, one of which lies: what the doors of the others acknowledge is there for
all of them, and they go on."""

import os
import re
import subprocess
import sys
import time

from agreed import (
    CHANGED_S, Submitter, assert_alike, assert_done_in_time, partitions, plain, primaries,
    the_doctor_finds_their_logs_whole, until_led_by_the_living)
from cluster import PARTITIONS, cluster_of, until
from server import PROGRAM
from test_cluster import partition_of, told

# A hundred of these fill more than one file of the log.
PARCEL_BYTES = 150_000
# The program of a node that lies when its environment asks for it.
BYZANTINE = os.environ.get("COREFLOW_BYZANTINE", PROGRAM + "-byzantine")
LIES = "equivocate,vote,forge,withhold"


def a_node_that_lies_changes_nothing(cluster, liar):
    """It equivocates, votes for what nobody ordered, forges and keeps things back, all the time, while
    tasks are submitted to the others. Of four nodes one may be faulty: another one dies when the
    liar has come to its senses."""
    correct = [node for node in cluster.nodes if node is not liar]
    submitter = Submitter(correct, 20_000)
    submitter.until_more(1500)
    until(lambda: submitter.failed or set(lies_told(liar)) == set(LIES.split(",")), "it lies", CHANGED_S)
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


def their_logs_are_whole(cluster, _):
    the_doctor_finds_their_logs_whole(cluster)


def a_lying_primary_can_acknowledge_nothing_for_others(cluster, liar):
    """It says of every task that another node hands on that it has accepted it, forgets it, and takes no
    notice of what others ask for. What the doors of the others acknowledge is there for all."""
    correct = [node for node in cluster.nodes if node is not liar]
    led = led_by(cluster, liar)
    assert led, "it led something at first"
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
    led = led_by(cluster, liar)
    assert led, "it led something at first"
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


def led_by(cluster, liar):
    """The partitions that it leads. Each node leads some at the start, unless it was late: the others went on
    to the next one then."""
    until_led_by_the_living(cluster)
    correct = next(node for node in cluster.nodes if node is not liar)
    return [at for at, leader in enumerate(primaries(correct)) if leader == liar.number]


def beside_a_liar(lies, *tests):
    """Runs tests in a cluster in which a node tells these lies, and leads something at first."""
    for attempt in range(4):
        with cluster_of(4, agrees=True, prepare=lambda cluster: liar_of(cluster, lies)) as cluster:
            if not led_by(cluster, cluster.nodes[-1]):
                print("the liar was late and leads nothing: once more")
                continue
            for test in tests:
                told(test, cluster, cluster.nodes[-1])
            return
    raise AssertionError("the liar led nothing, four times")


def lies_told(liar):
    """How often a liar says that it told each lie."""
    found = re.findall(r'this node has lied.*?lie="?(\w+)"?.*?times=(\d+)', plain(liar.log.read_text()))
    return {lie: int(times) for lie, times in found}


def log_mib(node):
    """How long a node's log is on the disk; files come and go meanwhile."""
    words = ["du", "--block-size=1M", "--apparent-size", "--summarize", str(node.folder)]
    return int(subprocess.run(words, capture_output=True, text=True).stdout.split()[0])


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


def liar_of(cluster, lies):
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
    if not os.path.exists(BYZANTINE):
        # scripts/test.sh builds it: it skips what a machine lacks, and nothing that it makes itself.
        sys.exit(f"no node lies, so nothing is tested: {BYZANTINE} is not there. Make it with cargo build "
                 "--profile checked --features byzantine, and name it with COREFLOW_BYZANTINE=target/checked/coreflow")
    beside_a_liar(LIES, a_node_that_lies_changes_nothing, their_logs_are_whole)
    for lies, test in (
        ("starve,acknowledge", a_lying_primary_can_acknowledge_nothing_for_others),
        ("compact", a_lying_primary_frees_nothing_that_lives),
        ("tokens", a_lying_primary_uses_no_tokens_up),
        ("names", a_node_that_asks_in_the_names_of_others_takes_nothing_from_them),
        ("flood", a_node_that_asks_for_too_much_leaves_others_their_share),
        ("copies", a_lying_primary_fills_no_share_of_others),
        ("hoard", a_primary_that_frees_nothing_and_fills_the_logs_is_left),
    ):
        beside_a_liar(lies, test)


if __name__ == "__main__":
    main()
