"""The failure matrix of high availability, played in the lab and judged from outside the product: `make ha-matrix`."""
