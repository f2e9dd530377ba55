"""Weights of other projects under the keys of our own systems, one file for each family."""
