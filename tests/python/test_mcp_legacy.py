"""The Model Context Protocol with the official client of the era of `initialize`."""

import asyncio
import hashlib
import sys

from mcp import ClientSession, StdioServerParameters
from mcp.client.stdio import stdio_client
from mcp.client.streamable_http import streamablehttp_client
from server import PROGRAM, ROOT, serving

TOOLS = {"task_create", "task_status", "task_result", "agent_list", "swarm_status"}


async def use(session):
    said = await session.initialize()
    assert said.serverInfo.name == "coreflow", said
    tools = (await session.list_tools()).tools
    assert TOOLS <= {tool.name for tool in tools}, tools
    assert all(tool.inputSchema["type"] == "object" and tool.description for tool in tools)

    async def call(name, **arguments):
        answer = await session.call_tool(name, arguments)
        assert not answer.isError, answer
        return answer.structuredContent

    created = await call("task_create", type="sha256", payload="abc")
    ended = await call("task_result", id=created["id"], wait_ms=10000)
    assert ended["status"] == "done", ended
    assert ended["result"] == hashlib.sha256(b"abc").hexdigest(), ended
    assert (await call("task_status", id=created["id"]))["status"] == "done"
    words = await call("task_create", type="words", payload="one two three")
    ended = await call("task_result", id=words["id"], wait_ms=10000)
    assert ended["result"] == {"words": 3}, ended
    agents = (await call("agent_list"))["agents"]
    assert {"words", "sha256"} <= {agent["type"] for agent in agents}, agents
    assert (await call("swarm_status"))["accepting"] is True

    for arguments in ({}, {"type": "nope", "payload": 1}, {"type": 7, "payload": 1}):
        refused = await session.call_tool("task_create", arguments)
        assert refused.isError and refused.content[0].text, refused
    gone = await session.call_tool("task_status", {"id": "t0-" + "0" * 32})
    assert gone.isError and "not_found" in str(gone), gone


async def http():
    with serving() as server:
        async with streamablehttp_client(server.url + "/mcp") as (read, write, _):
            async with ClientSession(read, write) as session:
                await use(session)


async def stdio():
    words = ["mcp", "--config", "examples/exec.toml"]
    server = StdioServerParameters(command=PROGRAM, args=words, cwd=ROOT)
    async with stdio_client(server, errlog=sys.stderr) as (read, write):
        async with ClientSession(read, write) as session:
            await use(session)


for test in (http, stdio):
    asyncio.run(asyncio.wait_for(test(), 120))
    print("ok", test.__name__)
