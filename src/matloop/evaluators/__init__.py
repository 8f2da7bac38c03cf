"""Plugins that judge candidates."""
