"""Data sets on disk: one file per format, and what turns their files into samples and batches."""
