import math

import pytest

from tests.benchmarks.scripts import script


@pytest.fixture
def bench(monkeypatch):
    module = script("two_groups")
    monkeypatch.setattr(module.torch, "set_num_threads", lambda threads: None)
    monkeypatch.setattr("sys.argv", ["two_groups.py"])
    return module


def scripted(bench, monkeypatch, runs, claim=10.0):
    """Run the script with baselines of given own time and status, ours in 1 s."""
    solution = bench.lp.PeeledProblem([10, 10, 1, 1], energy=(1, 5)).solve()
    left = iter(runs)

    def baseline(counts, solver):
        own, status = next(left)
        value = solution.objective if status.startswith("optimal") else math.nan
        return bench.Baseline(own, own, status, value)

    monkeypatch.setattr(bench, "run_baseline", baseline)
    monkeypatch.setattr(bench, "run_ours", lambda counts: (1.0, solution))
    case = bench.Case(4, "SCS", claim, len(runs))
    monkeypatch.setattr(bench, "FULL", (case,))
    monkeypatch.setattr(bench, "SMOKE", (case,))
    bench.main()


def test_a_claim_that_holds_is_said_to(bench, monkeypatch, capsys):
    scripted(bench, monkeypatch, [(11.0, "optimal")] * 3)
    assert capsys.readouterr().out.endswith("(ratios at least 10): holds\n")


def test_a_claim_that_fails_ends_the_script(bench, monkeypatch, capsys):
    with pytest.raises(SystemExit) as ended:
        scripted(bench, monkeypatch, [(9.0, "optimal")] * 3)
    assert ended.value.code == 1
    assert "does not hold" in capsys.readouterr().out


@pytest.mark.parametrize("status", ["optimal_inaccurate", "user_limit", "failed: why"])
@pytest.mark.parametrize("place", [0, 2])
def test_another_status_of_any_run_is_not_measured(
    bench, monkeypatch, capsys, status, place
):
    runs = [(11.0, "optimal")] * 3
    runs[place] = (0.01, status)
    scripted(bench, monkeypatch, runs)
    out = capsys.readouterr().out
    assert f"SCS ended with {status}: not measured" in out
    assert "120 s" not in out
    assert out.endswith("holds as far as measured (0 of 1 measured)\n")


def test_one_failure_among_lines_not_measured_fails(bench):
    kinds = bench.Outcome
    outcomes = [kinds.HELD, kinds.NOT_MEASURED, kinds.FAILED]
    assert bench.verdict(outcomes) == "does not hold"


def test_small_sizes_are_not_judged(bench, monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["two_groups.py", "--smoke"])
    scripted(bench, monkeypatch, [(0.1, "optimal")])
    assert "too small for the claim" in capsys.readouterr().out
