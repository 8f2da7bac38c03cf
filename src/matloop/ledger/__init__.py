"""The database of campaigns: one interface, the embedded default, artifacts."""
