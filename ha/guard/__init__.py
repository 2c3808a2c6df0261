"""The guard: a small process that holds the host's lease, feeds the watchdog and kills guests when the lease ends.

Standard library only, and nothing of this project outside this package: it must go on when everything else fails.
"""
