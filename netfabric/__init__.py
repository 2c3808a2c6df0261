"""Switches, port groups, security groups, DHCP: pure plans and the drivers that carry them out."""
