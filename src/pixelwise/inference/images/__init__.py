"""Prediction of image files."""
