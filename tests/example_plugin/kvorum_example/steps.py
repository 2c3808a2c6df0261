"""The step of the example. `do` and `undo` are safe to repeat, and undo is right even when do never ran."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from msgspec.structs import replace

from core.errors import InvalidError
from core.model import Leftover
from nodeagent.workflows.work import VmWork


@dataclass(frozen=True, slots=True)
class NoteDescription:
    """Put a note behind the VM's description; it is the task's argument `note`."""

    work: VmWork
    name: str = "note-description"

    async def do(self) -> Mapping[str, str]:
        """Return the note, for the task's result."""
        vm, note = self.work.vm(), self._note()
        if not note.strip():
            raise InvalidError("the task's argument 'note' is empty: say what to note")
        if not vm.description.endswith(note):
            await self._write(vm.description + note)
        return {"note": note.strip()}

    async def undo(self) -> None:
        """Take the note away again."""
        vm, note = self.work.maybe_vm(), self._note()
        if vm is not None and note.strip() and vm.description.endswith(note):
            await self._write(vm.description.removesuffix(note))

    def left_behind(self) -> tuple[Leftover, ...]:
        """Say what stays if the task is given up; a step without this never is."""
        return (Leftover(step=self.name, resource=self.work.task.subject, what="the note"),)

    async def _write(self, text: str) -> None:
        changed = replace(self.work.vm(), description=text)
        await self.work.shop.node.store.apply(puts=(changed,))

    def _note(self) -> str:
        return f" [{note}]" if (note := self.work.task.arguments.get("note", "")) else ""
