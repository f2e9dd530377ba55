"""Pictures for people: overlays, contact sheets, confusion matrices."""
