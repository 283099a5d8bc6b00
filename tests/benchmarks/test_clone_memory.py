import pytest

from tests.benchmarks.scripts import script


@pytest.fixture
def bench(monkeypatch):
    monkeypatch.setattr("sys.argv", ["clone_memory.py"])
    return script("clone_memory")


@pytest.mark.parametrize(("above", "code"), [(0.9, None), (1.1, 1)])
def test_the_claim_is_judged(bench, monkeypatch, capsys, above, code):
    monkeypatch.setattr(bench, "measured", lambda size, threads: above)
    if code is None:
        bench.main()
        assert capsys.readouterr().out.endswith("features): holds\n")
        return
    with pytest.raises(SystemExit) as ended:
        bench.main()
    assert ended.value.code == code
    assert "does not hold" in capsys.readouterr().out


def test_small_sizes_are_measured_but_not_judged(bench, monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["clone_memory.py", "--smoke"])
    bench.main()
    out = capsys.readouterr().out
    assert "8 neurons: " in out
    assert "held out" in out
    assert "too small for the claim" in out


def test_drawing_features_is_the_same_every_time(bench):
    first, second = bench.layer(bench.SMOKE), bench.layer(bench.SMOKE)
    assert all(bench.torch.equal(a, b) for a, b in zip(first, second, strict=True))
    assert first[0].dtype == bench.torch.float32
