"""Membership, leases, the guard, proofs that a host can no longer write, failover."""
