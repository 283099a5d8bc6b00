import warnings

import pytest

from tests.benchmarks.scripts import script


@pytest.fixture
def bench(monkeypatch):
    module = script("phase_diagram")
    monkeypatch.setattr(module.torch, "set_num_threads", lambda threads: None)
    monkeypatch.setattr("sys.argv", ["phase_diagram.py"])
    with warnings.catch_warnings():
        yield module


def test_a_claim_that_fails_ends_the_script(bench, monkeypatch, capsys):
    monkeypatch.setattr(bench, "compare", lambda *sizes: bench.CLAIM + 1)
    with pytest.raises(SystemExit) as ended:
        bench.main()
    assert ended.value.code == 1
    assert "does not hold" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("options", "ratio", "said"),
    [([], 1.0, "holds at"), (["--smoke"], 1e9, "too small for the claim")],
)
def test_a_claim_that_holds_or_is_not_judged_ends_well(
    bench, monkeypatch, capsys, options, ratio, said
):
    monkeypatch.setattr("sys.argv", ["phase_diagram.py", *options])
    monkeypatch.setattr(bench, "compare", lambda *sizes: ratio)
    bench.main()
    assert said in capsys.readouterr().out
