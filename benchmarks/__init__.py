"""Measurements: each module runs both sides of a comparison and prints what came out."""
