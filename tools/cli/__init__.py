"""The `kvorum` command: one file a noun, each a thin skin over `tools.sdk`."""
