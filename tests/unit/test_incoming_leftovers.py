"""What live migrations leave in the directory of their sockets, and when it goes."""

from msgspec.structs import replace

from core.model import VM, VMPhase
from nodeagent.services.incoming import IncomingMigrations
from tests.one_member import HOST_ID, OTHER_ID, founded

THIRD_ID = "99999999-0000-4000-8000-000000000003"


async def test_only_the_directories_of_moves_under_way_stay(tmp_path):
    member = await founded()
    await member.add_host(OTHER_ID, "h2", "192.0.2.2")
    await member.add_host(THIRD_ID, "h3", "192.0.2.3")
    places = {
        "comes": (OTHER_ID, HOST_ID),
        "goes": (HOST_ID, OTHER_ID),
        "arrived": (HOST_ID, ""),
        "left": (OTHER_ID, ""),
        "elsewhere": (OTHER_ID, THIRD_ID),
    }
    ids = {}
    for name, (host_id, to) in places.items():
        vm = await member.add_vm(name, host_id=host_id)
        phase = VMPhase.MIGRATING if to else VMPhase.RUNNING
        await member.store.apply(puts=(replace(vm, migrating_to_host_id=to, phase=phase),))
        ids[name] = vm.id
    gone = "aaaaaaaa-0000-4000-8000-00000000000a"
    for name in (*ids.values(), gone, "not-a-vm"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "qemu.sock").touch()
    incoming = IncomingMigrations(member.node, None, None, None)
    incoming.sweep(directory=tmp_path)
    left = {path.name for path in tmp_path.iterdir()}
    assert left == {ids["comes"], ids["goes"], "not-a-vm"}
    comes = member.store.need(VM, ids["comes"])
    await member.store.apply(puts=(replace(comes, host_id=HOST_ID, migrating_to_host_id=""),))
    incoming.sweep(directory=tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {ids["goes"], "not-a-vm"}
    incoming.sweep(directory=tmp_path / "nowhere")
