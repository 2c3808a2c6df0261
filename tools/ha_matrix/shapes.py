"""The clusters that rows are played on."""

from __future__ import annotations

from tools.ha_matrix.verdict import THREE, Shape

MOONSHOT = Shape("moonshot profile", profile="moonshot")
WITNESS = Shape("two hosts and a witness", witness=("h3",))
FOUR = Shape("four hosts", hosts=4)
BOARDS = Shape("three hosts with BMCs", boards=True)
CLOCK = Shape("three hosts with clocks of their own", clock=True)
HOLLOW = Shape("three hosts with hollow guests", hollow=True)

ORDER = (THREE, WITNESS, FOUR, BOARDS, CLOCK, HOLLOW, MOONSHOT)
"""In this order they are made, each once if no row spoils it."""
