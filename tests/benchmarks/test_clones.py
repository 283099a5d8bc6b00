import pytest

from tests.benchmarks.scripts import script


@pytest.fixture
def bench(monkeypatch):
    module = script("clones")
    monkeypatch.setattr(module.torch, "set_num_threads", lambda threads: None)
    monkeypatch.setattr(module, "threadpool_limits", lambda threads: None)
    monkeypatch.setattr("sys.argv", ["clones.py"])
    monkeypatch.setattr(module, "FULL", module.SMOKE)
    return module


def scripted(bench, monkeypatch, scores=51.0, nested=3001.0, apart=1e-7):
    """Run the script with given ratios and disagreement, nothing timed."""
    found = (scores, apart, 0.1)
    monkeypatch.setattr(bench, "compare_scores", lambda features, repeats: found)
    monkeypatch.setattr(bench, "compare_nested", lambda *_: nested)
    monkeypatch.setattr(bench, "compare_errors", lambda *_: None)
    bench.main()


def test_claims_that_hold_are_said_to(bench, monkeypatch, capsys):
    scripted(bench, monkeypatch)
    assert capsys.readouterr().out.endswith("equal to 1e-06): hold\n")


@pytest.mark.parametrize(
    "failing", [{"scores": 49.0}, {"nested": 2999.0}, {"apart": 1e-5}]
)
def test_a_claim_that_fails_ends_the_script(bench, monkeypatch, capsys, failing):
    with pytest.raises(SystemExit) as ended:
        scripted(bench, monkeypatch, **failing)
    assert ended.value.code == 1
    assert "do not hold" in capsys.readouterr().out


def test_small_sizes_are_not_judged(bench, monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["clones.py", "--smoke"])
    scripted(bench, monkeypatch, scores=0.1)
    assert "too small for the claims" in capsys.readouterr().out


def test_both_sides_compute_the_same(bench):
    features, *_ = bench.layer(200, 16, 3)
    covariance = bench.Covariance.of(features)
    for size in (1, 4, 8):
        chunk = bench.draw_permutation(16, bench.torch.Generator().manual_seed(size))
        expected = bench.on_the_data(features.numpy(), chunk[:size].numpy())
        found = bench.scores(covariance, chunk[:size])
        assert found == pytest.approx(expected, abs=bench.AGREEMENT)


def test_the_price_of_errors_is_printed_in_both_passes(bench, capsys):
    bench.compare_errors(*bench.layer(60, 16, 3))
    out = capsys.readouterr().out
    assert "errors of all 31 disjoint chunks" in out
    assert "times the contributions of every neuron once" in out
    assert "times the product alone" in out
