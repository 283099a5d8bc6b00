import json

import pytest
import torch

from layerpeel._json import json_text, plain
from layerpeel.geometry import Geometry, general_orthogonal_frame


def test_what_json_cannot_hold_is_written_down():
    value = {
        "nan": float("nan"),
        "infinities": (float("inf"), -float("inf")),
        "tensor": torch.tensor([[1.0, float("nan")]]),
        "integers": torch.tensor([1, 2]),
        "rest": [None, True, "text", 3],
    }
    expected = {
        "nan": None,
        "infinities": ["Infinity", "-Infinity"],
        "tensor": [[1.0, None]],
        "integers": [1, 2],
        "rest": [None, True, "text", 3],
    }
    assert plain(value) == expected
    assert json.loads(json_text(plain(value))) == expected


def test_json_that_was_not_made_plain_is_refused():
    with pytest.raises(ValueError, match="JSON"):
        json_text({"nan": float("nan")})


def test_text_cannot_leave_the_script_or_page_it_is_put_into():
    written = json_text({"name": "</script><b>&amp; é"})
    assert written.isascii()
    assert not set("<>&") & set(written)
    assert json.loads(written) == {"name": "</script><b>&amp; é"}


def test_a_geometry_writes_its_undefined_cosines_as_none():
    frame = general_orthogonal_frame([1.0, 2.0, 0.0])
    content = Geometry.of(frame, frame).to_dict()
    assert content["classifier_norms"] == [1.0, 2.0, 0.0]
    assert content["classifier_cosines"][0] == [1.0, 0.0, None]
    assert content["classifier_cosines"][2] == [None, None, None]
