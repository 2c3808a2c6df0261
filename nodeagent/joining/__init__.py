"""How a cluster begins and how hosts become members of it."""
