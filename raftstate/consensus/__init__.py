"""Consensus: one ordered log of opaque payloads, agreed on by the voters. `engine` is the interface; the rest implements it."""
