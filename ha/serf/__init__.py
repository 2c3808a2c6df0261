"""Gossip membership through a local Serf agent: its configuration, its RPC, and the view made from it.

Serf says who is there within seconds and carries hints. Nothing is decided on gossip alone.
"""
