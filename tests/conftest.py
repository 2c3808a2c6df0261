"""What all tests share: the options behind `make sim SEED=…` and `pytest --rewrite`, and who may run what."""

import os
import signal

import pytest
from hypothesis import HealthCheck, settings

# Under nohup, and in some CI, an interrupt is ignored and every child inherits that; tests interrupt commands.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# On a loaded machine an example may take long; a failure prints how to repeat it.
settings.register_profile(
    "kvorum", deadline=None, print_blob=True, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("kvorum")


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("kvorum")
    group.addoption("--seeds", type=int, default=20, help="random tests run seeds 0..N-1")
    group.addoption("--seed", type=int, default=None, help="random tests run this one seed")
    group.addoption(
        "--every-step",
        action="store_true",
        help="kill at every step of I/O, not at a fourth of them",
    )
    group.addoption(
        "--linear-s", type=float, default=10.0, help="how long clients of real processes run"
    )
    group.addoption("--rewrite", action="store_true", help="write golden files; then read the diff")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Give each test that takes a `seed`, and doesn't choose seeds itself, the seeds asked for."""
    chosen = any(
        "seed" in str(mark.args[0]).split(",") if mark.args else False
        for mark in metafunc.definition.iter_markers("parametrize")
    )
    if "seed" in metafunc.fixturenames and not chosen:
        one = metafunc.config.getoption("seed")
        seeds = [one] if one is not None else range(metafunc.config.getoption("seeds"))
        metafunc.parametrize("seed", seeds)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if os.geteuid() == 0:
        return
    no_root = pytest.mark.skip(reason="makes network namespaces, which takes root")
    for item in items:
        if item.get_closest_marker("integration"):
            item.add_marker(no_root)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]):
    """Say how to repeat a random test that failed."""
    report = yield
    seed = getattr(item, "callspec", None) and item.callspec.params.get("seed")
    if report.failed and seed is not None:
        target = "sim-ha" if "sim_ha" in item.nodeid else "sim"
        report.sections.append(("repeat", f"make {target} SEED={seed}  ({item.nodeid})"))
    return report


@pytest.fixture
def rewrite(request: pytest.FixtureRequest) -> bool:
    """Tell whether golden files shall be written instead of compared."""
    return bool(request.config.getoption("rewrite"))
