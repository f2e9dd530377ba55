"""Trained models at work: folders of weights, the predictor, and what a call returns."""
