"""Conformance checks and toys for plugin authors."""
