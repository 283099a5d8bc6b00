"""A peeled problem from what was typed: counts, energies or decay, loss, bias."""

from __future__ import annotations

import math
import re
from dataclasses import replace
from typing import Any, Literal

from layerpeel._checks import one_of
from layerpeel.program import MSE, CrossEntropy, Decay, Energy, PeeledProblem

# A K x K matrix of float64 is the smallest thing that is made of K classes.
MOST_CLASSES = 20_000

_GRAMMAR = (
    "Counts are typed as 5000x5,50x5 (five classes of 5000 samples, five of 50), as single "
    "numbers between commas, or as exp:1280:5:100 for an exponential tail from 1280 to 5 "
    "over 100 classes"
)
_SIGNS: dict[str, Literal["free", "nonnegative"]] = {
    "free": "free",
    "nonnegative": "nonnegative",
}
_REPEATED = re.compile(r"(?P<count>.+?)\s*[x×*]\s*(?P<times>\d+)", re.IGNORECASE)


def typed_problem(
    counts: str,
    *,
    energy: str | None,
    weight_decay: str | None,
    per: str | None,
    loss: str,
    smoothing: float,
    bias: str,
    features: str,
    width: int | None,
) -> PeeledProblem:
    """Return the problem that the options of ``layerpeel predict`` describe.

    Args:
        counts: As :func:`parse_counts` reads them.
        energy: The energies ``E_W,E_H``.
        weight_decay: The decays of the layers, last first, and of the features.
        per: What shares the features' energy or decay; that of the papers by default.
        loss: ``cross_entropy`` or ``mse``.
        smoothing: Label smoothing.
        bias: As :func:`parse_bias` reads it.
        features: The sign of the features.
        width: Their dimension.

    Raises:
        ValueError: If options contradict each other, or one is invalid.
    """
    return PeeledProblem(
        parse_counts(counts),
        loss=_loss(loss, smoothing),
        **_held(energy, weight_decay, per),
        bias=parse_bias(bias),
        features=_SIGNS[one_of("--features", features, _SIGNS)],
        width=width,
    )


def parse_counts(text: str) -> list[float]:
    """Return class counts from what was typed.

    Args:
        text: Parts between commas: ``n``, a class of n samples; ``nxm``, m of them; or
            ``exp:first:last:m``, m classes whose counts fall by a common factor from
            the first to the last, not rounded.

    Raises:
        ValueError: If a part is something else, or there are too many classes.

    Example:
        >>> parse_counts("5000x2,1e2,7")
        [5000.0, 5000.0, 100.0, 7.0]
        >>> [round(count, 6) for count in parse_counts("exp:100:1:3")]
        [100.0, 10.0, 1.0]
    """
    counts: list[float] = []
    for part in text.split(","):
        counts += _part(part.strip())
        if len(counts) > MOST_CLASSES:
            raise _too_many()
    return counts


def parse_numbers(option: str, text: str) -> tuple[float, ...]:
    """Return numbers from what was typed between commas.

    Raises:
        ValueError: If a part is no number; the message names the option.

    Example:
        >>> parse_numbers("--energy", "1,5")
        (1.0, 5.0)
    """
    try:
        return tuple(float(part) for part in text.split(","))
    except ValueError as error:
        raise ValueError(
            f"{option} must be numbers between commas, such as 1,5; got {text!r}."
        ) from error


def parse_bias(text: str) -> Literal["free"] | float | None:
    """Return what holds the bias: nothing, a number, or ``None`` for no bias.

    Raises:
        ValueError: If it is neither ``none``, ``free`` nor a number.
    """
    if text in ("none", "free"):
        return "free" if text == "free" else None
    try:
        return float(text)
    except ValueError as error:
        raise ValueError(
            f"--bias must be none, free, or the ridge penalty of the bias; got {text!r}."
        ) from error


def _loss(name: str, smoothing: float) -> CrossEntropy | MSE:
    one_of("--loss", name, ("cross_entropy", "mse"))
    if name == "cross_entropy":
        return CrossEntropy(smoothing=smoothing)
    if smoothing:
        raise ValueError(
            f"--smoothing goes with --loss cross_entropy; got --loss {name}. "
            "Leave one out."
        )
    return MSE()


def _held(
    energy: str | None, weight_decay: str | None, per: str | None
) -> dict[str, Any]:
    """Return the energies or the decay."""
    if (energy is None) == (weight_decay is None):
        got = "neither" if energy is None else "both"
        raise ValueError(f"Give either --energy or --weight-decay; got {got}.")
    scope: dict[str, Any] = {}
    if per is not None:
        scope = {"per": one_of("--per", per, ("class", "sample"))}
    if energy is not None:
        budgets = Energy.of(parse_numbers("--energy", energy))
        return {"energy": replace(budgets, **scope)}
    decay = Decay.of(parse_numbers("--weight-decay", str(weight_decay)))
    return {"weight_decay": Decay(*decay.layers, features=decay.features, **scope)}


def _part(part: str) -> list[float]:
    if part.startswith("exp:"):
        return _tail(part)
    repeated = _REPEATED.fullmatch(part)
    if repeated is None:
        return [_number(part, part)]
    times = int(repeated["times"])
    if not 1 <= times <= MOST_CLASSES:
        raise _too_many() if times else ValueError(f"{part!r} is no class. {_GRAMMAR}.")
    return [_number(repeated["count"], part)] * times


def _tail(part: str) -> list[float]:
    """Return an exponential tail, with both ends exact."""
    fields = part.split(":")[1:]
    if len(fields) != 3 or not fields[2].strip().isdecimal():
        raise ValueError(f"{part!r} is no exponential tail. {_GRAMMAR}.")
    first, last = (_number(field, part) for field in fields[:2])
    classes = int(fields[2])
    if classes > MOST_CLASSES:
        raise _too_many()
    if classes < 2 or not (0 < first < math.inf and 0 < last < math.inf):
        raise ValueError(
            f"{part!r} must have two finite counts above 0 and at least 2 classes. "
            f"{_GRAMMAR}."
        )
    step = (math.log(last) - math.log(first)) / (classes - 1)
    between = [math.exp(math.log(first) + k * step) for k in range(1, classes - 1)]
    return [first, *between, last]


def _number(text: str, part: str) -> float:
    try:
        return float(text)
    except ValueError as error:
        raise ValueError(f"{part!r} is no count. {_GRAMMAR}.") from error


def _too_many() -> ValueError:
    return ValueError(
        f"--counts must have at most {MOST_CLASSES} classes: a matrix of K x K logits "
        "would not fit. Leave some out."
    )
