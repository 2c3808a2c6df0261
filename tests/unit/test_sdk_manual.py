"""The development manual is true: every example is run against an agent's API, and prints what the page says.

Examples of a page share one cluster, and are run from top to bottom: Python as it stands, `curl` by curl, `kvorum` by the
command. What follows as `text` or `json` is what comes out; `…` stands for anything.
"""

import asyncio
import json
import os
import re
import subprocess
from dataclasses import dataclass

import pytest

from core.model import Event
from tests.golden.cli.cases import kvorum
from tests.served_member import obedient_host, served
from tests.tidy import ROOT

PAGES = sorted((ROOT / "docs/development").glob("*.md"))
FENCED = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
RUN = {"python", "sh"}
TIMEOUT_S = 15


@dataclass(frozen=True)
class Example:
    """A block to run, and the block after it, if that is what comes out."""

    language: str
    code: str
    line: int
    output: str
    output_language: str


def examples_of(text):
    """Return what of a page is run."""
    blocks = [(m[1], m[2], text[: m.start()].count("\n") + 2, m) for m in FENCED.finditer(text)]
    found = []
    for number, (language, code, line, match) in enumerate(blocks):
        if language not in RUN:
            continue
        after = blocks[number + 1] if number + 1 < len(blocks) else None
        follows = after and not text[match.end() : after[3].start()].strip()
        told = after[:2] if follows and after[0] not in RUN else ("", "")
        found.append(Example(language, code, line, told[1], told[0]))
    return found


def test_every_block_of_the_manual_is_run_or_said_to_be_a_text():
    pages = {page: page.read_text() for page in PAGES}
    languages = {m[1] for text in pages.values() for m in FENCED.finditer(text)}
    assert languages == {"python", "sh", "text", "json"}
    assert sum(len(examples_of(text)) for text in pages.values()) > 25


@pytest.mark.timeout(60)
@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
async def test_the_examples_of_a_page_do_what_it_says(page, member, monkeypatch, capsys, tmp_path):
    await member.add_image("debian-12")
    event = Event(
        id="e1",
        name="e1",
        code="vm-started",
        subject="vm/x",
        subject_name="web1",
        message="started on h1",
    )
    await member.store.apply(puts=(event,))
    async with served(member) as agent, obedient_host(member):
        for name, value in {**agent.environ, "HOME": str(tmp_path)}.items():
            monkeypatch.setenv(name, value)
        monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
        for example in examples_of(page.read_text()):
            where = f"{page.name}:{example.line}"
            async with asyncio.timeout(TIMEOUT_S):
                said = await asyncio.to_thread(run, example, where, agent, capsys)
            if example.output_language == "json":
                assert fits(json.loads(example.output), json.loads(said)), f"{where}: {said}"
            elif example.output:
                assert re.fullmatch(pattern(example.output), said), f"{where}: {said}"


def run(example, where, agent, capsys):
    """Run an example; return what it prints."""
    if example.language == "python":
        program = compile(example.code, where, "exec", dont_inherit=True)
        exec(program, {"__name__": "__main__"})  # noqa: S102 - it is our own manual
        return capsys.readouterr().out
    return "".join(run_line(line, where, agent) for line in example.code.splitlines())


def run_line(line, where, agent):
    if line.startswith("kvorum "):
        environ = {**os.environ, **agent.environ}
        done = kvorum(line.removeprefix("kvorum "), agent.address, environ=environ)
        assert done.code == 0, f"{where}: {line}: {done.err}"
        return done.out
    assert line.startswith("curl "), f"{where}: only curl and kvorum can be run: {line}"
    # The page is about root on a host, or a host called h1; here it is a token, and an address.
    here = line.replace("http://kvorum", f"https://{agent.address}")
    here = here.replace("https://h1:7443", f"https://{agent.address}")
    here = here.replace(
        "--unix-socket /run/kvorum/api.sock", f'-k -H "Authorization: Bearer {agent.token}"'
    )
    here = here.replace("--cacert ca.pem", f"--cacert {agent.ca_file} -k")
    done = subprocess.run(
        ["bash", "-c", f"{here} -w '\\n%{{http_code}}'"],
        env={**agent.environ, "PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
        check=True,
        timeout=TIMEOUT_S,
    )
    body, _, status = done.stdout.rpartition("\n")
    problem = '"code"' in body and int(status) >= 400
    assert int(status) < 400 or problem, f"{where}: {line}: {status}"
    return body


def pattern(expected):
    """Return the regular expression of an output: `…` is anything, alone in a line any lines."""
    lines = [
        r"(?:.*\n)*?" if line == "…" else re.escape(line).replace("…", ".*") + r"\n"
        for line in expected.splitlines()
    ]
    return "".join(lines)


def fits(expected, found):
    """Tell whether JSON is as expected; an object may have more."""
    match expected, found:
        case "…", _:
            return True
        case dict(), dict():
            return all(key in found and fits(value, found[key]) for key, value in expected.items())
        case list(), list():
            return len(expected) == len(found) and all(map(fits, expected, found))
    return expected == found


def test_a_page_that_says_something_else_is_noticed():
    (example,) = examples_of("x\n```python\nprint(1)\n```\n\n```text\n2\n```\n")
    assert (example.output, example.line) == ("2\n", 3)
    assert not re.fullmatch(pattern(example.output), "1\n")
    assert re.fullmatch(pattern("a …\n…\nz\n"), "a b\nc\nd\nz\n")
    assert fits({"a": ["…"]}, {"a": [1], "b": 2})
    assert not fits({"a": 1}, {"a": 2})
