"""What the record of a VM becomes when another host shall run it: the one place where that is said.

The generation is what the guards and libvirt's hook know an owner by, so each new owner has a higher one: an earlier owner that
comes back is refused with its own.
"""

from __future__ import annotations

from msgspec.structs import replace

from core.model import VM, VMPhase


def given_to(vm: VM, host_id: str, *, boot_id: str = "") -> VM:
    """Return the record of a VM that `host_id` shall start, with nothing left of what was planned or wrong before.

    `boot_id` is that of the new owner if the guest may run there already, as the target of its migration; else it is empty, and
    the new owner writes its own when it starts the guest.
    """
    return replace(
        vm,
        host_id=host_id,
        generation=vm.generation + 1,
        boot_id=boot_id,
        migrating_to_host_id="",
        blocked_reason="",
        phase=VMPhase.STARTING,
    )
