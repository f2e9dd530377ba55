"""What predict writes and evaluate, merge and other tools read: one module for each kind of file."""
