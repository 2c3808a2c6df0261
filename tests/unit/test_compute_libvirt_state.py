"""What libvirt says of the machine, in the platform's words."""

from __future__ import annotations

import libvirt
import pytest

from nodeagent.compute.libvirt_state import read_host_facts

NODES_MIB = 7002
MACHINE_KIB = 24_684_092


class LibvirtSays(libvirt.libvirtError):
    def __init__(self, code: int) -> None:
        Exception.__init__(self, "no")
        self.code = code

    def get_error_code(self) -> int:
        return self.code


class Machine(libvirt.virConnect):
    """A connection to a machine whose NUMA nodes list less memory than it has."""

    def __init__(self, memory: dict[str, int] | int) -> None:
        self._o = None
        self._memory = memory

    def getInfo(self) -> list[str | int]:  # noqa: N802 - libvirt's name
        return ["x86_64", NODES_MIB, 2, 0, 1, 1, 2, 1]

    def getMemoryStats(self, cellNum: int, flags: int = 0) -> dict[str, int]:  # noqa: N802, N803
        if isinstance(self._memory, int):
            raise LibvirtSays(self._memory)
        assert cellNum == libvirt.VIR_NODE_MEMORY_STATS_ALL_CELLS
        return self._memory

    def getHostname(self) -> str:  # noqa: N802
        return "h1"

    def getLibVersion(self) -> int:  # noqa: N802
        return 9_000_000

    def getVersion(self) -> int:  # noqa: N802
        return 7_002_000


def test_a_hosts_memory_is_the_whole_machines_and_not_what_its_numa_nodes_list() -> None:
    facts = read_host_facts(Machine({"total": MACHINE_KIB, "free": 1}))
    assert facts.memory_mib == 24_105
    assert (facts.cpus, facts.libvirt_version, facts.qemu_version) == (2, "9.0.0", "7.2.0")


def test_a_driver_that_cant_count_it_is_asked_as_before() -> None:
    assert read_host_facts(Machine(libvirt.VIR_ERR_NO_SUPPORT)).memory_mib == NODES_MIB


def test_a_libvirtd_that_fails_is_not_taken_for_one_that_cant() -> None:
    with pytest.raises(libvirt.libvirtError):
        read_host_facts(Machine(libvirt.VIR_ERR_OPERATION_DENIED))
