"""How well chunks reconstruct their layer, from covariances."""
