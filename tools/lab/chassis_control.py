"""What a simulated management board runs to read and switch its host's power: `chassis_control SOCKET HOST get|set …`.

The simulator asks `get power` and says `set power 0|1`, or `set reset 1`; it reads lines `name:value`. Answers come from the lab's power
controller. Standard library only: it runs for every question.
"""

from __future__ import annotations

import json
import socket
import sys

VERBS = {("power", "0"): "off", ("power", "1"): "on", ("reset", "1"): "reset"}


def main() -> int:
    """Answer one question."""
    path, host, act, *words = sys.argv[1:]
    if act == "get":
        for name in words:
            value = int(_ask(path, host, "status") == "on") if name == "power" else 0
            print(f"{name}:{value}")
        return 0
    verb = VERBS.get((words[0], words[1])) if len(words) > 1 else None
    if act == "set" and verb is not None:
        _ask(path, host, verb)
        return 0
    return 1


def _ask(path: str, host: str, verb: str) -> str:
    with socket.socket(socket.AF_UNIX) as line:
        line.connect(path)
        line.sendall(json.dumps({"verb": verb, "host": host}).encode() + b"\n")
        with line.makefile() as answers:
            answer = json.loads(answers.readline())
    if answer.get("error"):
        raise SystemExit(answer["error"])
    return str(answer.get("power", "off"))


if __name__ == "__main__":
    sys.exit(main())
