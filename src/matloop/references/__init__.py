"""Known crystals: the embedded textbook set, the user's files, the Materials Project."""
