import pytest
import torch

from layerpeel.program import MSE, CrossEntropy, Energy, PeeledProblem, Status
from layerpeel.program.routes import METHODS, Request, choose_route

DECAY, DEEP = (1e-2, 1e-2), (1e-3, 1e-3, 1e-3)
EQUAL, PAIR, DISTINCT = [4, 4, 4], [4, 4, 1], [4, 2, 1]
RELU = {"features": "nonnegative"}

# Counts, what is asked, and the method and the proof of the strongest route.
ROUTES = {
    "balanced": (EQUAL, {"energy": (1, 1)}, "closed_form", "closed form"),
    "balanced, ridge": (
        EQUAL,
        {"weight_decay": DECAY, "bias": 0.1},
        "closed_form",
        "closed form",
    ),
    "balanced, K - 1 wide": (
        EQUAL,
        {"energy": (1, 1), "width": 2},
        "closed_form",
        "closed form",
    ),
    "balanced, narrow": (EQUAL, {"energy": (1, 1), "width": 1}, "grouped", "certified"),
    "two groups": (PAIR, {"energy": (1, 1)}, "grouped", "certified"),
    "two groups, bias": (
        PAIR,
        {"energy": (1, 1), "bias": "free"},
        "grouped",
        "certified",
    ),
    "distinct": (DISTINCT, {"weight_decay": DECAY}, "grouped", "certified"),
    "relu": (DISTINCT, {"energy": (1, 1)} | RELU, "closed_form", "closed form"),
    "relu, offsets": (
        DISTINCT,
        {"energy": (1, 1), "loss": CrossEntropy(offset=(1, 0, 0))} | RELU,
        "factored",
        "certified",
    ),
    "relu, bias": (
        DISTINCT,
        {"energy": (1, 1), "bias": "free"} | RELU,
        "factored",
        "certified",
    ),
    "relu, narrow": (
        DISTINCT,
        {"energy": (1, 1), "bias": "free", "width": 2} | RELU,
        "factored",
        "best found",
    ),
    "squared error": (
        DISTINCT,
        {"weight_decay": DEEP, "loss": MSE()},
        "closed_form",
        "closed form",
    ),
    "squared error, bias": (
        DISTINCT,
        {"weight_decay": DECAY, "loss": MSE(), "bias": "free"},
        "closed_form",
        "closed form",
    ),
    "squared error, ridge": (
        DISTINCT,
        {"weight_decay": DECAY, "loss": MSE(), "bias": 0.1},
        "grouped",
        "certified",
    ),
    "squared error, interpolated": (
        DISTINCT,
        {"energy": (9, 9), "loss": MSE(), "bias": 0.1},
        "closed_form",
        "closed form",
    ),
    "deep": (DISTINCT, {"weight_decay": DEEP}, "factored", "best found"),
    "deep, ridge": (
        DISTINCT,
        {"weight_decay": DEEP, "bias": 0.1},
        "factored",
        "best found",
    ),
}


def program_of(counts, keywords):
    return PeeledProblem(counts, **keywords).class_level()


@pytest.mark.parametrize("name", ROUTES)
def test_the_strongest_route_comes_first(name):
    counts, keywords, method, proof = ROUTES[name]
    route = choose_route(program_of(counts, keywords))
    assert (route.method, route.proof) == (method, proof)


@pytest.mark.parametrize("name", ROUTES)
def test_other_methods_are_refused_with_a_list_of_those_that_apply(name):
    counts, keywords, *_ = ROUTES[name]
    program = program_of(counts, keywords)
    for method in METHODS[1:]:
        try:
            route = choose_route(program, method)
        except ValueError as error:
            message = str(error)
            assert message.startswith(f"`method={method!r}` does not apply")
            listed = message.partition("Use one of ")[2].rstrip(".").split(", ")
            for usable in listed:
                choose_route(program, usable.strip("'"))
            assert repr(method) not in listed
            assert {"'auto'", "'factored'"} <= set(listed)
        else:
            assert route.method == method


@pytest.mark.parametrize(
    ("method", "hint"), [("group", "'grouped'"), ("closed form", "'closed_form'")]
)
def test_an_unknown_method_is_refused_with_a_hint(method, hint):
    program = program_of(DISTINCT, {"energy": (1, 1)})
    with pytest.raises(ValueError, match=f"`method` must be one of .* mean {hint}"):
        choose_route(program, method)


# Problems that several methods solve.
SHARED = {
    "balanced": (EQUAL, {"energy": (1, 2)}),
    "balanced, ridge": (EQUAL, {"weight_decay": DECAY, "bias": 0.1}),
    "two groups": (PAIR, {"energy": (1, 2)}),
    "two groups, small loss": (PAIR, {"energy": (20, 20)}),
    "distinct": (DISTINCT, {"energy": (1, 2)}),
    "squared error": (DISTINCT, {"weight_decay": DECAY, "loss": "mse"}),
    "squared error, bias": (
        DISTINCT,
        {"weight_decay": DECAY, "loss": "mse", "bias": "free"},
    ),
    "relu": (DISTINCT, {"energy": (1, 2)} | RELU),
    "per sample": (PAIR, {"energy": Energy(1, 2, "sample"), "bias": "free"}),
}


@pytest.mark.parametrize("name", SHARED)
def test_methods_agree(name):
    counts, keywords = SHARED[name]
    problem = PeeledProblem(counts, **keywords)
    best = problem.solve()
    compared = 0
    for method in METHODS[1:]:
        try:
            choose_route(problem.class_level(), method)
        except ValueError:
            continue
        solution = problem.solve(method=method)
        compared += 1
        assert solution.status.success
        assert solution.objective == pytest.approx(best.objective, rel=1e-8)
        scale = float(best.logits.abs().max())
        distance = float((solution.logits - best.logits).abs().max())
        # The gap is second order in the logits.
        assert distance < 2e-4 * max(scale, 1)
    assert compared >= 2


def solve(counts, keywords, method="auto"):
    program = program_of(counts, keywords)
    request = Request(1e-8, 200, 0, torch.device("cpu"))
    return choose_route(program, method).solve(program, request)


@pytest.mark.parametrize("method", ["grouped", "spectral"])
def test_a_width_that_fits_changes_nothing(method):
    free = solve(DISTINCT, {"energy": (1, 2)}, method)
    kept = solve(DISTINCT, {"energy": (1, 2), "width": 2}, method)
    assert torch.equal(free.logits, kept.logits)
    assert kept.status is Status.CERTIFIED


@pytest.mark.parametrize(
    ("counts", "keywords"),
    [
        (DISTINCT, {"energy": (1, 2), "width": 1}),
        (PAIR, {"energy": (1, 2), "width": 1}),
        (EQUAL, {"energy": (1, 2), "width": 1}),
        (DISTINCT, {"energy": (1, 2), "width": 2} | RELU),
    ],
    ids=str,
)
def test_below_the_rank_the_wide_bound_stays_valid(counts, keywords):
    narrow = solve(counts, keywords)
    wide = solve(counts, keywords | {"width": None})
    assert narrow.status is Status.STATIONARY
    assert narrow.certificate.lower_bound <= wide.objective * (1 + 1e-12)
    assert narrow.certificate.lower_bound > 0.99 * wide.objective
    assert narrow.objective > wide.objective * (1 + 1e-4)
    assert narrow.factors.classifiers().shape == (3, keywords["width"])


def test_collapsed_classes_take_no_width():
    keywords = {"energy": (1, 1), "width": 1} | RELU
    solution = solve([1e12, 1e6, 1], keywords)
    assert solution.stats["collapsed"] == 2
    assert solution.status is Status.CLOSED_FORM


def test_random_starts_are_seeded():
    problem = PeeledProblem([2, 1], weight_decay=DEEP)
    first, again = problem.solve(seed=3), problem.solve(seed=3)
    assert torch.equal(first.logits, again.logits)


@pytest.mark.parametrize("bias", [None, "free", 0.05])
def test_several_layers_start_from_frames_and_blocks_with_any_bias(bias):
    problem = PeeledProblem(
        [60, 60, 9, 9, 9],
        weight_decay=(0.00387,) * 4,
        bias=bias,
        class_weights=(1, 5, 3, 3, 2),
        loss=CrossEntropy(scale=(1, 2, 2, 1, 0.5)),
    )
    solutions = [problem.solve(seed=seed) for seed in (0, 2)]
    assert all("etf_objective" in solution.stats for solution in solutions)
    first, second = (solution.objective for solution in solutions)
    assert first == pytest.approx(second, rel=1e-7)
