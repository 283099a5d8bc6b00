"""Plateaus of wide and deep networks over the loss levels of narrow ones.

Critical points of networks with no, 1, 2 and 3 hidden tanh neurons are searched, on two
unequal steps with a ripple, and a wide network and two deep ones are trained on the same
data by gradient descent from small weights. Printed are the levels, with what kind of
point each becomes when it is embedded in the wide network, and the plateaus, each with
the level whose loss is nearest, how far that is, and how far apart the outputs are. Not
every plateau has a level that is near: those are printed too. Ends with code 1 if an
embedded level is not critical, or the wide network has no plateau within 5 % of the
level of one neuron.

    python benchmarks/hierarchy.py                      # less than a minute on a core
    python benchmarks/hierarchy.py --smoke              # seconds
    python benchmarks/hierarchy.py --out hierarchy.svg --folder kept
"""

from __future__ import annotations

import argparse
import sys
import time
from typing import Any

import torch

from layerpeel._figures import save
from layerpeel.studies.loss_levels import RUNS, Descent, Hierarchy, hierarchy

SMOKE: dict[str, Any] = {
    "narrow": ((0,), (1,), (2,)),
    "runs": (Descent((20,), steps=2000), Descent((10, 10), scale=0.03, steps=1000)),
    "seeds": range(2),
}
# Embedded points are critical up to rounding, which polishing leaves below this.
LARGEST_GRADIENT = 1e-10
NEAR = 0.05


def check(found: Hierarchy, wide: Descent) -> None:
    """End the script with code 1 if a claim fails."""
    gradient = max(rung.embedded_gradient for rung in found.rungs)
    print(f"largest gradient of an embedded level: {gradient:.0e}")
    distances = [
        abs(match.distance)
        for match in found.matches
        if match.descent == wide and match.rung.hidden == (1,)
    ]
    nearest = min(distances, default=float("inf"))
    print(f"the wide network comes within {nearest:.1%} of the level of one neuron")
    if not gradient <= LARGEST_GRADIENT:
        sys.exit(f"embedded levels must be critical to {LARGEST_GRADIENT:g}")
    if not nearest <= NEAR:
        sys.exit(f"a plateau must be within {NEAR:.0%} of the level of one neuron")


def main() -> None:
    """Run the study, and print and draw what it found."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--smoke", action="store_true", help="a small size")
    parser.add_argument("--threads", type=int, default=1, help="threads of torch")
    parser.add_argument(
        "--folder", help="where results are kept, to go on after a kill"
    )
    parser.add_argument("--out", help="the figure: a file ending in .svg, .png or .pdf")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    options: dict[str, Any] = SMOKE if arguments.smoke else {"runs": RUNS}
    wall, processor = time.perf_counter(), time.process_time()
    found = hierarchy(folder=arguments.folder, **options)
    wall, processor = time.perf_counter() - wall, time.process_time() - processor
    print(found.summary())
    for hidden, searched in found.searches.items():
        print(f"width {hidden[0]}: {searched.summary().splitlines()[0]}")
    print(f"{wall:.0f} s, {processor:.0f} s of processor time")
    if arguments.out:
        print(f"figure: {save(found.plot()[0], arguments.out)}")
    check(found, options["runs"][0])


if __name__ == "__main__":
    main()
