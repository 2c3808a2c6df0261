"""Prints the OpenAPI document, for programs that make clients of it: `python -m nodeagent.api.description`."""

from __future__ import annotations

import sys

import msgspec

from nodeagent.api.description.document import openapi

sys.stdout.buffer.write(msgspec.json.format(msgspec.json.encode(openapi("")), indent=1) + b"\n")
