"""`kvorum explain` against a real agent's API: kinds, attributes, structures, relations, and wrong words."""

import asyncio
import json

import pytest
from aiohttp import web

from nodeagent.api.app import serve_unix
from tests.api import app_of
from tests.golden.cli.cases import kvorum


@pytest.fixture
async def types(member, tmp_path):
    """Return what types a command as root on the host."""
    runner = web.AppRunner(app_of(member))
    await runner.setup()
    await serve_unix(runner, tmp_path / "api.sock")
    address = f"unix:{tmp_path}/api.sock"
    yield lambda command: asyncio.to_thread(kvorum, command, address)
    await runner.cleanup()


def lines_with(text: str, start: str) -> list[list[str]]:
    return [line.split() for line in text.splitlines() if line.startswith(start)]


async def test_a_kind_is_explained_with_attributes_and_relations(types):
    said = await types("explain vm")
    assert (said.code, said.err) == (0, "")
    assert said.out.startswith("vm (vms)\nA virtual machine.\n")
    memory = lines_with(said.out, "memory_mib ")[0]
    assert " ".join(memory[1:]) == ("number, 64 to 16777216 MiB - user Memory that the guest sees.")
    host = lines_with(said.out, "host ")[-1]
    assert " ".join(host) == "host hosts n:1 vm.host_id refused"
    assert "cpus        " in said.out
    assert said.out == (await types("explain vms")).out


async def test_an_attribute_is_explained_in_full(types):
    said = await types("explain vm.memory_mib")
    assert said.out.splitlines() == [
        "attribute   vm.memory_mib",
        "meaning     Memory that the guest sees.",
        "type        number",
        "bounds      64 to 16777216",
        "unit        MiB",
        "default     -",
        "written by  user",
    ]


async def test_paths_lead_into_structures_and_along_relations(types):
    assert "Rules" not in (await types("explain security-group.rules")).err
    cidr = await types("explain security-group.rules.cidr")
    assert "Network of the other side; empty: any." in cidr.out
    cluster = await types("explain vm.host.cluster")
    assert cluster.out.startswith("cluster (clusters)\n")
    phase = await types("explain nic.vm.phase")
    assert "type        blocked / creating" in phase.out


async def test_without_a_word_all_kinds_are_named(types):
    said = await types("explain")
    assert ["port-group", "port-groups"] in [line.split()[:2] for line in said.out.splitlines()]


async def test_programs_get_the_schema(types):
    said = json.loads((await types("explain vm.cpus -o json")).out)
    assert (said["minimum"], said["maximum"]) == (1, 255)
    kinds = json.loads((await types("explain -o json")).out)
    assert {"kind": "vm", "collection": "vms", "about": "A virtual machine."} in kinds


@pytest.mark.parametrize(
    ("what", "hint"),
    [
        ("vmm", "there is no kind 'vmm': did you mean 'vm'?"),
        ("vm.memory", "'vm' has no 'memory': did you mean 'memory_mib'?"),
        ("vm.cpus.more", "'cpus' is one value: there is no 'more' in it"),
        ("vm.zzz", "'vm' has no 'zzz': there are id, name"),
        ("account.password_hash", "'account' has no 'password_hash'"),
    ],
)
async def test_a_wrong_word_is_answered_with_what_there_is(types, what, hint):
    said = await types(f"explain {what}")
    assert (said.code, said.out) == (2, "")
    assert hint in said.err
