"""Bytes on disk, of no format and no task: images, whole files, reading in parallel."""
