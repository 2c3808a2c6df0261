"""Workflows of VMs: XML definitions that name steps, and the steps."""
