"""The samples of a layer, from a model and a loader or from arrays."""
