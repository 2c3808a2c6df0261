"""The demo: the main job end to end in the lab, observed from outside. `python -m tools.demo`, or `make demo`."""
