"""A MongoDB-protocol server for tests: in memory, with a journal; no database for work."""
