"""The reading of h2load's words in `make bench-api`."""

import pytest

from core.errors import UnavailableError
from tools.bench.api.load import read

SAID = """
finished in 2.00s, 1500.50 req/s, 556.74KB/s
requests: 4 total, 4 started, 4 done, 4 succeeded, 0 failed, 0 errored, 0 timeout
status codes: 4 2xx, 0 3xx, 0 4xx, 0 5xx
"""
LOG = "1700000000000000\t200\t4000\n1700000000000001\t200\t1000\n1700000000000002\t200\t2000\n"


def test_times_are_sorted_before_a_quantile_is_taken():
    load = read(SAID, LOG)
    assert (load.per_second, load.p50_ms, load.p99_ms) == (1500.5, 2.0, 4.0)


@pytest.mark.parametrize(
    ("said", "log"),
    [
        (SAID.replace("0 4xx", "1 4xx"), LOG),
        (SAID.replace("0 5xx", "3 5xx"), LOG),
        (SAID, ""),
        ("nothing", LOG),
    ],
)
def test_a_run_with_refusals_or_without_answers_is_no_measurement(said, log):
    with pytest.raises(UnavailableError):
        read(said, log)
