"""The papers' experiments, one file each: what is claimed, how to run it, what came out."""
