"""Measures of how well predictions agree with the truth."""
