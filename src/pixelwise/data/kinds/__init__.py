"""What several formats share, by the kind of ground truth on disk."""
