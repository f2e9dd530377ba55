"""Maps between published label sets, for `--map`."""
