"""Discovery replayed on crystals whose truth is known: every policy, the same pool and money."""
