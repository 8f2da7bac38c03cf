"""Plugins that make artifacts out of what the campaign has seen."""
