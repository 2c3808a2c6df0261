"""Drills on a living cluster: the observer that conducts them, and the host that breaks itself for one."""
