"""The whole state of a machine as bytes, and such bytes as the state of another: for tests that carry one over."""

from pathlib import Path
from tempfile import TemporaryDirectory

from raftstate.state.machine import Machine


def dump_of(machine: Machine) -> bytes:
    """Return what a snapshot of the present state holds."""
    with TemporaryDirectory() as directory:
        path, frozen = Path(directory, "dump"), machine.freeze()
        frozen.write(path)
        frozen.close()
        return path.read_bytes()


def load(machine: Machine, dump: bytes) -> None:
    """Put a dump in the place of the whole state."""
    with TemporaryDirectory() as directory:
        path = Path(directory, "dump")
        path.write_bytes(dump)
        machine.stage(path)()
