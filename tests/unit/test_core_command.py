"""Programs end when they must, with all they started, and tell no secrets."""

import asyncio
import logging
import os
import sys
import threading
import time
from pathlib import Path

import pytest
import uvloop

from core.command import CommandError, CommandTimeoutError, run

# Starts a child of its own and writes both process ids, then waits: what a driver's tool with helpers looks like.
PARENT = """
import os, subprocess, sys, time
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
with open(sys.argv[1] + ".new", "w") as file:
    file.write(f"{os.getpid()} {child.pid}")
os.rename(sys.argv[1] + ".new", sys.argv[1])
time.sleep(60)
"""


def is_alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
    except OSError:
        return False
    return state != "Z"


async def until(condition, deadline_s: float = 10.0) -> None:
    async with asyncio.timeout(deadline_s):
        while not condition():
            await asyncio.sleep(0.01)


def pids_in(file: Path) -> list[int]:
    return [int(pid) for pid in file.read_text().split()]


async def test_the_output_of_a_program_comes_back():
    result = await run(["sh", "-c", "cat; echo oops >&2"], timeout_s=5, input=b"a\x00b")
    assert (result.stdout, result.stderr) == (b"a\x00b", b"oops\n")


async def test_a_program_without_input_reads_nothing_of_ours():
    assert (await run(["cat"], timeout_s=5)).stdout == b""


async def test_output_larger_than_any_buffer_is_whole():
    result = await run(["head", "-c", "3000000", "/dev/zero"], timeout_s=10)
    assert len(result.stdout) == 3_000_000


async def test_input_larger_than_any_buffer_is_whole_and_need_not_be_read():
    given = os.urandom(3_000_000)
    assert (await run(["cat"], timeout_s=10, input=given)).stdout == given
    assert (await run(["true"], timeout_s=10, input=given)).stdout == b""


async def _run_in_every_way() -> None:
    await run(["cat"], timeout_s=5, input=b"x")
    with pytest.raises(CommandError):
        await run(["false"], timeout_s=5)
    with pytest.raises(CommandError):
        await run(["no-such-program"], timeout_s=5, input=b"x")
    with pytest.raises(CommandTimeoutError):
        await run(["sleep", "60"], timeout_s=0.05)
    async with asyncio.TaskGroup() as group:
        task = group.create_task(run(["sleep", "60"], timeout_s=5), name="cancelled")
        await asyncio.sleep(0.05)
        task.cancel()


def _left_open() -> tuple[int, list[str]]:
    """Return how many files this process has open, and its children."""
    children = Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()
    return len(os.listdir("/proc/self/fd")), children


@pytest.mark.parametrize("factory", [asyncio.new_event_loop, uvloop.new_event_loop])
def test_nothing_stays_open_and_no_zombie_is_left(factory):
    with asyncio.Runner(loop_factory=factory) as runner:
        runner.run(_run_in_every_way())
        before = _left_open()
        for _ in range(3):
            runner.run(_run_in_every_way())
        assert _left_open() == before


class _OthersFiles(threading.Thread):
    """Opens and closes files all the time, and notes when one was closed by somebody else."""

    def __init__(self) -> None:
        super().__init__(name="others-files", daemon=True)
        self.enough = threading.Event()
        self.problem = ""

    def run(self) -> None:
        while not (self.problem or self.enough.is_set()):
            mine = [os.open("/dev/null", os.O_RDONLY) for _ in range(8)]
            for descriptor in mine:
                try:
                    os.close(descriptor)
                except OSError as error:
                    self.problem = str(error)


async def _run_many() -> None:
    for _ in range(150):
        await run(["true"], timeout_s=5)


def test_files_of_other_threads_are_not_closed():
    """uvloop's transports close a pipe twice; the number may be another thread's by the second time."""
    others = [_OthersFiles() for _ in range(3)]
    for thread in others:
        thread.start()
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(_run_many())
    for thread in others:
        thread.enough.set()
        thread.join()
    assert [thread.problem for thread in others] == ["", "", ""]


async def test_arguments_reach_the_program_as_they_are():
    result = await run(["printf", "%s|", "a b", "$HOME", "`id`", "x;y", ""], timeout_s=5)
    assert result.stdout == b"a b|$HOME|`id`|x;y||"


async def test_the_environment_is_replaced_when_given():
    assert (await run(["/usr/bin/env"], timeout_s=5, env={"ONLY": "1"})).stdout == b"ONLY=1\n"


async def test_a_failing_program_says_its_code_and_the_end_of_its_message():
    with pytest.raises(CommandError) as caught:
        await run(
            ["sh", "-c", "head -c 9000 /dev/zero >&2; echo no space >&2; exit 7"], timeout_s=5
        )
    assert caught.value.code_number == 7
    assert caught.value.stderr_tail.endswith("no space\n")
    assert len(caught.value.stderr_tail) == 4096


@pytest.mark.parametrize(
    ("program", "code"), [("/no/such/program", 127), ("/etc/passwd", 126), ("/etc", 126)]
)
async def test_a_program_that_cannot_be_started_is_an_error_like_any_other(program, code):
    with pytest.raises(CommandError) as caught:
        await run([program], timeout_s=5)
    assert caught.value.code_number == code
    assert caught.value.argv == (program,)


async def test_a_timeout_kills_the_program_and_what_it_started(tmp_path):
    with pytest.raises(CommandTimeoutError):
        await run([sys.executable, "-c", PARENT, str(tmp_path / "pids")], timeout_s=1.5)
    pids = pids_in(tmp_path / "pids")
    await until(lambda: not any(is_alive(pid) for pid in pids))


async def test_a_cancelled_run_kills_the_program_and_what_it_started(tmp_path):
    async with asyncio.TaskGroup() as group:
        task = group.create_task(
            run([sys.executable, "-c", PARENT, str(tmp_path / "pids")], timeout_s=60), name="run"
        )
        await until((tmp_path / "pids").exists)
        pids = pids_in(tmp_path / "pids")
        assert all(is_alive(pid) for pid in pids)
        task.cancel()
    assert task.cancelled()
    await until(lambda: not any(is_alive(pid) for pid in pids))


async def test_a_helper_left_in_the_background_does_not_outlive_the_timeout(tmp_path):
    script = f"sleep 60 & echo $! > {tmp_path}/pid"
    with pytest.raises(CommandTimeoutError):
        await run(["sh", "-c", script], timeout_s=0.5)
    (pid,) = pids_in(tmp_path / "pid")
    await until(lambda: not is_alive(pid))


async def _wait_for_a_program_whose_child_left_the_group(tmp_path: Path) -> float:
    began_s = time.monotonic()
    script = f"setsid sleep 4 & echo $! > {tmp_path}/pid; wait"
    with pytest.raises(CommandTimeoutError):
        await run(["sh", "-c", script], timeout_s=0.3)
    took_s = time.monotonic() - began_s
    for pid in pids_in(tmp_path / "pid"):
        os.kill(pid, 9)
    return took_s


@pytest.mark.parametrize("factory", [asyncio.new_event_loop, uvloop.new_event_loop])
def test_a_child_that_left_the_group_and_holds_the_pipes_holds_nobody_up(tmp_path, factory):
    with asyncio.Runner(loop_factory=factory) as runner:
        assert runner.run(_wait_for_a_program_whose_child_left_the_group(tmp_path)) < 3


async def test_secret_arguments_are_in_no_error_and_no_log(caplog):
    caplog.set_level(logging.DEBUG)
    script = 'echo "bad password: $0 ($1)" >&2; exit 3'
    with pytest.raises(CommandError) as caught:
        await run(
            ["sh", "-c", script, "hunter2", "hunter2-and-more"],
            timeout_s=5,
            secret_args=("hunter2", "hunter2-and-more"),
        )
    error = caught.value
    told = f"{error} {error!r} {error.argv} {error.stderr_tail} {error.message} {caplog.text}"
    told += " ".join(str(vars(record)) for record in caplog.records)
    assert "hunter2" not in told
    assert "and-more" not in told
    assert "bad password: *** (***)" in error.message


async def test_a_secret_program_name_is_masked_when_it_does_not_exist():
    with pytest.raises(CommandError) as caught:
        await run(["/no/hunter2"], timeout_s=5, secret_args=("/no/hunter2",))
    assert "hunter2" not in str(caught.value)
