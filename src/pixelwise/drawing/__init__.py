"""Overlays, contact sheets and confusion matrices."""
