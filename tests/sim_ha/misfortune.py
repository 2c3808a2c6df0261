"""Brings faults over the world, takes them away again, and heals everything in the end."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.sim_ha.faults import HEAL_S, NEVER_S, Fault, Kind
from tests.sim_ha.host import SimHost
from tests.sim_ha.links import LINK_FAULTS

if TYPE_CHECKING:
    from tests.sim_ha.world import World

BOOT_S = (3.0, 5.0, 12.0)
WALL_STEP_S = 3600.0


class Misfortune:
    """What happens to hosts from outside."""

    def __init__(self, world: World) -> None:
        self._world = world

    def plan(self, fault: Fault) -> None:
        """Have it happen at its time, and be over at its end or when all heals."""
        after = self._world.timeline.after
        after(fault.at_s, lambda: self._begin(fault))
        if fault.kind not in (Kind.POWER, Kind.SHUTDOWN, Kind.BLACKOUT):
            after(min(fault.at_s + fault.for_s, HEAL_S), lambda: self._end(fault))

    def power_cycle(self, host: SimHost, off_s: float = 0.0) -> None:
        """Switch a host off, and on again unless it never comes back."""
        world = self._world
        host.power_off()
        boots = host.boots

        def boot() -> None:
            if not host.up and host.boots == boots and not host.never_returns:
                world.tell(f"{host.name} boots")
                host.power_on(world.rules.stamps_after_start)
                world.leadership.review()

        left_s = max(0.0, HEAL_S - world.timeline.now_s)
        world.timeline.after(min(off_s, left_s) + world.rng.choice(BOOT_S), boot)
        world.leadership.review()

    def heal(self) -> None:
        """All is well again: what still needs a hand gets it."""
        self._world.tell("all heals")
        self._world.wishes.arm_for_good()
        for host in self._world.hosts.values():
            if host.up and host.guard_dead:
                self.power_cycle(host)

    def _begin(self, fault: Fault) -> None:
        world = self._world
        world.reached[f"faults: {fault.kind}"] += 1
        world.tell(f"{fault.kind}: {', '.join(fault.hosts)} for {fault.for_s:.1f} s")
        if fault.kind in LINK_FAULTS:
            world.links.close(fault)
        for name in fault.hosts:
            self._strike(fault, world.hosts[name])
        world.wishes.begin(fault.kind)
        world.leadership.review()

    def _strike(self, fault: Fault, host: SimHost) -> None:
        world = self._world
        match fault.kind:
            case Kind.LOOP_FROZEN:
                host.loop_frozen, host.hindered_s = True, world.timeline.now_s
            case Kind.GUARD_FROZEN:
                host.threads_frozen, host.hindered_s = True, world.timeline.now_s
            case Kind.GUARD_KILLED:
                host.kill_guard()
            case Kind.POWER:
                host.never_returns |= fault.for_s >= NEVER_S
                self.power_cycle(host, fault.for_s)
            case Kind.SHUTDOWN:
                world.shutdowns.begin(host, fault.for_s)
            case Kind.BLACKOUT:
                self.power_cycle(host, fault.for_s + world.rng.uniform(0, 25))
            case Kind.STUCK:
                host.stuck = True
            case Kind.LAG:
                host.lags = True
            case Kind.AGENT:
                host.agent_down = True
                host.stop_agent()
            case Kind.WALL:
                host.clock.wall_step_s += WALL_STEP_S if int(fault.at_s) % 2 else -WALL_STEP_S
            case Kind.LEADER:
                world.leadership.depose()
            case Kind.GUESTS_DIE:
                for vm_id, guest in list(host.guests.items()):
                    if not guest.paused and not guest.killed:
                        world.reached["guests that died by themselves"] += 1
                        del host.guests[vm_id]
            case Kind.CONFIRM:
                world.operator.confirm(host.name)
            case Kind.BOARD_DEAD:
                world.boards.dead.add(host.name)
            case _:
                pass

    def _end(self, fault: Fault) -> None:
        world = self._world
        if fault.kind in LINK_FAULTS:
            world.links.open(fault)
        world.wishes.end(fault.kind)
        for name in fault.hosts:
            host = world.hosts[name]
            match fault.kind:
                case Kind.LOOP_FROZEN:
                    host.loop_frozen, host.hindered_s = False, world.timeline.now_s
                case Kind.GUARD_FROZEN:
                    host.threads_frozen, host.hindered_s = False, world.timeline.now_s
                case Kind.STUCK:
                    host.stuck = False
                case Kind.LAG:
                    host.lags = False
                case Kind.BOARD_DEAD:
                    world.boards.dead.discard(name)
                case Kind.AGENT:
                    if host.agent_runs or not host.up:
                        continue
                    host.start_agent(world.rules.stamps_after_start)
                case _:
                    continue
            world.tell(f"over: {fault.kind} of {name}")
        world.leadership.review()
