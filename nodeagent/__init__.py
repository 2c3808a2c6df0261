"""The agent's process: composition root, HTTP API, compute, controllers."""
