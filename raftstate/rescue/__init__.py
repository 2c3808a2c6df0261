"""The operator's way out: backups of the state, and new beginnings of a host whose agent is stopped."""
