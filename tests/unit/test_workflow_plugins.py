"""Plug-ins that bring steps and workflows: a good one works, a broken one is left out and said so, none is fatal."""

from pathlib import Path

import pytest
from msgspec.structs import replace

from core.model import Event, Severity, TaskState, VMPhase
from nodeagent.services.event_log import EventLog
from nodeagent.services.vm_requests import StopVM
from nodeagent.workflows.registry import STEPS, load_registry, report_refused
from tests.one_member import LoopClock, founded, in_virtual_time, until
from tests.workflow_world import ENDED, World

EXAMPLE = Path(__file__).parents[1] / "example_plugin"

GOOD_STEP = """
class Step:
    name = "{name}"
    def __init__(self, work): pass
    async def do(self): return None
    async def undo(self): return None
"""


@pytest.fixture
def install(tmp_path, monkeypatch):
    """Return what puts a distribution on the path, as pip would."""

    def put(name: str, entries: str, **files: str) -> None:
        place = tmp_path / name
        for path, text in files.items():
            file = place / path.replace("__", "/").replace("_xml", ".xml").replace("_py", ".py")
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(text)
        info = place / f"{name}-1.0.dist-info"
        info.mkdir(parents=True)
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
        (info / "entry_points.txt").write_text(entries)
        monkeypatch.syspath_prepend(str(place))

    return put


def test_without_plugins_there_is_the_product_and_nothing_refused():
    registry = load_registry()
    assert registry.refused == ()
    assert registry.steps == STEPS


def stop_and_note(note: str):
    """Run the example's workflow on a running VM; return its task and the VM."""
    registry = load_registry()
    assert registry.refused == ()
    ended = []

    async def main() -> None:
        world = World(await founded(clock=LoopClock()))
        await world.begin()
        async with world.outside():
            vm = await world.made(registry, start=True, shared=True)
            # As the request of stop-vm commits it, with the workflow that has stop-vm inside.
            stopped = (await world.service().stop(vm, StopVM(), world.ids())).task
            task = replace(stopped, workflow="stop-and-note", arguments={"note": note})
            await world.store.apply(puts=(task,))
            async with world.agent(world.h1, registry):
                await until(lambda: world.task(task.id).state in ENDED, 600)
            world.new_agent()
            await world.settle()
            ended.extend((world.task(task.id), world.vm(), await world.garbage()))

    in_virtual_time(main)
    return ended


def test_a_step_and_a_workflow_of_a_plugin_run_like_the_products(monkeypatch):
    monkeypatch.syspath_prepend(str(EXAMPLE))
    task, vm, garbage = stop_and_note("out of use")
    assert (task.state, task.result) == (TaskState.SUCCEEDED, {"note": "[out of use]"})
    assert (vm.phase, vm.description) == (VMPhase.STOPPED, " [out of use]")
    assert [(p.step, p.inside) for p in task.plan] == [
        ("stop-guest", ("stop-vm",)),
        ("note-description", ()),
    ]
    assert garbage == []


def test_a_failing_step_of_a_plugin_rolls_the_products_steps_back(monkeypatch):
    monkeypatch.syspath_prepend(str(EXAMPLE))
    task, vm, garbage = stop_and_note("")
    assert task.state is TaskState.FAILED
    assert "argument 'note' is empty" in task.error
    assert (vm.phase, vm.description) == (VMPhase.RUNNING, ""), "stopped, and up again"
    assert garbage == []


BROKEN = {
    "does not import": ("import nowhere_to_be_found", "s = broken.steps:Step", "ModuleNotFoundError"),
    "exits": ("raise SystemExit(3)", "s = broken.steps:Step", "SystemExit"),
    "raises": ("1 / 0", "s = broken.steps:Step", "ZeroDivisionError"),
    "lacks the step": ("", "s = broken.steps:Step", "AttributeError"),
    "is no step": ("class Step: name = 's'", "s = broken.steps:Step", "no method 'do'"),
    "has two names": (GOOD_STEP.format(name="t"), "s = broken.steps:Step", "name and entry point"),
    "has a bad name": (GOOD_STEP.format(name="S"), "S = broken.steps:Step", "1 to 63 of a-z"),
    "takes a name of the product": (
        GOOD_STEP.format(name="start-guest"),
        "start-guest = broken.steps:Step",
        "the step name is taken by kvorum already: choose another",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", BROKEN)
def test_a_broken_step_is_left_out_with_a_reason_and_the_rest_works(case, install, monkeypatch):
    code, entry, complaint = BROKEN[case]
    monkeypatch.syspath_prepend(str(EXAMPLE))
    install("broken", f"[kvorum.steps]\n{entry}\n", broken__steps_py=code)
    monkeypatch.delitem(__import__("sys").modules, "broken.steps", raising=False)
    monkeypatch.delitem(__import__("sys").modules, "broken", raising=False)
    registry = load_registry()
    (refused,) = registry.refused
    assert refused.startswith("plug-in broken, kvorum.steps ")
    assert complaint in refused
    assert set(registry.steps) == {*STEPS, "note-description"}
    assert registry.steps["start-guest"] is STEPS["start-guest"]
    assert "stop-and-note" in registry.definitions


BAD_WORKFLOWS = {
    "takes a name of the product": (
        '<workflow name="create-vm"><step ref="reboot-guest"/></workflow>',
        "workflow 'create-vm' is defined in nodeagent.workflows.definitions/create-vm.xml already",
    ),
    "names an unknown step": (
        '<workflow name="w">\n<step ref="dance"/></workflow>',
        "badflow/w.xml, line 2: step 'dance' is unknown",
    ),
    "is no XML": ("<workflow", "badflow/w.xml, line 1: this is not XML"),
    "has entities": (
        '<!DOCTYPE w [<!ENTITY x SYSTEM "file:///etc/passwd">]><workflow name="w"/>',
        "no DOCTYPE",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD_WORKFLOWS)
def test_a_broken_workflow_is_left_out_with_file_and_line(case, install):
    text, complaint = BAD_WORKFLOWS[case]
    install("badflow", "[kvorum.workflows]\nmine = badflow\n", badflow__w_xml=text)
    registry = load_registry()
    (refused,) = registry.refused
    assert refused.startswith("plug-in badflow, kvorum.workflows 'mine': ")
    assert complaint in refused
    assert registry.definitions == load_registry([]).definitions


def test_an_entry_point_to_nothing_is_left_out(install):
    install("nothing", "[kvorum.workflows]\nmine = no_such_package\n", nothing__x_py="")
    install("empty", "[kvorum.workflows]\nmine = empty\n", empty__x_py="")
    refused = load_registry().refused
    assert len(refused) == 2
    assert "holds no file *.xml" in refused[0]
    assert "ModuleNotFoundError" in refused[1]


@pytest.mark.parametrize("order", [("first", "second"), ("second", "first")])
def test_of_two_plugins_with_one_name_the_same_wins_on_every_host(order, install):
    for name in order:
        code = GOOD_STEP.format(name="shared")
        entry = f"[kvorum.steps]\nshared = {name}_steps:Step\n"
        install(name, entry, **{f"{name}_steps_py": code})
    registry = load_registry()
    (refused,) = registry.refused
    assert refused.startswith("plug-in second, ")
    assert "taken by plug-in first already" in refused


async def test_a_plugin_left_out_is_an_event_of_its_host(install):
    install("badflow", "[kvorum.workflows]\nmine = badflow\n", badflow__w_xml="<")
    member = await founded()
    registry = load_registry()
    await report_refused(registry.refused, member.node, EventLog(member.node))
    (event,) = (e for e in member.store.all(Event) if e.code == "plugin-refused")
    assert (event.severity, event.subject_name) == (Severity.WARNING, "h1")
    assert event.message == registry.refused[0]
