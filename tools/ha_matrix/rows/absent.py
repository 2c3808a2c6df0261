"""Rows that can't be played here, and why. They are written as `not run`, never as passed."""

from __future__ import annotations

from tools.ha_matrix.verdict import Row

ROWS = (
    Row(
        32,
        "mandatory rule without a legal host",
        "the VM is blocked and starts by itself when a host returns",
        why_not="there are no placement rules yet",
    ),
    Row(
        35,
        "RBD blocklist entry expires",
        "the old writer is still refused after 70 min",
        why_not="needs a Ceph cluster; storage of this kind isn't there yet",
    ),
)
