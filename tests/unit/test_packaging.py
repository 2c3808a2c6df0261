"""Hold what installs and starts the product to what it promises: units, set-up, locks, entry points."""

import importlib.metadata
import importlib.util
import os
import re
import shutil
import subprocess
import tomllib
from configparser import RawConfigParser
from pathlib import Path

import pytest

from tests.tidy import ROOT

UNITS = ROOT / "packaging" / "systemd"
UNIT_NAMES = sorted(p.name for p in UNITS.iterdir())
SCRIPTS = [*sorted((ROOT / "packaging").glob("*.sh")), ROOT / ".ci" / "run"]


def run(*argv: str, **options) -> subprocess.CompletedProcess[str]:
    return subprocess.run(argv, capture_output=True, text=True, cwd=ROOT, check=False, **options)


class Unit(RawConfigParser):
    """A unit file; of a key given twice, the last value counts."""

    def __init__(self, name: str) -> None:
        super().__init__(strict=False, delimiters=("=",))
        self.optionxform = str
        self.read(UNITS / name)


@pytest.fixture
def units(tmp_path: Path) -> Path:
    """The units with paths that exist here, as verify wants them."""
    for name in UNIT_NAMES:
        text = (UNITS / name).read_text()
        text = text.replace("/opt/kvorum/venv/bin/kvorum-agent", "/bin/true")
        text = text.replace("/opt/kvorum/venv/bin/python", "/usr/bin/python3")
        text = text.replace("/opt/kvorum/lib/", f"{ROOT}/")
        (tmp_path / name).write_text(text)
    return tmp_path


def verify(folder: Path) -> str:
    """Return what systemd has to say about the units; nothing when they are right."""
    found = run(
        "systemd-analyze",
        "verify",
        "--man=no",
        *(str(folder / name) for name in UNIT_NAMES),
        env={**os.environ, "SYSTEMD_UNIT_PATH": f"{folder}:"},
    )
    return found.stdout + found.stderr + (f"exit {found.returncode}" if found.returncode else "")


def test_systemd_accepts_the_units(units):
    assert not verify(units)


@pytest.mark.parametrize(
    ("good", "bad"),
    [("Restart=always", "Restart=often"), ("KillMode=process", "KilMode=process")],
)
def test_systemd_refuses_a_planted_mistake(units, good, bad):
    agent = units / "kvorum-agent.service"
    agent.write_text(agent.read_text().replace(good, bad))
    assert verify(units)


@pytest.mark.parametrize(
    ("unit", "most"), [("kvorum-guard.service", 3.5), ("kvorum-serf.service", 3.0)]
)
def test_unit_is_hardened(units, unit, most):
    found = run("systemd-analyze", "security", "--offline=true", "--no-pager", str(units / unit))
    exposure = re.search(r"Overall exposure level for \S+: ([0-9.]+)", found.stdout)
    assert exposure, found.stderr
    assert float(exposure[1]) <= most


def test_guests_outlive_the_agent():
    agent = Unit("kvorum-agent.service")["Service"]
    assert agent["KillMode"] == "process"
    assert agent["Restart"] == "always"


def test_the_agent_shares_the_hosts_mounts():
    """In a mount namespace of its own, the network namespaces it makes would vanish at its restart."""
    private = {
        "ProtectSystem", "ProtectHome", "PrivateTmp", "PrivateDevices", "PrivateMounts", "ReadWritePaths",
        "ReadOnlyPaths", "InaccessiblePaths", "ProtectKernelTunables", "ProtectKernelModules",
        "ProtectKernelLogs", "ProtectControlGroups", "TemporaryFileSystem", "BindPaths", "RootDirectory",
    }  # fmt: skip
    assert not private & set(Unit("kvorum-agent.service")["Service"])


def test_a_dead_guard_stays_dead_so_that_the_watchdog_fires():
    guard = Unit("kvorum-guard.service")
    assert guard["Service"]["Restart"] == "no"
    assert guard["Service"]["OOMScoreAdjust"] == "-1000"
    assert guard["Service"]["SendSIGKILL"] == "no"
    assert guard["Unit"]["RefuseManualStop"] == "yes"


def test_the_guard_runs_without_the_virtual_environment():
    start = Unit("kvorum-guard.service")["Service"]["ExecStart"].split()
    assert start[:3] == ["/usr/bin/python3", "-I", "-S"]
    assert (ROOT / start[3].removeprefix("/opt/kvorum/lib/")).is_file()


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda p: p.name)
def test_scripts_parse_and_can_be_run(script):
    assert run("bash", "-n", str(script)).stderr == ""
    assert os.access(script, os.X_OK)


def test_set_up_with_nothing_to_do_is_silent_and_quick():
    if not (ROOT / ".venv" / ".setup-stamp").exists():
        pytest.skip("set up by hand, not by make setup")
    found = run("packaging/setup.sh", timeout=5)
    assert (found.returncode, found.stdout, found.stderr) == (0, "", "")


@pytest.mark.parametrize("name", ["kvorum-agent.service", "kvorum-serf.service"])
def test_who_keeps_the_cluster_together_goes_before_other_services(name):
    of_others = 100  # systemd's default
    assert int(Unit(name)["Service"]["CPUWeight"]) > of_others


def test_a_dry_run_of_the_installer_changes_nothing(tmp_path):
    copy = tmp_path / "packaging"
    shutil.copytree(ROOT / "packaging", copy)
    found = run(str(copy / "install.sh"), "--dry-run")
    assert found.returncode == 0, found.stderr
    lines = [line for line in found.stdout.splitlines() if not line.startswith("install")]
    assert all(line.startswith("+ ") for line in lines)
    assert [p.name for p in tmp_path.iterdir()] == ["packaging"]
    assert "libvirt-daemon-system" in found.stdout
    assert "mmdebstrap" not in found.stdout, "a package for tests only"


def test_what_the_installer_copies_exists():
    text = (ROOT / "packaging" / "install.sh").read_text()
    parts = re.search(r'cp -a ([\w. -]+) "\$prefix/lib\.new/"', text)
    assert parts
    hooks = dict(re.findall(r"install -m 755 (\S+) /etc/libvirt/hooks/(\S+)", text))
    assert set(hooks.values()) == {"qemu", "qemu_hook_ask.py"}
    missing = [p for p in [*parts[1].split(), *hooks] if not (ROOT / p).exists()]
    assert not missing


def locked(name: str) -> dict[str, str]:
    """Return the versions a lock file pins, in lower case with dashes."""
    text = (ROOT / name).read_text()
    pins = re.findall(
        r"^([A-Za-z0-9_.-]+)==(\S+) \\\n    --hash=sha256:[0-9a-f]{64}", text, re.MULTILINE
    )
    assert len(pins) == len(re.findall(r"^[A-Za-z0-9]", text, re.MULTILINE)), "a pin without a hash"
    return {name.lower().replace("_", "-"): version for name, version in pins}


@pytest.mark.parametrize("name", ["requirements", "requirements-dev"])
def test_lock_holds_what_the_list_asks_for(name):
    wanted = re.findall(r"^([\w.-]+)==(\S+)", (ROOT / f"{name}.in").read_text(), re.MULTILINE)
    assert wanted
    pins = locked(f"{name}.lock")
    assert {n: pins.get(n.lower().replace("_", "-")) for n, _ in wanted} == dict(wanted)


def test_product_and_tests_are_pinned_alike():
    product, both = locked("requirements.lock"), locked("requirements-dev.lock")
    assert product.items() <= both.items()


def test_installed_versions_are_the_locked_ones():
    pins = locked("requirements-dev.lock")
    installed = {name: importlib.metadata.version(name) for name in pins}
    assert installed == pins


def test_every_dependency_is_locked():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    names = {re.split(r"[=<>]", d)[0].lower() for d in project["dependencies"]}
    assert names <= set(locked("requirements.lock"))


@pytest.mark.parametrize("command", ["kvorum", "kvorum-agent", "kvorum-lab"])
def test_command_leads_to_a_function(command):
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    module, _, name = project["scripts"][command].partition(":")
    found = importlib.util.find_spec(module)
    assert found, f"no module {module}"
    assert re.search(rf"^def {name}\(", Path(found.origin).read_text(), re.MULTILINE)


def test_continuous_integration_runs_make_test():
    commands = (ROOT / ".ci" / "run").read_text().splitlines()
    assert commands[-1] == "exec make test"
