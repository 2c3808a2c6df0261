"""`kvorum task`: long work, its progress and its result."""

from __future__ import annotations

from argparse import Namespace

from tools.cli.collection import Kind, add_list, add_name, add_names
from tools.cli.context import Context
from tools.cli.many import act_on_many
from tools.cli.output import Column, moment, printable, text, write_done, write_item, write_rows
from tools.cli.parser import Parser, Root, UsageError
from tools.cli.units import shown_duration, shown_time
from tools.cli.waiting import wait_for
from tools.sdk.bodies import EmptyBody, GiveUpBody
from tools.sdk.items import Item


def _subject(task: Item) -> str:
    subject = task.text("subject", "-")
    name = task.text("subject_name")
    return f"{subject.partition('/')[0]} {name}" if name else subject


def _took(task: Item) -> str:
    if not task.integer("ended_ms"):
        return "-"
    return shown_duration((task.integer("ended_ms") - task.integer("created_ms")) / 1000)


KIND = Kind(
    noun="task",
    plural="tasks",
    word="task",
    columns=(
        text("ID", "id"),
        text("WORK", "workflow"),
        Column("ON", _subject),
        text("STATE", "state"),
        Column("DONE", lambda task: f"{task.integer('progress')}%"),
        text("STEP", "step"),
        moment("STARTED", "created_ms"),
        Column("TOOK", _took),
    ),
    fields=(
        text("id", "id"),
        text("work", "workflow"),
        Column("on", _subject),
        text("state", "state"),
        Column("done", lambda task: f"{task.integer('progress')}%"),
        text("step", "step"),
        text("error", "error"),
        text("runner", "runner_host_name", "runner_host_id"),
        moment("started", "created_ms"),
        Column("took", _took),
    ),
)


async def show(args: Namespace, ctx: Context) -> int:
    """Show a task, what came of it, its log, and what is still to be done."""
    task = await ctx.client.get("tasks", args.name)
    result = task.item("result")
    came_of_it = [text(f"result: {printable(key)}", key) for key in result.raw]
    write_item(ctx, task, KIND.fields)
    if ctx.output != "table":
        return 0
    if came_of_it:
        ctx.write("")
        write_item(ctx, result, came_of_it)
    rows = [_log_row(line) for line in task.items("log")]
    if not task.integer("ended_ms"):
        waiting = (step for step in task.items("steps") if step.text("state") == "waiting")
        rows += [("", "waiting", _place(step), "") for step in waiting]
    if rows:
        ctx.write("")
        write_rows(ctx, rows)
    if left := task.items("left_behind"):
        ctx.write("")
        write_rows(
            ctx,
            [
                (
                    "left behind",
                    _place(one),
                    *(printable(one.text(f)) for f in ("resource", "what")),
                )
                for one in left
            ],
        )
    return 0


def _log_row(line: Item) -> tuple[str, ...]:
    at = shown_time(line.integer("at_ms"))
    return (at, printable(line.text("what", "-")), _place(line), printable(line.text("text")))


def _place(line: Item) -> str:
    """Return a step with the nested workflows around it."""
    return printable(" / ".join((*line.texts("inside"), line.text("step", "-"))))


async def wait(args: Namespace, ctx: Context) -> int:
    """Wait for a task; 1 when it did not succeed."""
    task = await ctx.client.get_task(args.name)
    title = f"{task.workflow} {task.subject_name}".strip() or task.id
    ended = await wait_for(ctx, task, title)
    write_done(ctx, ended.raw, f"{title}: {ended.state}")
    return 0


async def cancel(args: Namespace, ctx: Context) -> int:
    """Ask tasks to stop."""
    if len(args.names) > 1:
        return await _ask_many(args, ctx, "cancel", "asked to stop where it is safe")
    (name,) = args.names
    await ctx.client.cancel_task(name)
    asked = Item({"id": name, "cancel_requested": True})
    write_done(ctx, asked, f"{name}: asked to stop where it is safe; kvorum task wait {name}")
    return 0


async def retry(args: Namespace, ctx: Context) -> int:
    """Have what failed be tried again at once."""
    if len(args.names) > 1:
        return await _ask_many(args, ctx, "retry", "is tried again")
    (name,) = args.names
    task = await ctx.client.retry_task(name)
    write_done(ctx, task.raw, f"{name}: is tried again; kvorum task wait {name}")
    return 0


async def _ask_many(args: Namespace, ctx: Context, verb: str, asked: str) -> int:
    """Ask something of several tasks; a refusal of one is nothing to the others."""

    async def tell(ctx: Context, item: Item, already: bool) -> tuple[Item, str]:
        del ctx, already
        return item, f"{item.text('name')}: {asked}; kvorum task wait {item.text('name')}"

    return await act_on_many(args, ctx, KIND, verb, EmptyBody(), tell)


async def give_up(args: Namespace, ctx: Context) -> int:
    """End a stuck task as it is."""
    task = await ctx.client.get("tasks", args.name)
    named = task.text("subject_name") or task.text("subject")
    given = args.confirm
    if not given and ctx.interactive:
        ctx.say(
            f"{task.text('workflow')} of {named} ends as it is. What it has begun stays, and nobody removes it; it is listed by "
            f"kvorum task show {args.name}. A VM whose files it was working on can only be deleted then."
        )
        given = await ctx.ask("Type the name of what it works on to give it up: ")
    if given != named:
        raise UsageError(f"nothing was changed: confirm with --confirm {named}")
    body = GiveUpBody(reason=args.reason, confirm=named)
    started = await ctx.client.act("tasks", args.name, "give-up", body)
    write_done(
        ctx,
        started.item,
        f"{args.name}: its host is asked to give it up; kvorum task show {args.name} says what it leaves",
    )
    return 0


def _add(root: Root, parser: Parser) -> None:
    verbs = root.verbs_of("task")
    add_list(verbs, KIND)
    for name, run, summary in (
        ("show", show, "show a task, its result and its log"),
        ("wait", wait, "wait until a task ends; exit code 1 when it failed"),
        ("cancel", cancel, "ask tasks to stop where it is safe"),
        ("retry", retry, "try again at once what failed in tasks and waits"),
    ):
        add = add_names if name in ("cancel", "retry") else add_name
        add(verbs.add(name, run, summary, example=f"kvorum task {name} ID"), KIND)
    verb = verbs.add(
        "give-up",
        give_up,
        "end a stuck task as it is, and list what it leaves behind",
        example="kvorum task give-up ID --reason 'the storage is lost'\n"
        "kvorum task give-up ID --reason 'the storage is lost' --confirm web1",
        note="Only where no guest can be left running; mending the cause and kvorum task retry is always better.",
    )
    add_name(verb, KIND)
    verb.add_argument(
        "--reason", required=True, metavar="TEXT", help="why; it is kept with the task"
    )
    verb.add_argument(
        "--confirm", default="", metavar="NAME", help="the name of what the task works on"
    )


ADD = {"task": _add}
