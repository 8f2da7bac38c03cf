"""Networks that learn to write crystals, each an architecture of its own."""
