"""The Python client of the HTTP API: `tools.sdk.client.Client` is the way in.

Used by the `kvorum` command, the demo and by programs of users. Nothing here reads the environment.
Nothing is imported here, so that a help text doesn't wait for an HTTP library.
"""
