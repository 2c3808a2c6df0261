"""Drivers of plug-ins for guests, network and firewall: chosen by the settings, contained, and never replaced when missing."""

import asyncio
from dataclasses import replace as changed
from pathlib import Path

import pytest
from msgspec.structs import replace

from core.errors import ConflictError, PermanentError, TemporaryError
from core.model import Host, PluginState, PowerState, VMPhase
from ha.placement import PlacementError, PlacementRequest, PlacementView, choose_host
from nodeagent.compute.memory_hypervisor import InMemoryHypervisor
from nodeagent.compute.missing_hypervisor import MissingHypervisor
from nodeagent.config import Config
from nodeagent.plugins import drivers as drivers_module
from nodeagent.plugins.drivers import Choice, InUse, held_by_other
from nodeagent.plugins.plugins import Plugins
from nodeagent.services.host_reporter import HostReporter
from nodeagent.services.self_look import SelfLook
from nodeagent.services.storage_checks import StorageChecks
from tests.one_member import HOST_ID, founded, running, until
from tests.unit.test_plugins import example, install
from tests.unit.test_vm_power import Bench, bench_test

__all__ = ("example", "install")  # fixtures

NAMES = {"hypervisor": "pretended", "network": "planned", "firewall": "remembered"}


def choose(choice: Choice, plugins: Plugins | None = None, **more: str) -> InUse:
    found = plugins or Plugins()
    return found.drivers.choose(choice, host_id="h", run_dir=Path("/nowhere"), **more)


def test_what_the_settings_do_not_name_is_the_products_own(example):
    found = choose(Choice())
    assert (found.hypervisor_name, found.fault) == ("libvirt", "")
    assert not (Config().hypervisor or Config().network or Config().firewall)


@pytest.mark.parametrize("gives", NAMES)
def test_one_that_is_named_and_not_here_is_a_fault_that_says_what_to_do(example, gives):
    found = choose(Choice(**{gives: "absent"}))
    assert f"{gives} = 'absent'" in found.fault and NAMES[gives] in found.fault
    assert "/etc/kvorum/agent.toml" in found.fault and "kvorum plugin list" in found.fault
    assert isinstance(found.hypervisor, MissingHypervisor) == (gives == "hypervisor")


async def test_a_missing_network_or_firewall_changes_nothing_and_lets_nobody_in(example):
    for choice in (Choice(network="absent"), Choice(firewall="absent", network="planned")):
        network = choose(choice).network
        with pytest.raises(PermanentError, match="'absent'"):
            await network.apply(None)


async def test_a_missing_hypervisor_never_says_that_there_are_no_guests(example):
    hypervisor = choose(Choice(hypervisor="absent")).hypervisor
    for question in (hypervisor.list_domains(), hypervisor.get("x"), hypervisor.destroy("x")):
        with pytest.raises(TemporaryError, match="'absent'"):
            await question
    assert not hypervisor.is_healthy


BROKEN = {
    "raises": "def Thing(**site):\n  1 / 0\n",
    "lacks a method": "class Thing:\n  def __init__(self, **site): pass\n",
    "raises when looked at": "class Thing:\n  def __init__(self, **site): pass\n"
    "  is_healthy = apply = property(lambda self: 1 / 0)\n",
    "ends the process": "def Thing(**site):\n  raise SystemExit(3)\n",
}


@pytest.mark.parametrize("how", BROKEN)
@pytest.mark.parametrize("gives", NAMES)
def test_one_that_is_broken_ends_nothing(install, gives, how):
    group = {"network": "networks"}.get(gives, f"{gives}s")
    install("bad", f"[kvorum.{group}]\nthing = bad_code:Thing\n", BROKEN[how])
    found = choose(Choice(**{gives: "thing"}))
    assert f"{gives} thing" in found.fault


def test_the_names_of_the_products_own_are_taken(install):
    code = "def Thing(**site): pass\n"
    for group, name in (
        ("hypervisors", "libvirt"),
        ("networks", "linux"),
        ("firewalls", "nftables"),
    ):
        install(f"thief-{name}", f"[kvorum.{group}]\n{name} = thief-{name}_code:Thing\n", code)
    assert {p.state for p in Plugins().reports()} == {PluginState.REFUSED}


HOSTILE = """
import asyncio
from core.errors import FatalError
from nodeagent.compute.memory_hypervisor import InMemoryHypervisor

class Thing(InMemoryHypervisor):
    def __init__(self, **site):
        super().__init__()
    async def reboot(self, vm_id):
        raise FatalError("end the agent")
    async def reset(self, vm_id):
        return {}["no"]
    async def suspend(self, vm_id):
        await asyncio.Event().wait()
"""


async def test_a_call_that_fails_or_hangs_leaves_its_outcome_open(install, monkeypatch):
    monkeypatch.setattr(drivers_module, "CALL_S_MAX", 0.05)
    install("bad", "[kvorum.hypervisors]\nthing = bad_code:Thing\n", HOSTILE)
    hypervisor = choose(Choice(hypervisor="thing")).hypervisor
    for call, what in (("reboot", "end the agent"), ("reset", "KeyError"), ("suspend", "within")):
        with pytest.raises(TemporaryError, match=what):
            await getattr(hypervisor, call)("x")


# -- a host whose hypervisor is missing


def no_driver(storage):
    raise PermanentError("no test has a storage here")


class WithoutDriver:
    """A bench whose host ran guests and comes back without its driver."""

    def __init__(self, bench: Bench) -> None:
        self.member = bench.member
        self.guests = bench.hypervisor
        why = "the setting hypervisor = 'gone' names what this host lacks"
        object.__setattr__(bench.member.node, "hypervisor", MissingHypervisor(why))
        object.__setattr__(bench.member.node, "driver_fault", why)
        object.__setattr__(bench.member.node, "hypervisor_name", "gone")


@bench_test
async def test_guests_of_a_missing_driver_run_on_and_are_not_forgotten(bench):
    vm = await bench.member.add_vm()
    unwanted = await bench.member.add_vm("web2")
    async with bench.with_controller():
        await until(bench.phase_is(vm.id, VMPhase.RUNNING))
        await until(bench.phase_is(unwanted.id, VMPhase.RUNNING))
    host = WithoutDriver(bench)
    await bench.member.change_vm(unwanted.id, power=PowerState.STOPPED)
    before = (bench.member.vm(vm.id), bench.member.vm(unwanted.id))
    bench.told.clear()
    async with running(host.guests.run, bench.network.run, bench.controller.run):
        await asyncio.sleep(120)
        assert {d.vm_id for d in await host.guests.list_domains()} == {vm.id, unwanted.id}
    assert (bench.member.vm(vm.id), bench.member.vm(unwanted.id)) == before
    assert bench.told == []


@bench_test
async def test_such_a_host_says_so_and_gets_no_vms(bench):
    member = bench.member
    async with running(bench.hypervisor.run, HostReporter(member.node, "tcg").run):
        await until(lambda: member.store.need(Host, HOST_ID).hypervisor == "libvirt")
    WithoutDriver(bench)
    async with running(HostReporter(member.node, "tcg").run):
        await until(lambda: member.store.need(Host, HOST_ID).driver_fault)
    host = member.store.need(Host, HOST_ID)
    assert (host.hypervisor, host.memory_mib) == ("libvirt", 16384)  # what was true stays
    view = PlacementView(hosts=(host,), vms=(), lease_ages_s={HOST_ID: 0.1}, cpu_overcommits={})
    with pytest.raises(PlacementError, match="'gone' names what this host lacks"):
        choose_host(PlacementRequest(cpus=1, memory_mib=64), view)
    assert choose_host(
        PlacementRequest(cpus=1, memory_mib=64),
        changed(view, hosts=(replace(host, driver_fault=""),)),
    )
    report = await SelfLook(member.node, StorageChecks(no_driver)).report()
    assert "'gone'" in report.driver_fault
    assert report.libvirt is None  # nobody is sent to restart libvirtd


@bench_test
async def test_a_driver_that_is_back_takes_the_fault_away(bench):
    member = bench.member
    await member.store.apply(puts=(replace(member.store.need(Host, HOST_ID), driver_fault="x"),))
    async with running(bench.hypervisor.run, HostReporter(member.node, "tcg").run):
        await until(lambda: not member.store.need(Host, HOST_ID).driver_fault)


# -- no VM runs twice


async def test_another_hypervisor_is_refused_while_guests_may_run_under_the_one_before(example):
    member = await founded()
    host = replace(member.store.need(Host, HOST_ID), hypervisor="")
    off = await member.add_vm("off", power=PowerState.STOPPED)
    assert held_by_other(host, [off], "pretended") == ""
    on = await member.add_vm("on", phase=VMPhase.RUNNING)
    stopping = replace(off, phase=VMPhase.RUNNING)
    for vm in (on, stopping):
        why = held_by_other(host, [off, vm], "pretended")
        assert "may run under libvirt" in why and "hypervisor = 'libvirt'" in why
    assert held_by_other(host, [on], "") == "" == held_by_other(host, [on], "libvirt")
    assert "under pretended" in held_by_other(replace(host, hypervisor="pretended"), [on], "")
    assert held_by_other(None, [on], "pretended") == ""
    found = choose(Choice(hypervisor="pretended"), held_by_other=why)
    assert found.fault == why and isinstance(found.hypervisor, MissingHypervisor)


class NoProcesses(InMemoryHypervisor):
    guard_ends_guests = False


@pytest.mark.parametrize("shared", [True, False])
def test_a_vm_that_another_host_could_start_runs_only_where_the_guard_can_end_it(shared):
    @bench_test
    async def test(bench: Bench) -> None:
        vm = await bench.member.add_vm(shared=shared)
        hypervisor = NoProcesses()
        object.__setattr__(bench.member.node, "hypervisor", hypervisor)
        async with running(hypervisor.run, bench.network.run):
            if not shared:
                await bench.power.start(vm.id)
                return
            with pytest.raises(ConflictError, match="the guard can't end") as refused:
                await bench.power.start(vm.id)
            assert refused.value.code == "unfenceable"
            assert await hypervisor.list_domains() == ()
            assert not bench.guard.grants and bench.member.vm(vm.id).generation == 0

    test()
