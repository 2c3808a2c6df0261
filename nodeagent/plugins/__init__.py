"""Plug-ins: installed Python packages that add to the product through entry points. See docs/plugins.md."""
