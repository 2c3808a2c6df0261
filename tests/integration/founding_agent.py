"""The agent, founding clusters with another HA profile than the default: `python -m tests.integration.founding_agent moonshot`.

All else is the product's. The profile is part of the replicated state from the first entry on, as if it had been chosen.
"""

from __future__ import annotations

import sys
from functools import partial

from core.model import Mesh
from nodeagent import main as agent
from nodeagent.joining import founding


def main() -> None:
    """Run the agent."""
    profile = sys.argv.pop(1)
    vars(founding)["Mesh"] = partial(Mesh, ha_profile=profile)
    agent.main()


if __name__ == "__main__":
    main()
