"""Metrics that compare predictions with the ground truth."""
