"""The Model Context Protocol with the official client of the era of `server/discover`."""

import asyncio
import hashlib

from mcp import Client
from server import serving

TOOLS = {"task_create", "task_status", "task_result", "agent_list", "swarm_status",
         "memory_store", "memory_search"}


async def use(url, mode):
    async with Client(url, mode=mode) as client:
        tools = (await client.list_tools()).tools
        assert TOOLS <= {tool.name for tool in tools}, tools

        async def call(name, **arguments):
            answer = await client.call_tool(name, arguments)
            assert not answer.is_error, answer
            return answer.structured_content

        created = await call("task_create", type="sha256", payload="abc")
        ended = await call("task_result", id=created["id"], wait_ms=10000)
        assert ended["result"] == hashlib.sha256(b"abc").hexdigest(), ended
        assert (await call("task_status", id=created["id"]))["status"] == "done"
        agents = (await call("agent_list"))["agents"]
        assert {"words", "sha256"} <= {agent["type"] for agent in agents}, agents
        assert (await call("swarm_status"))["accepting"] is True
        stored = await call("memory_store", text="Tests must not depend on their order")
        hits = (await call("memory_search", text="order of the tests", k=1))["hits"]
        assert hits[0]["key"] == stored["key"], hits
        assert (await call("memory_delete", key=stored["key"]))["deleted"] is True
        refused = await client.call_tool("task_create", {"type": "nope", "payload": 1})
        assert refused.is_error and "words" in str(refused.content), refused
        return client.protocol_version


async def main():
    with serving() as server:
        for mode in ("auto", "legacy"):
            version = await asyncio.wait_for(use(server.url + "/mcp", mode), 60)
            print("ok", mode, version)
            expected = {"auto": "2026-07-28", "legacy": "2025-11-25"}[mode]
            assert version == expected, version


asyncio.run(main())
