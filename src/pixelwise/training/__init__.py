"""Training of a system on data."""
