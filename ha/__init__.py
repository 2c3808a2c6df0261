"""High availability: leases, the guard, membership, placement and the decisions of failover.

The agent (`nodeagent`) runs what is decided here; the guard runs as a process of its own.
"""
