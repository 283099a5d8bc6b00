"""Edited models export to ONNX, and compute the same there."""

import warnings

import numpy as np
import pytest
import torch
from torch import nn

import layerpeel as lp
from tests.edits.networks import (
    Functional,
    Residual,
    convolutional,
    data_for,
    images,
    mlp,
    seeded,
)

EDITS = {
    "deepen": lambda model, layer, data: lp.deepen(
        model, layer, data, activation=nn.ReLU()
    ),
    "widen": lambda model, layer, data: lp.widen(model, layer, 2),
    "narrow": lambda model, layer, data: lp.narrow(
        model, layer, data=data, method="clones", width=2
    ),
    "null": lambda model, layer, data: lp.widen(model, layer, 2, kind="null"),
    "residual": lambda model, layer, data: lp.deepen(
        model, layer, data, residual=True, activation=nn.ReLU()
    ),
    "boundary": lambda model, layer, data: lp.deepen(
        model, layer, data, at="boundary", loss_fn=nn.functional.cross_entropy
    ),
    "embed": lambda model, layer, data: lp.embed(
        model, lp.CompatibleEmbedding.threefold((4, 5, 3))
    ),
    "merge": lambda model, layer, data: lp.merge_layers(
        lp.deepen(model, layer, data, activation=nn.ReLU()).model, data
    ),
}


def exported(model, x):
    onnx = pytest.importorskip("onnx")
    pytest.importorskip("onnxscript")
    from onnx.reference import ReferenceEvaluator

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        program = torch.onnx.export(model, (x,), dynamo=True, verbose=False)
    onnx.checker.check_model(program.model_proto)
    evaluator = ReferenceEvaluator(program.model_proto)
    return evaluator.run(None, {evaluator.input_names[0]: x.numpy()})[0]


@pytest.mark.parametrize(
    ("build", "layer", "data", "edit"),
    [
        (lambda: mlp([4, 5, 3]), "0", data_for(4, 3), "widen"),
        (lambda: mlp([4, 5, 3]), "0", data_for(4, 3), "embed"),
        (lambda: seeded(Functional), "fc1", data_for(4, 3), "deepen"),
        (lambda: seeded(Functional), "fc2", data_for(4, 3), "boundary"),
        (lambda: seeded(Residual), "block2.fc1", data_for(4, 3), "residual"),
        (convolutional, "conv2", images(), "null"),
        (lambda: seeded(Residual), "block1.fc1", data_for(4, 3), "merge"),
        (lambda: seeded(Residual), "block1.fc1", data_for(4, 3), "narrow"),
        (convolutional, "conv1", images(), "widen"),
        (convolutional, "conv1", images(), "deepen"),
    ],
)
def test_edited_models_compute_the_same_in_onnx(build, layer, data, edit):
    data = [(x.float(), y) for x, y in data]
    model = EDITS[edit](build().float(), layer, data).model.eval()
    x = data[0][0]
    with torch.no_grad():
        wanted = model(x).numpy()
    np.testing.assert_allclose(exported(model, x), wanted, atol=1e-5, rtol=1e-5)
