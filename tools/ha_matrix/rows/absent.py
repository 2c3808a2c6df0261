"""Rows that can't be played here, and why. They are written as `not run`, never as passed."""

from __future__ import annotations

from tools.ha_matrix.verdict import Row

NO_STORAGE_FAULT = (
    "this kernel has no NFS server, iSCSI or device mapper, and the lab's shared storage is a bind-mounted directory: files "
    "that a QEMU has open can't be taken away from it"
)

ROWS = (
    Row(
        19,
        "storage is lost on a VM's host only",
        "the VM is paused, then killed and started elsewhere",
        32.0,
        why_not=NO_STORAGE_FAULT,
    ),
    Row(
        20,
        "storage is lost everywhere",
        "nothing is started; guests go on when it is back",
        why_not=NO_STORAGE_FAULT,
    ),
    Row(
        21,
        "a QEMU survives SIGKILL (D state) at self-fencing",
        "the watchdog resets the host",
        18.0,
        why_not="needs a file system that never answers under a guest's disk; here it would also keep the lab host itself from "
        "being switched off. The guard's side is tested in tests/unit, and played in virtual time by `make sim-ha`",
    ),
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
