import math
import subprocess
import sys

import pytest

from layerpeel._warnings import UndefinedWarning, undefined, warn

SCRIPT = """
import torch
import layerpeel as lp

def measured(seed):
    torch.manual_seed(seed)
    features, labels = torch.randn(6, 3), torch.tensor([0, 0, 1, 1, 0, 1])
    return lp.measure_features(features, labels, weight=torch.randn(3, 3))

one, other = measured(0), measured(1)
one.eval_accuracy
other.nc1(pooling="class")
other.eval_accuracy
one.cdnv()
"""


def test_a_warning_points_at_the_caller_each_time(tmp_path):
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    told = subprocess.run(
        [sys.executable, script], capture_output=True, text=True, check=True
    ).stderr
    places = [
        line.split(":")[1]
        for line in told.splitlines()
        if line.startswith(f"{script}:") and "UndefinedWarning" in line
    ]
    lines = SCRIPT.splitlines()
    said = [lines[int(place) - 1] for place in places]
    assert said.count("one.eval_accuracy") == 1
    assert said.count("other.eval_accuracy") == 1
    assert told.count("UndefinedWarning") == len(places), told


def test_undefined_is_nan_with_the_cause():
    with pytest.warns(UndefinedWarning, match="because"):
        assert math.isnan(undefined("because"))


def test_other_categories():
    with pytest.warns(DeprecationWarning, match="old"):
        warn("old", DeprecationWarning)
