"""Remedies that act during training: samplers that counter minority collapse."""

from layerpeel.remedies.oversampling import oversampled_indices

__all__ = ["oversampled_indices"]
