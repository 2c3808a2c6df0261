"""Waiting for a task with its progress on the screen.

Used by every command that starts long work. An interrupted wait leaves the work going.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from core.errors import PlatformError
from tools.cli.context import Context
from tools.cli.output import write_value
from tools.cli.progress import Progress

if TYPE_CHECKING:
    from tools.sdk.started import Started
    from tools.sdk.tasks import TaskView


class TaskFailed(PlatformError):
    """The task ended, but not well."""

    code = "task-failed"


async def wait_for(ctx: Context, task: TaskView, title: str) -> TaskView:
    """Return the task when it has succeeded.

    Raises:
        TaskFailed: it failed or was cancelled.
    """
    with Progress(ctx, title) as progress:

        def show(now: TaskView) -> None:
            if not now.ended:
                progress.show(now.progress, _step(now))

        try:
            ended = await ctx.client.wait_task(task.id, show, known=True)
        except asyncio.CancelledError:
            ctx.say(f"\nkvorum: the work goes on: kvorum task wait {task.id}")
            raise
    if ended.succeeded:
        return ended
    reason = " ".join(ended.error.split())
    if ended.state == "cancelled":
        raise TaskFailed(f"{title}: was cancelled" + (f": {reason}" if reason else ""))
    raise TaskFailed(f"{title}: {reason or f'the task {ended.state}: kvorum task show {task.id}'}")


async def finish(ctx: Context, started: Started[object], title: str, *, wait: bool) -> bool:
    """Wait for started work, if there is any; True when it is done, False when only accepted.

    Without `wait` the task is printed as the command's result.
    """
    if started.task is None:
        return True
    for line in warnings_of(started.task):
        ctx.say(f"kvorum: warning: {line}")
    if wait:
        await wait_for(ctx, started.task, title)
        return True
    if ctx.output == "table":
        ctx.write(started.task.id)
        ctx.say(f"{title}: accepted; kvorum task wait {started.task.id}")
    else:
        write_value(ctx, dict(started.task.raw.raw))
    return False


def warnings_of(task: TaskView) -> tuple[str, ...]:
    """Return what the cluster warned of when it took the work on."""
    lines = task.raw.items("log")
    return tuple(line.text("text") for line in lines if line.text("what") == "warning")


def _step(task: TaskView) -> str:
    if task.state == "rolling-back":
        return f"rolling back {task.step}".rstrip()
    return task.step or task.state
