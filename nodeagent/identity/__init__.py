"""Join tokens and access tokens. Certificates and sealed secrets are in `core.identity`."""
