"""How often a classifier errs that reads a chunk only."""
