"""Rules of the house that no linter knows: each is a function from a parsed file to findings.

`tests/unit/test_tidy.py` runs them over the whole tree, and over planted faults, so that a rule that has gone blind
is noticed. `python -m tests.tidy` prints the largest files and functions: places to look at, nothing more.
"""

import ast
import functools
import re
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("core", "raftstate", "netfabric", "storage", "ha", "nodeagent", "tools", "kvorum_sdk")

# Who may start processes other than through core.command.run, and why.
MAY_START_PROCESSES = {
    "core/command.py": "this is the one place",
    "tools/lab/": "the lab holds hosts as long-lived processes and kills them; it is outside the product",
    "tools/demo/": "the demo watches from outside, with a ping that runs along",
    "tools/bench/api/": "the bench holds LXD as a long-lived process, outside the product",
    "tools/bench/raft/": "the bench holds voters and etcd as long-lived processes, outside the product",
    "tests/": "tests stand outside the product",
}
# Who may read the environment, and why.
MAY_READ_ENVIRONMENT = {
    "nodeagent/main.py": "the composition root",
    "core/command.py": "the environment of child processes is made here",
    "ha/guard/": "a process of its own, with its own composition root",
    "tools/": "commands that a person starts",
    "tests/": "tests stand outside the product",
}
LOG_METHODS = {"debug", "info", "warning", "error", "critical", "exception", "log"}
STARTERS = {
    "os": {"system", "popen", "fork", "forkpty", "posix_spawn", "posix_spawnp"},
    "asyncio": {"create_subprocess_exec", "create_subprocess_shell"},
}
# In pieces, so that this file doesn't find itself.
FORBIDDEN_WORDS = (
    "pypi" + ".org",
    "python" + "hosted",
    "npm" + "js.",
    "registry." + "npm",
    "deb." + "debian.org",
    "/wo" + "rk/",
    "/tmp/" + "kv/",
    "helper " + "session",
    "far" + "m-studio",
)
SECRETS = re.compile(
    r"-----BEGIN (?:[A-Z]+ )?PRIVATE KEY-----\s+[A-Za-z0-9+/]{20}"
    r"|\bAKIA[0-9A-Z]{16}\b|\bgh[pousr]_[A-Za-z0-9]{30,}\b|\bxox[bap]-[0-9A-Za-z-]{20,}"
)


@dataclass(frozen=True, slots=True)
class Source:
    """One Python file: its path from the root with slashes, and its tree."""

    path: str
    tree: ast.Module

    def under(self, places: dict[str, str]) -> bool:
        """Tell whether the file is one of `places`, or lies below one that ends in a slash."""
        return any(self.path.startswith(p) if p.endswith("/") else self.path == p for p in places)


Rule = Callable[[Source], Iterator[tuple[int, str]]]


def sources(*tops: str) -> Iterator[Source]:
    """Yield every Python file of the packages and tests, or of some of them; all trees at once would fill the memory."""
    paths = sorted(p for top in tops or (*PACKAGES, "tests") for p in (ROOT / top).rglob("*.py"))
    for path in paths:
        yield Source(path.relative_to(ROOT).as_posix(), ast.parse(path.read_text()))


@functools.cache
def findings_of_the_tree() -> dict[Rule, list[str]]:
    """Return what each rule finds, in one pass over all files."""
    found: dict[Rule, list[str]] = {rule: [] for rule in RULES}
    for source in sources():
        for rule in RULES:
            found[rule] += [f"{source.path}:{line}: {what}" for line, what in rule(source)]
    return found


def dotted(node: ast.expr) -> str:
    """Return `a.b.c` for a chain of names, and an empty string for anything else."""
    match node:
        case ast.Name(id=name):
            return name
        case ast.Attribute(value=value, attr=attr) if base := dotted(value):
            return f"{base}.{attr}"
        case _:
            return ""


def calls(source: Source) -> Iterator[ast.Call]:
    """Yield every call in the file."""
    yield from (node for node in ast.walk(source.tree) if isinstance(node, ast.Call))


def imports(source: Source) -> Iterator[tuple[int, str, str]]:
    """Yield (line, module, name) for every import; `name` is empty for `import module`."""
    for node in ast.walk(source.tree):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name, "") for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from ((node.lineno, node.module or "", alias.name) for alias in node.names)


def tasks_live_in_groups(source: Source) -> Iterator[tuple[int, str]]:
    """A task outside a TaskGroup is lost when its parent fails; a task without a name is lost in a dump."""
    for call in calls(source):
        match call.func:
            case ast.Attribute(value=owner, attr="create_task"):
                last = dotted(owner).rpartition(".")[2].lower().lstrip("_")
                if not (last == "tg" or last.endswith("group")):
                    yield call.lineno, "create_task outside a TaskGroup (call the group `group`)"
                elif not any(k.arg == "name" for k in call.keywords):
                    yield call.lineno, "a task without a name"
            case ast.Attribute(attr="ensure_future"):
                yield call.lineno, "ensure_future: use a TaskGroup"


def private_names_stay_private(source: Source) -> Iterator[tuple[int, str]]:
    """A leading underscore promises that no other module depends on the name."""
    for line, module, name in imports(source):
        ours = module.partition(".")[0] in PACKAGES
        if ours and any(
            part.startswith("_") and not part.startswith("__")
            for part in (*module.split("."), name)
        ):
            yield line, f"private name of another module: {module}.{name}".rstrip(".")


def no_pickle(source: Source) -> Iterator[tuple[int, str]]:
    """Reading a pickle runs code that its writer chose."""
    for line, module, name in imports(source):
        if {"pickle", "cPickle", "dill", "marshal", "shelve"} & {module.partition(".")[0]}:
            yield line, f"import of {module or name}"


def processes_start_in_one_place(source: Source) -> Iterator[tuple[int, str]]:
    """`core.command.run` kills the whole group at the deadline and never touches a shell."""
    for call in calls(source):
        if any(
            k.arg == "shell" and isinstance(k.value, ast.Constant) and k.value.value
            for k in call.keywords
        ):
            yield call.lineno, "shell=True"
    if source.under(MAY_START_PROCESSES):
        return
    for line, module, name in imports(source):
        if module.partition(".")[0] in {"subprocess", "pty", "multiprocessing"}:
            yield line, f"import of {module}"
        elif name in STARTERS.get(module, ()):
            yield line, f"import of {module}.{name}"
    for call in calls(source):
        module, _, name = dotted(call.func).rpartition(".")
        if name in STARTERS.get(module, ()) or (
            module == "os" and name.startswith(("exec", "spawn"))
        ):
            yield call.lineno, f"{module}.{name}"


def environment_is_read_at_the_top(source: Source) -> Iterator[tuple[int, str]]:
    """Settings are passed down by constructor, so that a test can choose them."""
    if source.under(MAY_READ_ENVIRONMENT):
        return
    for node in ast.walk(source.tree):
        if isinstance(node, ast.Attribute) and dotted(node) in {"os.environ", "os.getenv"}:
            yield node.lineno, dotted(node)


def log_sentences_are_fixed(source: Source) -> Iterator[tuple[int, str]]:
    """A log sentence is a key to search for; what varies goes into `extra`."""
    for call in calls(source):
        owner, _, method = dotted(call.func).rpartition(".")
        name = owner.rpartition(".")[2].lstrip("_")
        if method in LOG_METHODS and name in {"log", "logger", "logging"} and call.args:
            text = call.args[1 if method == "log" and len(call.args) > 1 else 0]
            match text:
                case (
                    ast.JoinedStr()
                    | ast.BinOp(op=ast.Mod() | ast.Add())
                    | ast.Call(func=ast.Attribute(attr="format"))
                ):
                    yield call.lineno, "a log sentence put together"


def modules_say_what_they_are_for(source: Source) -> Iterator[tuple[int, str]]:
    """A reader learns from the first lines what the module does and who calls it."""
    if not (ast.get_docstring(source.tree) or "").strip():
        yield 1, "no module docstring"


def tests_patch_no_dotted_paths(source: Source) -> Iterator[tuple[int, str]]:
    """A patched path breaks when code moves and hides a dependency that should be passed in."""
    for call in calls(source):
        owner, _, name = dotted(call.func).rpartition(".")
        first = call.args[0] if call.args else None
        by_path = (
            isinstance(first, ast.Constant) and isinstance(first.value, str) and "." in first.value
        )
        patcher = dotted(call.func) in {
            "patch",
            "mock.patch",
            "mocker.patch",
            "unittest.mock.patch",
        }
        if by_path and (patcher or (owner == "monkeypatch" and name in {"setattr", "delattr"})):
            yield call.lineno, "patching by dotted path"


def the_guard_stands_alone(source: Source) -> Iterator[tuple[int, str]]:
    """The guard must run when everything else of ours is broken, so it imports the standard library and itself."""
    if not source.path.startswith("ha/guard/"):
        return
    folder = ROOT / "ha" / "guard"
    siblings = {p.stem for p in folder.iterdir()} if folder.is_dir() else set()
    for line, module, _ in imports(source):
        top = module.partition(".")[0]
        own = module.startswith("ha.guard") or top in siblings
        if not own and top not in sys.stdlib_module_names:
            yield line, f"the guard imports {module}"


RULES: tuple[Rule, ...] = (
    tasks_live_in_groups,
    private_names_stay_private,
    no_pickle,
    processes_start_in_one_place,
    environment_is_read_at_the_top,
    log_sentences_are_fixed,
    modules_say_what_they_are_for,
    tests_patch_no_dotted_paths,
    the_guard_stands_alone,
)


def words_that_do_not_belong(text: str) -> list[str]:
    """Return the forbidden words and secrets found in a file of any kind."""
    low = text.lower()
    found = [word for word in FORBIDDEN_WORDS if word in low]
    return found + [m.group(0)[:30] for m in SECRETS.finditer(text)]


def print_sizes(count: int = 10) -> None:
    """Print the largest files and functions, by lines."""
    files: list[tuple[int, str]] = []
    functions: list[tuple[int, str]] = []
    for source in sources():
        files.append((len((ROOT / source.path).read_text().splitlines()), source.path))
        functions += [
            ((node.end_lineno or node.lineno) - node.lineno + 1, f"{source.path}: {node.name}")
            for node in ast.walk(source.tree)
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        ]
    for title, rows in (("files", files), ("functions", functions)):
        print(f"largest {title} (lines):")
        for size, name in sorted(rows, reverse=True)[:count]:
            print(f"  {size:5} {name}")


if __name__ == "__main__":
    print_sizes()
