#!/usr/bin/env python3
"""An agent in a child process: counts the words of a text.

It reads one JSON object a line on standard input,
    {"id", "attempt", "type", "payload", "deadline_ms"}
and writes one a line on standard output,
    {"id", "result"}  or  {"id", "error", "retry"}
Anything else on standard output counts as a failed attempt; standard error goes to the log.
"""

import json
import sys


def answer(task):
    text = task["payload"]
    if not isinstance(text, str):
        # Another attempt would meet the same payload.
        return {"id": task["id"], "error": "the payload is not a text", "retry": False}
    return {"id": task["id"], "result": {"words": len(text.split())}}


for line in sys.stdin:
    print(json.dumps(answer(json.loads(line))), flush=True)
