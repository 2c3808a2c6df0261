"""The API against its own description: requests made from the schemas, right and wrong ones, and what comes back.

Schemathesis is the attacker, in a process of its own. No answer may be a fault, a status or a shape that the description
doesn't have; what the schemas forbid may not be accepted; nothing may work without credentials.
"""

import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest
from aiohttp.test_utils import TestServer

from core.command import CommandError, run
from nodeagent.api.limits import ApiLimits
from tests.api import app_of
from tests.one_member import ADMIN_TOKEN

# A body can be right by its schema and still be refused: an address in no network, a name that is taken.
# Of `/v1/members/policy`, `/v1/members/vip`, `/v1/members/arbitration` and `/v1/members/{host}` a router's `Allow` can't tell which one is meant.
NOT_CHECKED = "positive_data_acceptance,allow_header_conformance"
# What is for the host itself needs a unix socket, joining has tests of its own, and images need a real storage.
LEFT_OUT = r"^/v1/(local|join|state|images)(/|$)"
CONFIG = """
[checks.negative_data_rejection]
expected-statuses = [400, 401, 403, 404, 405, 406, 409, 412, 413, 415, 422, 503]

[parameters]
vm = "web1"
group = "web"
host = "h2"
storage = "local"
ref = "default"
"""


async def attack(server: TestServer, directory: Path, *, seed: int, examples: int) -> list[str]:
    """Return what an attack found, operation by operation."""
    config, report = directory / "schemathesis.toml", directory / "report.xml"
    config.write_text(CONFIG)
    try:
        await run(
            [
                *(sys.executable, "-m", "schemathesis.cli", "--config-file", str(config), "run"),
                str(server.make_url("/v1/openapi.json")),
                *("--header", f"Authorization: Bearer {ADMIN_TOKEN}"),
                *("--exclude-path-regex", LEFT_OUT, "--exclude-checks", NOT_CHECKED),
                *("--phases", "coverage,fuzzing", "--max-examples", str(examples)),
                *("--seed", str(seed), "--request-timeout", "20", "--no-color"),
                *("--report", "junit", "--report-junit-path", str(report)),
            ],
            timeout_s=300,
        )
    except CommandError:
        if not report.is_file():  # it did not even begin
            raise
    cases = list(ElementTree.parse(report).iter("testcase"))
    assert len(cases) > 50
    return [
        f"{case.get('name')}: {failure.get('message')} {failure.text}"
        for case in cases
        for failure in (*case.iter("failure"), *case.iter("error"))
    ]


@pytest.mark.timeout(320)
async def test_no_request_gets_an_answer_that_the_description_does_not_have(member, tmp_path):
    limits = ApiLimits(requests_burst=1_000_000)  # one attacker; what limits do is tested elsewhere
    async with TestServer(app_of(member, limits=limits)) as server:
        found = await attack(server, tmp_path, seed=1, examples=8)
    assert found == [], "\n\n".join(found)
