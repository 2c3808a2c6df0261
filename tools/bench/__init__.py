"""What the product costs: `python -m tools.bench`, or `make bench`. Measured in the lab, from outside the processes."""
