"""`make bench-api`: the API of one agent next to LXD's, under the same load."""
