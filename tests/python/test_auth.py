"""A node that asks for a token: who does not know it gets nothing, who does gets everything."""

import asyncio
import os
import pathlib
import secrets
import subprocess
import tempfile
import urllib.error
import urllib.request

from client import Client
from mcp import ClientSession
from mcp.client.streamable_http import streamablehttp_client
from server import PROGRAM, ROOT, serving

WAIT_S = 30
TOKEN = secrets.token_hex(16)


def file_with(folder, text, mode=0o600, name="token"):
    path = pathlib.Path(folder) / name
    path.write_text(text)
    path.chmod(mode)
    return path


def get(server, path, **headers):
    """The status, what is asked for, and the text."""
    request = urllib.request.Request(server.url + path, headers=headers)
    try:
        with urllib.request.urlopen(request, timeout=WAIT_S) as answer:
            return answer.status, None, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.headers["www-authenticate"], error.read().decode()


def coreflow(server, *words, token_file=None):
    settings = ["--set", f"server.token_file={token_file}"] if token_file else []
    address = "%s:%d" % server.rpc
    return subprocess.run(
        [PROGRAM, *words, "--connect", address, *settings],
        cwd=ROOT, capture_output=True, text=True, timeout=WAIT_S,
    )


def rpc(server, _):
    stranger = Client(server)
    for method, params in (
        ("task.submit", {"type": "echo", "payload": 1}),
        ("node.stats", {}),
        ("worker.register", {"types": ["echo"], "capacity": 1}),
        ("auth", {"token": TOKEN[:-1] + ("0" if TOKEN[-1] != "0" else "1")}),
    ):
        error, result = stranger.answer(stranger.ask(method, **params))
        assert (error["code"], result) == ("unauthorized", None), (method, error)
    assert stranger.call("auth", token=TOKEN) == {}
    assert stranger.call("node.stats")["totals"]["tasks_accepted"] == 0

    guest = Client(server, TOKEN)
    task = guest.call("task.submit", type="echo", payload=1)["id"]
    assert guest.call("task.result", id=task, wait_ms=10000)["result"] == 1
    for _ in range(5):
        error, _ = guest.answer(guest.ask("auth", token="guess"))
        assert error["code"] == "unauthorized", error
    try:
        guest.call("node.stats")
    except (AssertionError, OSError):
        pass
    else:
        raise AssertionError("a connection that guesses goes on")


def http(server, _):
    for path in ("/healthz", "/readyz"):
        assert get(server, path)[0] == 200, path
    for path in ("/", "/metrics", "/stats.json", "/mcp", "/nothing"):
        for headers in ({}, {"Authorization": "Bearer guess"}, {"Authorization": TOKEN}):
            status, asks_for, text = get(server, path, **headers)
            assert (status, asks_for) == (401, "Bearer"), (path, status)
            assert "unauthorized" in text and TOKEN not in text, text
    right = {"Authorization": "Bearer " + TOKEN}
    assert "coreflow_" in get(server, "/metrics", **right)[2]
    # The listener is for other machines too, which call the node by a name of theirs.
    assert get(server, "/stats.json", Host="node.example:7451", **right)[0] == 200
    page = {"Host": "node.example:7451", "Origin": "http://evil.example"}
    assert get(server, "/stats.json", **page, **right)[0] == 403


async def use_mcp(server, headers):
    async with streamablehttp_client(server.url + "/mcp", headers=headers) as (read, write, _):
        async with ClientSession(read, write) as session:
            await session.initialize()
            return await session.call_tool("swarm_status", {})


def mcp(server, _):
    right = {"Authorization": "Bearer " + TOKEN}
    answer = asyncio.run(asyncio.wait_for(use_mcp(server, right), WAIT_S))
    assert not answer.isError and answer.structuredContent["accepting"] is True, answer
    try:
        asyncio.run(asyncio.wait_for(use_mcp(server, {}), WAIT_S))
    except BaseExceptionGroup as refused:
        assert "401" in str(refused.exceptions) or "401" in repr(refused), refused
    else:
        raise AssertionError("MCP without a token was served")


def command_line(server, folder):
    right = file_with(folder, TOKEN + "\n")
    submit = ("task", "submit", "echo", "7")
    done = coreflow(server, *submit, token_file=right)
    assert done.returncode == 0 and done.stdout.startswith("t"), done
    assert coreflow(server, "agent", "list", token_file=right).returncode == 0
    without = coreflow(server, *submit)
    assert without.returncode == 1 and "server.token_file" in without.stderr, without
    wrong = file_with(folder, secrets.token_hex(16), name="wrong")
    other = coreflow(server, *submit, token_file=wrong)
    assert other.returncode == 1 and "not the token" in other.stderr, other
    for mode, text, problem in ((0o644, TOKEN, "chmod o="), (0o600, "short", "5 bytes")):
        unfit = coreflow(server, *submit, token_file=file_with(folder, text, mode, "unfit"))
        assert unfit.returncode == 2 and problem in unfit.stderr, unfit
    # The token stands in no message.
    assert not any(TOKEN in ran.stderr + ran.stdout for ran in (done, without, other))


def bad_files_and_open_doors_do_not_start(folder):
    short = file_with(folder, "0123456789", name="short")
    for settings, problem in (
        ([f"server.token_file={short}"], "10 bytes are too few"),
        ([f"server.token_file={folder}/none"], "cannot be read"),
        (["server.rpc_address=0.0.0.0:0"], "together with server.token_file"),
        (["server.http_address=0.0.0.0:0"], "together with server.token_file"),
    ):
        words = [word for setting in settings for word in ("--set", setting)]
        ran = subprocess.run(
            [PROGRAM, "serve", "--set", f"log.folder={folder}/log", *words],
            cwd=ROOT, capture_output=True, text=True, timeout=WAIT_S,
        )
        assert ran.returncode == 2 and problem in ran.stderr + ran.stdout, ran
    assert not os.path.exists(f"{folder}/log"), "a start that was refused began a log"


def main():
    with tempfile.TemporaryDirectory(prefix="coreflow-") as folder:
        token = file_with(folder, f"  {TOKEN}\n")
        addresses = ("server.rpc_address=0.0.0.0:0", "server.http_address=0.0.0.0:0")
        with serving(*addresses, f"server.token_file={token}") as server:
            for test in (rpc, http, mcp, command_line):
                test(server, folder)
                print("ok", test.__name__)
        bad_files_and_open_doors_do_not_start(folder)
        print("ok", bad_files_and_open_doors_do_not_start.__name__)


main()
