import math
import warnings

import pytest

from layerpeel._checks import UndefinedWarning, undefined
from layerpeel.reports.causes import causes, with_causes
from layerpeel.reports.table import Table


def test_causes_are_collected_once_each_and_not_warned_of():
    with causes() as found:
        assert math.isnan(undefined("One class is no pair."))
        undefined("The classifier has vanished.")
        undefined("One class is no pair.")
    assert found == ["One class is no pair.", "The classifier has vanished."]


def test_other_warnings_pass():
    with pytest.warns(RuntimeWarning, match="something else"), causes() as found:
        warnings.warn("something else", RuntimeWarning, stacklevel=1)
    assert found == []


def test_causes_are_warned_of_again_afterwards():
    with causes():
        pass
    with pytest.warns(UndefinedWarning, match="afterwards"):
        undefined("Undefined afterwards.")


def test_a_table_says_why_its_numbers_are_undefined():
    def build():
        return Table("Angles", ("cosine",), [(undefined("No pair."),)], note="Centred.")

    assert with_causes(build).note == "Centred. No pair."
