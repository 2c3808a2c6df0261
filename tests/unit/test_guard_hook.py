"""libvirt's hook without a guard: what is no start of ours passes, and a start never does."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import pytest

from ha.guard.control import answer
from ha.guard.lease_clock import Refusal
from ha.guard.qemu_hook_ask import YES

ROOT = Path(__file__).resolve().parents[2]
HOOK, ASK = ROOT / "ha/guard/qemu_hook.sh", ROOT / "ha/guard/qemu_hook_ask.py"
OURS = "kvorum-4f0c2a5e-8d1b-4c7e-9a3d-2b6f1e0c9d8a"


def hook(directory: Path, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [directory / "qemu", *words], capture_output=True, text=True, timeout=20, check=False
    )


@pytest.fixture
def hooks(tmp_path: Path) -> Path:
    shutil.copy(HOOK, tmp_path / "qemu")
    shutil.copy(ASK, tmp_path / ASK.name)
    return tmp_path


@pytest.mark.parametrize("operation", ["prepare", "migrate", "restore"])
def test_no_answer_of_the_guard_means_no(hooks, operation):
    refused = hook(hooks, OURS, operation, "begin", "-")
    assert refused.returncode == 1
    assert "does not answer" in refused.stderr


def test_the_hook_tells_the_guards_answers_apart_by_how_they_begin():
    """It doesn't parse them, for speed, so the guard may not begin its answers otherwise."""

    def refuse(request):
        raise Refusal("not-granted", "not granted")

    yes = json.dumps(answer(b'{"op": "check"}', lambda request: {"generation": 3})).encode()
    no = json.dumps(answer(b'{"op": "check"}', refuse)).encode()
    broken = json.dumps(answer(b"{", refuse)).encode()
    assert [line.startswith(YES) for line in (yes, no, broken, b"", b"{}")] == [
        True,
        False,
        False,
        False,
        False,
    ]


@pytest.mark.parametrize(
    "words",
    [
        (OURS, "start", "begin", "-"),
        (OURS, "started", "begin", "-"),
        (OURS, "reconnect", "begin", "-"),
        (OURS, "stopped", "end", "-"),
        (OURS, "release", "end", "-"),
        ("someone-elses", "prepare", "begin", "-"),
        (f"{OURS} prepare", "started", "begin", "-"),
    ],
    ids=" ".join,
)
def test_what_is_no_start_of_ours_passes(hooks, words):
    assert hook(hooks, *words).returncode == 0


@pytest.mark.parametrize("name", ["kvorum-../etc", "kvorum-$(touch x)", "kvorum- -c", f"{OURS}\n"])
def test_a_name_that_only_begins_like_ours_is_refused_and_never_executed(hooks, name):
    refused = hook(hooks, name, "prepare", "begin", "-")
    assert refused.returncode == 1
    assert "is not a domain that kvorum made" in refused.stderr
    assert {path.name for path in hooks.iterdir()} == {"qemu", ASK.name}


def test_nothing_starts_where_half_of_the_hook_is_missing(hooks):
    (hooks / ASK.name).unlink()
    assert hook(hooks, OURS, "prepare", "begin", "-").returncode not in (0, None)
    assert hook(hooks, OURS, "started", "begin", "-").returncode == 0
