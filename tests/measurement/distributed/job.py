"""Jobs of 2 and 4 gloo processes that run every check and write down what they found.

``python -m tests.measurement.distributed.job FOLDER`` forks the processes of one job
after the other; each writes ``FOLDER/SIZE/NAME.RANK.json`` for every check, with what
the check returned.
"""

import importlib
import json
import multiprocessing
import os
import signal
import sys
import traceback
import warnings
from datetime import timedelta
from pathlib import Path

import torch
import torch.distributed as dist

from tests.measurement.distributed import checks

SIZES = (2, 4)


def main(folder):
    # The libraries are imported once, here, and not by each process.
    importlib.import_module("accelerate.data_loader")
    importlib.import_module("lightning.pytorch.overrides.distributed")
    for size in SIZES:
        (folder / str(size)).mkdir()
        start(size, folder / str(size))


def start(size, folder):
    context = multiprocessing.get_context("fork")
    children = [
        context.Process(target=work, args=(rank, size, folder)) for rank in range(size)
    ]
    for child in children:
        child.start()
    for child in children:
        child.join()


def work(rank, size, folder):
    torch.set_num_threads(1)
    dist.init_process_group(
        "gloo",
        init_method=f"file://{folder}/meeting-point",
        rank=rank,
        world_size=size,
        timeout=timedelta(seconds=20),
    )
    for name in checks.NAMES:
        found = run(getattr(checks, name), rank, size, folder)
        (folder / f"{name}.{rank}.json").write_text(json.dumps(found))
        # What a check left unsaid or unheard would be heard by the next one.
        dist.barrier()
    last_rites(rank, folder)


def run(check, rank, size, folder):
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        try:
            found = {"returned": check(rank, size, folder)}
        except Exception as error:
            found = {"raised": type(error).__name__, "message": str(error)}
            found["traceback"] = traceback.format_exc()
    found["warnings"] = [str(warning.message) for warning in told]
    return found


def last_rites(rank, folder):
    """A process that is killed ends the job of the others: nobody waits for it."""
    if rank == 0:
        os.kill(os.getpid(), signal.SIGKILL)
    try:
        checks.after_a_death()
    except Exception as error:
        (folder / f"death.{rank}.json").write_text(json.dumps(type(error).__name__))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
