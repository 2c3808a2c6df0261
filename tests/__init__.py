"""Tests of the project; see CONTRIBUTING.md for the kinds and where each goes."""
