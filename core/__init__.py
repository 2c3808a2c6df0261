"""Ground layer: clocks, errors, commands, identity of things. Knows no domain but `core.model`'s data."""
