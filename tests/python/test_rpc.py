"""MessagePack-RPC with a client from the package index, and by hand where that client cannot."""

import asyncio
import hashlib

import aio_msgpack_rpc
import msgpack
from server import serving


async def client(server):
    reader, writer = await asyncio.open_connection(*server.rpc)
    return aio_msgpack_rpc.Client(reader, writer, response_timeout=30)


async def fails(code, call):
    try:
        await call
    except Exception as error:  # the client's own class wraps what the server said
        assert code in str(error), f"expected {code}, got {error}"
        return str(error)
    raise AssertionError(f"expected the error {code}")


async def tasks(server):
    rpc = await client(server)
    submitted = await rpc.call("task.submit", {"type": "sha256", "payload": "abc"})
    ended = await rpc.call("task.result", {"id": submitted["id"], "wait_ms": 10000})
    assert ended["status"] == "done" and ended["attempts"] == 1, ended
    assert ended["result"] == hashlib.sha256(b"abc").hexdigest()
    status = await rpc.call("task.status", {"id": submitted["id"]})
    assert status["status"] == "done", status

    words = {"type": "words", "payload": "one two three"}
    batch = [words, {"type": "echo", "payload": {"a": [1, None, b"\x00\xff"]}}]
    ids = (await rpc.call("task.submit_batch", {"tasks": batch}))["ids"]
    first, second = [await rpc.call("task.result", {"id": i, "wait_ms": 10000}) for i in ids]
    assert first["result"] == {"words": 3}, first
    assert second["result"] == {"a": [1, None, b"\x00\xff"]}, second

    wrong = await rpc.call("task.submit", {"type": "words", "payload": 7})
    dead = await rpc.call("task.result", {"id": wrong["id"], "wait_ms": 10000})
    assert dead["status"] == "dead" and "not a text" in dead["error"], dead


async def cancel(server):
    rpc = await client(server)
    slow = await rpc.call("task.submit", {"type": "sleep", "payload": {"ms": 60000}})
    await rpc.call("task.cancel", {"id": slow["id"]})
    ended = await rpc.call("task.result", {"id": slow["id"], "wait_ms": 10000})
    assert ended["status"] == "cancelled", ended


async def pipelining(server):
    rpc = await client(server)
    submit = (rpc.call("task.submit", {"type": "echo", "payload": n}) for n in range(200))
    ids = [submitted["id"] for submitted in await asyncio.gather(*submit)]
    assert len(set(ids)) == 200
    results = (rpc.call("task.result", {"id": i, "wait_ms": 10000}) for i in ids)
    assert [ended["result"] for ended in await asyncio.gather(*results)] == list(range(200))


async def agents_and_stats(server):
    rpc = await client(server)
    agents = (await rpc.call("agent.list", {}))["agents"]
    assert {"words", "echo", "sha256", "sleep"} <= {agent["type"] for agent in agents}, agents
    echoes = (await rpc.call("agent.list", {"type": "echo"}))["agents"]
    assert echoes and {agent["type"] for agent in echoes} == {"echo"}, echoes
    stats = await rpc.call("node.stats", {})
    assert stats["accepting"] is True and len(stats["cores"]) >= 1, stats


async def errors(server):
    rpc = await client(server)
    said = await fails("not_found", rpc.call("task.submit", {"type": "nope", "payload": 1}))
    assert "words" in said, f"the error lists the types there are: {said}"
    await fails("invalid", rpc.call("task.submit", {"payload": 1}))
    await fails("not_found", rpc.call("task.status", {"id": "t0-" + "0" * 32}))
    await fails("invalid", rpc.call("task.status", {"id": "what"}))
    await fails("", rpc.call("no.such.method", {}))
    large = {"type": "echo", "payload": b"x" * (2 << 20)}
    await fails("too_large", rpc.call("task.submit", large))


async def a_frame_in_single_bytes(server):
    reader, writer = await asyncio.open_connection(*server.rpc)
    for byte in msgpack.packb([0, 9, "task.submit", [{"type": "echo", "payload": "slowly"}]]):
        writer.write(bytes([byte]))
        await writer.drain()
    unpacker = msgpack.Unpacker()
    while True:
        unpacker.feed(await asyncio.wait_for(reader.read(4096), 30))
        for message in unpacker:
            assert message[:3] == [1, 9, None] and "id" in message[3], message
            writer.close()
            return


async def main():
    with serving() as server:
        for test in (
            tasks, cancel, pipelining, agents_and_stats, errors, a_frame_in_single_bytes
        ):
            await asyncio.wait_for(test(server), 60)
            print("ok", test.__name__)


asyncio.run(main())
