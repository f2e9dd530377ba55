"""The files that predict writes and evaluate and merge read: one module for each kind of file."""
