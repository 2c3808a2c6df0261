"""Writes the typed part of the SDK from the OpenAPI document; run by `make sdk`, held to the result by a test."""
