"""Certificates of the cluster's hosts, and the sealing of its secrets. Used by joining, and by recovery without an agent."""
