import json

import pytest
import torch

from layerpeel.reports.checks import ALL_CHECKS


def test_doctor_shows_what_the_json_holds(run):
    code, out, err = run("doctor", "--json")
    assert (code, err) == (0, "")
    content = json.loads(out)
    assert content["versions"]["torch"] == torch.__version__
    assert content["threads"] == torch.get_num_threads()
    code, out, err = run("doctor")
    assert (code, err) == (0, "")
    for name, version in content["versions"].items():
        assert any(name in line and version in line for line in out.splitlines())


@pytest.mark.parametrize("code", [check.code for check in ALL_CHECKS])
def test_every_code_is_explained(run, code):
    (check,) = [check for check in ALL_CHECKS if check.code == code]
    status, out, err = run("explain", code)
    assert (status, err) == (0, "")
    assert check.title in out
    assert check.explanation in out


def test_unknown_code_lists_the_known(run):
    code, out, err = run("explain", "LP999")
    assert (code, out) == (2, "")
    assert all(check.code in err for check in ALL_CHECKS)
