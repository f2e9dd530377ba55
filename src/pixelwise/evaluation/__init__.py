"""Metrics over data sets: from models or stored predictions to numbers, reports and comparisons."""
