"""The lab: many hosts on one machine, made of namespaces, with real libvirt, QEMU and serf.

`kvorum-lab` is its command, `tools.lab.lab.Lab` its Python side, `docs/lab.md` its manual. It exists
because everything this product promises shows only on several hosts that fail.
"""
