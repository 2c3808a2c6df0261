"""The HTTPS API under /v1 and its twin on the root-only unix socket. Any agent answers any request."""
