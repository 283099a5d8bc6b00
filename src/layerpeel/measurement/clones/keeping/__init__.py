"""Which neurons to keep, and what that changes."""
