"""Prediction of videos, frame by frame."""
