"""Metrics: pure functions of the accumulated statistics."""
