"""The run folder: plan, state, log, validation."""
