"""From one form of ground truth to another: arrays and types, no files."""
