"""Plugins that propose crystals."""
