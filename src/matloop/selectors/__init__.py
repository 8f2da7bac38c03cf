"""Plugins that decide who goes on, and how proposals are shared between generators."""
