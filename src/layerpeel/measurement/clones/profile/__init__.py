"""From a layer to its profile, and the profile."""
