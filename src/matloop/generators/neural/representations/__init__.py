"""How a crystal is written down for a network."""
