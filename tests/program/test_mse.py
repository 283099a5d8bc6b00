from layerpeel.program import MSE


def test_has_no_settings():
    assert MSE() == MSE()
    assert repr(MSE()) == "MSE()"
