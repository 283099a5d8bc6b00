import json
import re
import subprocess
import sys

import numpy as np
import pytest
import torch

from layerpeel._checks import DeviceError, at_least, one_of, positive
from layerpeel.program._inputs import numbers, real_tensor, usable_device

BAD_NUMBERS = {
    "a scalar": (5, "sequence with one number for each class; got 5. Write"),
    "nothing": (None, "sequence with one number for each class; got None"),
    "a string": ("500", "sequence .* got '500'"),
    "a set": ({5, 6}, "sequence .* got {5, 6}"),
    "a mapping": ({"cat": 5}, r"mapping. Pass its values, `list\(counts.values\(\)\)`"),
    "words": (["a", 6], "one number for each class; got class 0: 'a'"),
    "an empty entry": ([5, None], "got class 1: None"),
    "a complex number": ([5, 1j], "got class 1: 1j"),
    "rows": ([[1, 2], [3, 4]], r"got class 0: \[1, 2\], class 1: \[3, 4\]"),
    "a matrix": (np.ones((2, 3)), r"one dimension, .* the shape \(2, 3\). Flatten"),
    "a column": (torch.ones(2, 1), r"one dimension, .* the shape \(2, 1\)"),
    "a number in a tensor": (torch.tensor(5.0), r"one dimension, .* shape \(\)"),
}


@pytest.mark.parametrize("name", BAD_NUMBERS)
def test_refuses_what_is_not_one_number_for_each_class(name):
    values, message = BAD_NUMBERS[name]
    with pytest.raises(ValueError, match=f"`counts` must .*{message}"):
        numbers("counts", values)


@pytest.mark.parametrize(
    "values",
    [
        (5, 6.5),
        [np.float32(5), torch.tensor(6.5)],
        np.array([5, 6.5]),
        torch.tensor([5, 6.5]),
        iter([5, 6.5]),
        {"cat": 5, "dog": 6.5}.values(),
        ["5", "6.5"],  # as read from a table
    ],
    ids=lambda values: type(values).__name__,
)
def test_takes_numbers_of_every_kind(values):
    assert numbers("counts", values) == (5.0, 6.5)


@pytest.mark.parametrize("value", [0, -1.0, float("nan"), "x", None, [1.0]], ids=str)
def test_refuses_what_is_not_a_positive_number(value):
    with pytest.raises(
        ValueError, match="`decay` must be a finite number above 0; got"
    ):
        positive("decay", value)
    assert positive("decay", np.float32(0.5)) == 0.5


@pytest.mark.parametrize(
    "value", [0, 1.5, float("nan"), "5", None, [5], 5j, True, np.ones(1)], ids=str
)
def test_refuses_what_is_no_whole_number(value):
    with pytest.raises(ValueError, match="`width` must be an integer >= 1; got"):
        at_least("width", value, 1)


@pytest.mark.parametrize("value", [5, 5.0, np.int64(5), torch.tensor(5)], ids=repr)
def test_takes_whole_numbers_of_every_kind(value):
    found = at_least("width", value, 1)
    assert found == 5
    assert type(found) is int


def test_large_whole_numbers_keep_their_digits():
    assert at_least("seed", 2**60 + 1, 0) == 2**60 + 1


@pytest.mark.parametrize(
    "values",
    [
        [[1.0, 2.0], [3.0, 4.0]],
        np.array([[1, 2], [3, 4]], dtype=np.float32),
        torch.tensor([[1.0, 2.0], [3.0, 4.0]], requires_grad=True),
    ],
    ids=lambda values: type(values).__name__,
)
def test_makes_doubles_without_a_gradient(values):
    tensor = real_tensor("means", values)
    assert tensor.dtype == torch.float64
    assert not tensor.requires_grad
    assert tensor.tolist() == [[1.0, 2.0], [3.0, 4.0]]


@pytest.mark.parametrize(
    "values", ["x", None, [[1.0], [1.0, 2.0]], {1.0}, [1j]], ids=str
)
def test_refuses_what_makes_no_real_tensor(values):
    with pytest.raises(ValueError, match="`means` must be a tensor of real numbers"):
        real_tensor("means", values)


@pytest.mark.parametrize("device", ["gpu", "meta", "cuda:99"])
def test_refuses_devices_that_are_not_there(device):
    with pytest.raises(DeviceError, match=f"here 'cpu'.*; got '{device}'"):
        usable_device(device)
    assert usable_device(torch.device("cpu")) == torch.device("cpu")


@pytest.mark.parametrize("value", ["MSE", "Mse", "mes"])
def test_says_which_word_is_meant(value):
    message = f"`loss` must be one of 'ce', 'mse'; got '{value}'. Did you mean 'mse'?"
    with pytest.raises(ValueError, match=re.escape(message)):
        one_of("loss", value, ("ce", "mse"))
    assert one_of("loss", "mse", ("ce", "mse")) == "mse"


# What callers see, without the checks of types that come with the tests -----------------


CALLS = {
    "lp.PeeledProblem(5, energy=E)": "`class_counts` must be a sequence",
    "lp.PeeledProblem([[1, 2], [3, 4]], energy=E)": "`class_counts` must have one number",
    "lp.PeeledProblem([5, 6], energy='xx')": "`energy` must be an `Energy` or a pair",
    "lp.PeeledProblem([5, 6], energy=('a', 1))": "`energy` must be an `Energy` or a pair",
    "lp.PeeledProblem([5, 6], energy=(0, 1))": "`energy.classifiers` must be a finite",
    "lp.PeeledProblem([5, 6], weight_decay=('a', 1))": "`weight_decay` must be a `Decay`",
    "lp.Energy('a', 1)": "`energy.classifiers` must be a finite number above 0; got 'a'",
    "lp.Decay('a', features=1)": "`weight_decay.layers[0]` must be a finite number",
    "lp.PeeledProblem([5, 6], energy=E, loss='MSE')": "Did you mean 'mse'?",
    "lp.PeeledProblem([5, 6], energy=E, loss=None)": "`loss` must be a `CrossEntropy",
    "lp.PeeledProblem([5, 6], energy=E, features='Free')": "Did you mean 'free'?",
    "lp.PeeledProblem([5, 6], energy=E, features=None)": "`features` must be one of",
    "lp.PeeledProblem([5, 6], energy=E, bias=[1])": "`bias` must be a finite number",
    "lp.PeeledProblem([5, 6], energy=E, class_weights=5)": "`class_weights` must be a",
    "lp.CrossEntropy(scale=3)": "`scale` must be a sequence",
    "lp.CrossEntropy(offset=['x', 1])": "`offset` must have one number for each class",
    "lp.CrossEntropy(smoothing='x')": "`smoothing` must lie in [0, 1); got 'x'",
    "lp.PeeledProblem([5, 6], energy=E).solve('x')": "`gap_tol` must be a finite number",
    "lp.PeeledProblem([5, 6], energy=E).solve(seed=-1)": "`seed` must be an integer >= 0",
    "lp.seli(5)": "`class_counts` must be a sequence",
    "lp.PeeledProblem([5, 6], energy=E, class_weights=2.)": "[1.0, 1.0, 5.0]",
    "lp.CrossEntropy(scale=2.)": "[1.0, 1.0, 0.5]",
    "lp.CrossEntropy(offset=2.)": "[0.0, 0.0, -1.5]",
    "lp.PeeledProblem([5, 6], energy=E, width='2')": "`width` must be an integer >= 1",
    "lp.PeeledProblem([5, 6], energy=E).solve(max_steps='x')": "`max_steps` must be an",
    "lp.PeeledProblem([5, 6], energy=E).solve(device='gpu')": "`device` must be one with",
    "lp.PeeledProblem([5, 6], energy=E).solve(device='cuda:99')": "`device` must be one",
    "lp.PeeledProblem([5, 6], energy=E).solve(method=1)": "`method` must be one of",
    "lp.collapse_threshold(majority='5', minority=5, energy=E)": "`majority` must be an",
    "lp.phase_diagram(5, 5, imbalance=[[1, 2]])": "`imbalance` must have one number",
    "lp.phase_diagram(5, 5, energy=5)": "`energy` must be a sequence with one number",
    "lp.balanced_flow(3, 4, start=1, times=5)": "`times` must be a sequence with one",
    "lp.balanced_flow(3, 4, start=1000, times=[1])": "`start` and `times` must be such",
    "lp.deep_linear(np.eye(2), [[1., 2.]], weight_decay=(1,))": "`correlation` (p,); got",
    "lp.deep_linear(np.eye(2), [1., 2.], weight_decay=1)": "`weight_decay` must be a seq",
    "lp.PeeledProblem.from_network([5, 6], np.eye(3), np.eye(3))": "must both have shape",
}
SCRIPT = """
import json, sys
import layerpeel as lp
import numpy as np
E = (1.0, 5.0)
messages = {}
for call in json.load(sys.stdin):
    try:
        messages[call] = repr(eval(call))
    except ValueError as error:
        messages[call] = str(error)
print(json.dumps(messages))
"""


def test_bad_input_gets_a_clear_error():
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT],
        input=json.dumps(list(CALLS)),
        capture_output=True,
        text=True,
        check=True,
    )
    messages = json.loads(done.stdout)
    wrong = {
        call: messages[call]
        for call, words in CALLS.items()
        if words not in messages[call]
    }
    assert not wrong
