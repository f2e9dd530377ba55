"""Fitting a system to data and judging it."""
