"""Rows that can't be played here, and why. They are written as `not run`, never as passed."""

from __future__ import annotations

from tools.ha_matrix.verdict import Row

ROWS = (
    Row(
        35,
        "RBD blocklist entry expires",
        "the old writer is still refused after 70 min",
        why_not="needs a Ceph cluster; storage of this kind isn't there yet",
    ),
)
