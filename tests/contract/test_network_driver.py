"""One contract for every network back end and every firewall that stands no packets: in memory, and those of a plug-in.

The product's own are held to more, with packets, in `tests/integration/test_netfabric_*.py`.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from netfabric.driver import FirewallDriver, NetworkDriver
from netfabric.memory import InMemoryNetwork
from netfabric.plan import NetworkPlan, desired_network
from nodeagent.plugins.drivers import Choice, HostDrivers
from nodeagent.plugins.plugins import Plugins
from tests.unit.netfabric_views import small_view

EXAMPLE = Path(__file__).parents[1] / "example_plugin"
