"""A member is put together with the drivers that its settings name, or with what stands still in their place."""

import random
from pathlib import Path

import pytest

from core.errors import ConflictError
from core.identity.certificates import make_request, sign_request
from core.identity.sealing import make_key
from core.member_file import MemberRecord
from core.paths import Paths, write_file
from nodeagent.compute.libvirt_hypervisor import LibvirtHypervisor
from nodeagent.compute.missing_hypervisor import MissingHypervisor
from nodeagent.config import Config
from nodeagent.member import Basics, Member
from nodeagent.ways_in import until_connected
from tests.one_member import HOST_ID, NOW_MS, ManualClock, authority
from tests.unit.test_plugins import example

__all__ = ("example",)  # a fixture


@pytest.fixture
def paths(tmp_path: Path) -> Paths:
    """The identity of a host that is the first of its cluster."""
    made = Paths(etc=tmp_path / "etc", state=tmp_path / "state", run=tmp_path / "run")
    request_pem, key_pem = make_request(HOST_ID)
    certificate = sign_request(
        authority(),
        request_pem,
        host_id=HOST_ID,
        host_name="h1",
        address="192.0.2.1",
        now_ms=NOW_MS,
    )
    made.identity.mkdir(parents=True)
    write_file(made.ca_pem, authority().certificate_pem.encode(), mode=0o644)
    write_file(made.host_pem, certificate.encode(), mode=0o644)
    write_file(made.host_key, key_pem.encode())
    write_file(made.secrets_key, make_key())
    return made


def member(paths: Paths, *, witness: bool = False, **settings: str) -> Member:
    record = MemberRecord(
        host_id=HOST_ID, host_name="h1", address="192.0.2.1", cluster_name="test", api_port=7443,
        mesh_port=7444, founder=True, members=(), witness=witness,
    )  # fmt: skip
    return Member(Basics(Config(**settings), paths, ManualClock(), random.Random(1)), record)


async def test_without_a_word_it_is_libvirt(paths):
    node = member(paths).node
    assert isinstance(node.hypervisor, LibvirtHypervisor)
    assert (node.hypervisor_name, node.driver_fault) == ("libvirt", "")


async def test_a_plug_in_drives_the_host_that_names_it(paths, example):
    made = member(paths, hypervisor="pretended", network="planned", firewall="remembered")
    assert (made.node.hypervisor_name, made.node.driver_fault) == ("pretended", "")
    assert not made.node.hypervisor.guard_ends_guests


async def test_an_agent_whose_driver_is_missing_starts_but_never_joins_with_it(paths):
    made = member(paths, hypervisor="gone")
    assert isinstance(made.node.hypervisor, MissingHypervisor)
    assert "hypervisor = 'gone'" in made.node.driver_fault
    with pytest.raises(ConflictError, match="'gone'"):
        await until_connected(made)


async def test_a_witness_needs_none(paths):
    assert member(paths, witness=True, hypervisor="gone").node.driver_fault == ""
