"""Changes of the firewall on a real kernel: they end where a full load ends, and cost no packet."""

import itertools
import random
import re
import subprocess
from collections.abc import Iterator

import pytest

from netfabric.nft_model import delta_text, full_text
from netfabric.plan import desired_network
from netfabric.ruleset import ruleset_of
from tests.integration.netfabric_hosts import PREFIX, lab_of, sh
from tests.integration.test_netfabric_services import OPEN
from tests.unit.test_netfabric_texts import WEB, world

pytestmark = [pytest.mark.integration, pytest.mark.timeout(60)]


@pytest.fixture
def empty_ns() -> Iterator[str]:
    name = f"{PREFIX}-nft"
    sh("ip", "netns", "add", name)
    yield name
    sh("ip", "netns", "del", name)


def load(ns: str, text: str) -> None:
    done = subprocess.run(
        ["ip", "netns", "exec", ns, "nft", "-f", "-"],
        input=text,
        capture_output=True,
        text=True,
        check=False,
    )
    assert not done.returncode, done.stderr + text


def loaded(ns: str) -> list[str]:
    """The kernel's ruleset without the order of chains, sets and elements."""

    def in_order(elements: re.Match[str]) -> str:
        return "elements = " + ",".join(sorted(e.strip() for e in elements[1].split(",")))

    text = re.sub(
        r"elements = \{(.*?)\}", in_order, sh("nft", "list", "ruleset", ns=ns), flags=re.S
    )
    return sorted(
        block.strip("}\n\t ") for block in re.split(r"\n\t(?=chain|set|map)|\ntable", text)
    )


def test_a_chain_of_differences_ends_where_a_full_load_ends(empty_ns: str):
    rng = random.Random(3)
    rulesets = []
    for _ in range(15):
        rules = tuple(rng.sample(WEB, rng.randint(0, len(WEB))))
        view = world(web=rules, guests=rng.randint(0, 6))
        rulesets.append(ruleset_of(desired_network(view, f"h{rng.randint(1, 3)}")))
    load(empty_ns, full_text(rulesets[0]))
    for old, new in itertools.pairwise(rulesets):
        if old == new:
            continue
        load(empty_ns, delta_text(old, new))
        by_difference = loaded(empty_ns)
        load(empty_ns, full_text(new))
        assert by_difference == loaded(empty_ns)


def test_many_changes_lose_no_packet():
    with lab_of(1) as lab:
        (host,) = lab.hosts
        lab.set_groups(OPEN)
        a, b = lab.add_guests(a=(host, "open"), b=(host, "open"))
        ping = subprocess.Popen(
            [
                "ip",
                "netns",
                "exec",
                a.ns,
                "ping",
                "-n",
                "-q",
                "-i",
                "0.002",
                "-c",
                "1500",
                b.nic.ip,
            ],
            stdout=subprocess.PIPE,
            text=True,
        )
        views = [lab.view]
        lab.add_vm("c", host, "open")
        views.append(lab.view)
        changes = 0
        while ping.poll() is None:
            assert host.apply(views[(changes + 1) % 2]).changes > 0
            changes += 1
        out, _ = ping.communicate()
        assert "1500 received" in out
