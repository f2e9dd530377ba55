"""Losses as sums and counts; see `contracts.Term`."""
