"""Which new neurons lower the loss: exact certificates, neuron by neuron."""

from layerpeel.edits.width.certificate.certificate import NeuronCertificate, direction
from layerpeel.edits.width.certificate.nulls import null_bias, null_certificates
from layerpeel.edits.width.certificate.screening import Screening, screen_splits
from layerpeel.edits.width.certificate.splits import SplitMatrices, split_matrices

__all__ = [
    "NeuronCertificate",
    "Screening",
    "SplitMatrices",
    "direction",
    "null_bias",
    "null_certificates",
    "screen_splits",
    "split_matrices",
]
