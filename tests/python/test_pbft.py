"""Four real nodes that agree by PBFT: any of them takes what a client asks, one of them may die at any
time, and what one acknowledged is there for all others, who have the same log."""

import shutil
import signal
import subprocess
import time

from agreed import (
    CHANGED_S, Submitter, assert_alike, assert_done_in_time, partitions, plain, primaries,
    the_doctor_finds_their_logs_whole, until_led_by_the_living)
from cluster import PARTITIONS, ROOT, cluster_of, until
from server import PROGRAM
from test_cluster import (
    any_node_takes_what_another_leads, assert_done, figures, partition_of, submit_until_taken, told)


def primaries_are_spread_and_requests_are_finished_by_tentative_answers(cluster):
    until_led_by_the_living(cluster)
    assert set(primaries(cluster.nodes[0])) == {1, 2, 3, 4}
    for node in cluster.nodes:
        # What a primary proposes itself counts as well: of the others it is what their doors ask for.
        others = [at for at, leader in enumerate(primaries(node)) if leader != node.number]
        finished = lambda path: sum(partitions(node)[at][path] for at in others)
        before = finished("fast"), finished("slow")
        for step in range(24):
            number = 1_000_000 * node.number + step
            node.call("task.submit", type="echo", payload=number, key=f"order-{number}")
        after = finished("fast"), finished("slow")
        assert after[0] > before[0] and sum(after) >= sum(before) + 6, (before, after)
    fast, slow = ([figures(node)[f'coreflow_pbft_finished_total{{path="{path}"}}']
                   for node in cluster.nodes] for path in ("fast", "slow"))
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


if __name__ == "__main__":
    main()
