"""Bootable guest images for the lab, the tests and the demo, built from Debian packages.

`python -m tools.guests tiny|full` builds one; tests call `build.guest_image`. They exist so that the
product is tried with real guests, which boot by BIOS from their own disk as any user's image does.
"""
