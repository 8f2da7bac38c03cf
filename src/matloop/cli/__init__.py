"""The `matloop` command."""
