"""The thresholds of the checks: conventions of this package, each with its reason."""

from __future__ import annotations

# Mean minority cosine above the balanced value -1/(K-1). Random initial classifiers of
# a few dozen dimensions scatter by about this much around it.
MINORITY_COSINE_MARGIN = 0.1

# Beyond half the way from the balanced cosine to 1, two minority classes share more of
# their direction than separates them.
MINORITY_COSINE_HALFWAY = 0.5

# Differences of mean recall between majority and minority that a user would act on, and
# would call a failure.
RECALL_GAP_WARNING = 0.1
RECALL_GAP_PROBLEM = 0.3

# Mean classifier norm, majority over minority. Balanced training ends at 1; factors up
# to this are seen in runs that classify the minority well.
NORM_RATIO = 1.5

# Within-class over between-class scatter. The theory describes collapsed features;
# above this a tenth of the scatter is something it does not describe.
SCATTER_QUOTIENT = 0.1

# Largest centred logit of a class mean. Below this, the probabilities of all classes are
# within about one percent of each other whatever the input.
LOGIT_SPREAD = 0.01

# Share of samples on which the network and the nearest class mean disagree.
NEAREST_MEAN_MISMATCH = 0.05

# Share of penultimate units that are zero on every sample.
DEAD_UNITS_NOTE = 0.1
DEAD_UNITS_WARNING = 0.5

# Spread of the predicted minority cosine over the energy conventions.
CONVENTION_SPREAD = 0.1

# Fewer than two clones of a layer are the layer.
CLONES_LEAST = 2

# The relative change of the output that a narrower layer is advised for: at a hundredth
# of its spread, few decisions are so close that they change.
NARROWER_TOLERANCE = 0.01
