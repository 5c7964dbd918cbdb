"""Time the pieces that every packet passes through; see `run`."""
