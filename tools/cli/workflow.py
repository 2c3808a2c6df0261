"""`kvorum workflow`: workflows of plug-ins that people may run."""

from __future__ import annotations

from argparse import Namespace

from tools.cli.collection import Kind, add_list
from tools.cli.context import Context
from tools.cli.output import Column, text, write_done
from tools.cli.parser import Parser, Root, UsageError, add_callback, add_wait
from tools.cli.waiting import finish
from tools.sdk.bodies import RunWorkflowBody
from tools.sdk.items import Item


def _inputs(workflow: Item) -> str:
    """Return what a workflow takes; what may be left out is in brackets."""
    shown = []
    for one in workflow.items("inputs"):
        word = f"{one.text('name')}={one.text('type').upper()}"
        shown.append(word if one.flag("required") else f"[{word}]")
    return " ".join(shown) or "-"


KIND = Kind(
    noun="workflow",
    plural="workflows",
    word="workflow",
    columns=(
        text("NAME", "name"),
        text("ON", "run_on"),
        Column("ARGUMENTS", _inputs),
        text("DESCRIPTION", "description"),
    ),
    empty="no workflows that can be run: plug-ins bring them (kvorum plugin list)",
    tagged=False,
)


async def run(args: Namespace, ctx: Context) -> int:
    """Run a workflow and wait for it."""
    arguments: dict[str, str] = {}
    for given in args.arg:
        name, equals, value = given.partition("=")
        if not equals or not name:
            raise UsageError(f"--arg {given[:80]!r} is no argument: give NAME=VALUE")
        if name in arguments:
            raise UsageError(f"--arg {name} is given twice")
        arguments[name] = value
    body = RunWorkflowBody(vm=args.vm, arguments=arguments)
    started = await ctx.client.act(
        "workflows", args.name, "run", body, callback_url=args.callback_url
    )
    title = f"{args.name} on {args.vm}"
    if await finish(ctx, started, title, wait=args.wait):
        assert started.task is not None, "a run always has its task"
        task = await ctx.client.get("tasks", started.task.id)
        result = task.item("result")
        came = ", ".join(f"{key}: {result.text(key)}" for key in result.raw)
        write_done(ctx, task, f"{title}: done" + (f" ({came})" if came else ""))
    return 0


def _add(root: Root, parser: Parser) -> None:
    del parser
    verbs = root.verbs_of("workflow")
    add_list(verbs, KIND)
    verb = verbs.add(
        "run",
        run,
        "run a workflow of a plug-in on a VM",
        example="kvorum workflow run stop-and-note --vm web1 --arg note='out of use'",
    )
    verb.add_argument("name", metavar="WORKFLOW", help="the workflow's name")
    verb.add_argument(
        "--vm", required=True, metavar="VM", names_of="vms", help="the VM that it is run on"
    )
    verb.add_argument(
        "--arg",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="an argument, as kvorum workflow list says; may be given several times",
    )
    add_wait(verb)
    add_callback(verb)


ADD = {"workflow": _add}
