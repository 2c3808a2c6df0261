"""The agent's services: what the API asks for, and the controllers that make it so on this host."""
