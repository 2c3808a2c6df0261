"""Hold the tree to the rules of `tests.tidy`, and each rule to a fault planted for it."""

import ast
import importlib.metadata
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pysyncobj
import pytest

from tests import tidy

PLANTED = [
    (tidy.tasks_live_in_groups, "core/a.py", "asyncio.create_task(x())"),
    (tidy.tasks_live_in_groups, "core/a.py", "loop.create_task(x(), name='x')"),
    (tidy.tasks_live_in_groups, "core/a.py", "group.create_task(x())"),
    (tidy.tasks_live_in_groups, "tests/a.py", "asyncio.ensure_future(x())"),
    (tidy.private_names_stay_private, "ha/a.py", "from core.clock import _now"),
    (tidy.private_names_stay_private, "ha/a.py", "import core._inner.clock"),
    (tidy.no_pickle, "core/a.py", "import pickle"),
    (tidy.no_pickle, "tests/a.py", "from shelve import open"),
    (tidy.processes_start_in_one_place, "storage/a.py", "import subprocess"),
    (tidy.processes_start_in_one_place, "storage/a.py", "os.system('x')"),
    (tidy.processes_start_in_one_place, "storage/a.py", "os.execvp('x', [])"),
    (tidy.processes_start_in_one_place, "storage/a.py", "asyncio.create_subprocess_exec('x')"),
    (
        tidy.processes_start_in_one_place,
        "ha/a.py",
        "from asyncio import create_subprocess_shell",
    ),
    (tidy.processes_start_in_one_place, "tools/lab/a.py", "subprocess.run('x', shell=True)"),
    (tidy.environment_is_read_at_the_top, "core/a.py", "x = os.environ['HOME']"),
    (tidy.environment_is_read_at_the_top, "core/a.py", "x = os.getenv('HOME')"),
    (tidy.log_sentences_are_fixed, "core/a.py", "log.info(f'vm {x} started')"),
    (tidy.log_sentences_are_fixed, "core/a.py", "self._log.warning('vm %s' % x)"),
    (tidy.log_sentences_are_fixed, "core/a.py", "log.log(10, 'vm {}'.format(x))"),
    (tidy.modules_say_what_they_are_for, "core/a.py", "x = 1"),
    (tidy.tests_patch_no_dotted_paths, "tests/a.py", "monkeypatch.setattr('core.clock.now', 1)"),
    (tidy.tests_patch_no_dotted_paths, "tests/a.py", "mock.patch('core.clock.now')"),
    (tidy.the_guard_stands_alone, "ha/guard/a.py", "import msgspec"),
    (tidy.the_guard_stands_alone, "ha/guard/a.py", "from core.clock import Clock"),
]
FINE = [
    (tidy.tasks_live_in_groups, "core/a.py", "self._group.create_task(x(), name='x')"),
    (tidy.private_names_stay_private, "ha/a.py", "from __future__ import annotations"),
    (tidy.processes_start_in_one_place, "core/command.py", "asyncio.create_subprocess_exec('x')"),
    (tidy.environment_is_read_at_the_top, "nodeagent/main.py", "x = os.environ"),
    (tidy.log_sentences_are_fixed, "core/a.py", "log.info('vm started', extra={'vm': f'{x}'})"),
    (tidy.the_guard_stands_alone, "ha/guard/a.py", "import socket, ha.guard.lease"),
]


def findings(rule: tidy.Rule, path: str, text: str) -> Iterator[tuple[int, str]]:
    return rule(tidy.Source(path, ast.parse(text)))


@pytest.mark.timeout(60)  # the first one parses every file
@pytest.mark.parametrize("rule", tidy.RULES, ids=lambda r: r.__name__)
def test_tree_keeps_the_rule(rule):
    found = tidy.findings_of_the_tree()[rule]
    assert not found, "\n".join([rule.__doc__, *found])


@pytest.mark.parametrize(("rule", "path", "text"), PLANTED)
def test_a_planted_fault_is_found(rule, path, text):
    assert list(findings(rule, path, text))


@pytest.mark.parametrize(("rule", "path", "text"), FINE)
def test_clean_code_is_left_alone(rule, path, text):
    assert not list(findings(rule, path, text))


def test_every_rule_has_a_planted_fault():
    assert {rule for rule, _, _ in PLANTED} == set(tidy.RULES)


def tracked_files() -> list[Path]:
    """Every file that a commit holds or would hold."""
    names = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"],
        cwd=tidy.ROOT,
        capture_output=True,
        check=True,
        text=True,
    ).stdout
    return [p for name in names.split("\0") if name and (p := tidy.ROOT / name).is_file()]


def test_files_name_no_registry_no_place_of_work_and_no_secret():
    found = {
        str(path.relative_to(tidy.ROOT)): words
        for path in tracked_files()
        if (words := tidy.words_that_do_not_belong(path.read_text(errors="replace")))
    }
    assert not found


@pytest.mark.parametrize("word", [*tidy.FORBIDDEN_WORDS, "AKIA" + "ABCDEFGHIJKLMNOP"])
def test_a_planted_word_is_found(word):
    assert tidy.words_that_do_not_belong(f"see {word} for more")


def test_the_pinned_pysyncobj_is_the_one_imported():
    """Debian's python3-pysyncobj is visible through --system-site-packages and loses committed data."""
    assert importlib.metadata.version("pysyncobj") == "0.3.17"
    assert "dist-packages" not in pysyncobj.__file__


def test_msgpack_python_is_not_installed():
    """It installs over the msgpack package, with an old release, in silence."""
    with pytest.raises(importlib.metadata.PackageNotFoundError):
        importlib.metadata.version("msgpack-python")
