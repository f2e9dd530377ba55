"""Fitting a system to data and evaluating it."""
