"""How fast the replicated store is, next to etcd on the same machine: `python -m tools.bench.raft`, or `make bench-raft`."""
