"""Density-functional theory as flows of jobs: one engine per code."""
