"""Switching hosts' power through their management boards."""

from __future__ import annotations
