import json
import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
LIMIT = 150


class Job:
    """What the processes of a job found in each check, by rank."""

    def __init__(self, size, folder):
        self.size, self.folder = size, folder

    def found(self, check):
        return [self.read(f"{check}.{rank}.json") for rank in range(self.size)]

    def read(self, name):
        return json.loads((self.folder / name).read_text())

    def returned(self, check):
        found = self.found(check)
        assert all("returned" in one for one in found), found
        return [one["returned"] for one in found]

    def raised(self, check):
        return [(one.get("raised"), one.get("message")) for one in self.found(check)]

    def warnings(self, check):
        return [one["warnings"] for one in self.found(check)]


@pytest.fixture(scope="session", params=[2, 4], ids=lambda size: f"{size} ranks")
def job(request, tmp_path_factory):
    """The same two jobs for all tests, whichever worker starts them."""
    base = tmp_path_factory.getbasetemp()
    shared = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base
    folder = shared / "jobs"
    try:
        folder.mkdir()
    except FileExistsError:
        wait_for(folder / "finished")
    else:
        run(folder)
    return Job(request.param, folder / str(request.param))


def run(folder):
    command = [sys.executable, "-m", "tests.measurement.distributed.job"]
    environment = os.environ | {
        "OMP_NUM_THREADS": "1",
        "PYTHONPATH": os.pathsep.join([str(ROOT / "src"), str(ROOT)]),
    }
    with (folder / "said").open("w") as said:
        process = subprocess.Popen(
            [*command, str(folder)],
            cwd=ROOT,
            env=environment,
            stdout=said,
            stderr=said,
            start_new_session=True,
        )
        try:
            process.wait(timeout=LIMIT)
        finally:
            # The processes of the job too, if they hang.
            stop(process.pid)
            (folder / "finished").touch()


def stop(session):
    with suppress(ProcessLookupError):
        os.killpg(session, signal.SIGKILL)


def wait_for(path):
    until = time.monotonic() + LIMIT + 10
    while not path.exists() and time.monotonic() < until:
        time.sleep(0.2)
