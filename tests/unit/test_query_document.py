"""docs/query.md is held to the product: its examples run, and its tables of operators and relations are complete."""

import re
import shlex
from collections.abc import AsyncIterator
from urllib.parse import quote

import pytest
from aiohttp.test_utils import TestClient, TestServer

from core.model import COLLECTIONS, LINKS, kind_of
from raftstate.state.query_text import OPERATORS
from tests.api import ADMIN, app_of
from tests.one_member import founded
from tests.tidy import ROOT
from tools.cli.parser import Root
from tools.cli.query_language import parse_query

DOCUMENT = (ROOT / "docs/query.md").read_text()
BLOCKS = "\n".join(re.findall(r"^```\n(.*?)^```", DOCUMENT, re.DOTALL | re.MULTILINE)).splitlines()
COMMANDS = [line for line in BLOCKS if line.startswith("kvorum ")]
REQUESTS = [line.removeprefix("GET ") for line in BLOCKS if line.startswith("GET ")]


@pytest.fixture
async def api() -> AsyncIterator[TestClient]:
    member = await founded()
    await member.add_vm("web1", memory_mib=16384)
    await member.add_image()
    async with TestClient(TestServer(app_of(member)), headers=ADMIN) as client:
        yield client


def test_there_are_examples():
    assert len(COMMANDS) >= 8
    assert len(REQUESTS) >= 4
    assert len(COMMANDS) + len(REQUESTS) == len(list(filter(None, BLOCKS)))


@pytest.mark.parametrize("command", COMMANDS)
async def test_the_commands_ask_what_an_agent_answers(api, command):
    args = Root().parse(shlex.split(command)[1:])
    if args.noun == "query":
        asked = parse_query(" ".join(args.query))
        plural, conditions, fields = asked.plural, asked.conditions, args.fields
    else:
        plural, conditions, fields = "vms", args.query, ""
    params = [("q", condition) for condition in conditions]
    params += [("sort", args.sort)] if args.sort else []
    params += [("fields", fields)] if fields else []
    response = await api.get(f"/v1/{plural}", params=params)
    assert response.status == 200, await response.text()


@pytest.mark.parametrize("path", REQUESTS)
async def test_the_requests_are_answered(api, path):
    response = await api.get(quote(path, safe="/?&=,-"))
    answer = await response.json()
    assert response.status == 200, answer
    assert isinstance(answer["items"], list)
    assert ("count" in answer, "plan" in answer) == ("count=1" in path, "explain=1" in path)


def test_every_operator_is_explained():
    table = DOCUMENT.partition("## Operators")[2].partition("## Attributes")[0]
    explained = set(re.findall(r"`a ?([^\w\s]+(?:is:null)?|is:null)", table))
    assert explained == {sign for sign, _ in OPERATORS}


def test_every_relation_is_in_the_table():
    rows = re.findall(r"^\| `([a-z-]+)` \| (.*?)\| (.*?)\|$", DOCUMENT, re.MULTILINE)
    told = {
        plural: [sorted(re.findall("`([a-z_]+)`", cell)) for cell in cells]
        for plural, *cells in rows
    }
    for plural, type_ in COLLECTIONS.items():
        links = LINKS[kind_of(type_)].values()
        expected = [
            sorted(link.name for link in links if link.many == many) for many in (False, True)
        ]
        assert told.get(plural, [[], []]) == expected, plural
