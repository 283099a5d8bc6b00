"""Functions run by several processes of one gloo job."""

import tempfile
from pathlib import Path

import torch
import torch.distributed as dist
import torch.multiprocessing as mp


def together(function, size, *args):
    """Return what `function(rank, size, *args)` returns in each process."""
    with tempfile.TemporaryDirectory() as folder:
        mp.spawn(_run, (function, size, args, folder), nprocs=size)
        return [
            torch.load(Path(folder) / f"{rank}.pt", weights_only=True)
            for rank in range(size)
        ]


def _run(rank, function, size, args, folder):
    torch.set_num_threads(1)
    store = dist.FileStore(str(Path(folder) / "store"), size)
    dist.init_process_group("gloo", store=store, rank=rank, world_size=size)
    try:
        torch.save(function(rank, size, *args), Path(folder) / f"{rank}.pt")
    finally:
        dist.destroy_process_group()
