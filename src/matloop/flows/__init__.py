"""Makers composed: one screening, one iteration, one campaign."""
