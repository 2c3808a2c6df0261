"""Failover in virtual time: the product's guard, judge, manager and VM plan in a world that goes wrong by one seed.

`python -m tests.sim_ha.long --seed N` repeats one seed and tells its story.
"""
