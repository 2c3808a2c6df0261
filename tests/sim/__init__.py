"""Whole parts of the product in virtual time, driven by seeds."""
