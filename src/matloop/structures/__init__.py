"""Pure functions on crystals: geometry, chemistry, symmetry, identity, hulls."""
