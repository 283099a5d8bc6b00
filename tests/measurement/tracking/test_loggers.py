import math

import pytest

from layerpeel._checks import FileError
from layerpeel.measurement.tracking import (
    CSVLogger,
    History,
    JSONLinesLogger,
    TensorBoardLogger,
)
from layerpeel.measurement.tracking.loggers import as_logger

KINDS = {".csv": CSVLogger, ".jsonl": JSONLinesLogger}
SCALARS = {"nc1": 0.1 + 0.2, 'odd, "name"': math.nan, "nc3": math.inf}


def history(steps):
    h = History()
    for step in steps:
        h.append(step, SCALARS, epoch=step / 10)
    return h


def whole(path, steps):
    write = {".csv": History.to_csv, ".jsonl": History.to_jsonl}[path.suffix]
    return write(history(steps), path.with_name("whole")).read_bytes()


def log(path, steps, **kwargs):
    logger = KINDS[path.suffix](path, **kwargs)
    for step in steps:
        logger.write(SCALARS, step, step / 10)


@pytest.fixture(params=KINDS, ids=str)
def path(request, tmp_path):
    return tmp_path / f"run{request.param}"


def test_a_log_is_what_the_history_writes(path):
    log(path, [1, 2, 5])
    assert path.read_bytes() == whole(path, [1, 2, 5])


def test_every_step_is_on_the_disk_at_once(path):
    logger = KINDS[path.suffix](path)
    for last in (1, 2):
        logger.write(SCALARS, last, last / 10)
        assert path.read_bytes() == whole(path, range(1, last + 1))


def test_a_resumed_run_replaces_what_it_measures_again(path):
    log(path, [1, 2, 3, 4])
    log(path, [3, 4, 5], resume=True)
    assert path.read_bytes() == whole(path, [1, 2, 3, 4, 5])


@pytest.mark.parametrize("cut", range(1, 120, 7))
def test_a_line_cut_short_by_a_kill_is_repaired(path, cut):
    log(path, [1, 2, 3])
    content = path.read_bytes()
    path.write_bytes(content[: len(content) - cut])
    kept = 1 + (cut <= len(whole(path, [1, 2, 3])) - len(whole(path, [1, 2])))
    log(path, [kept + 1, kept + 2], resume=True)
    assert path.read_bytes() == whole(path, [1, *range(2, kept + 3)])


def test_a_kill_within_the_first_line(path):
    path.write_text({".csv": "step,ep", ".jsonl": ""}[path.suffix])
    log(path, [1], resume=True)
    assert path.read_bytes() == whole(path, [1])


def test_another_run_is_not_overwritten(path):
    log(path, [1, 2])
    with pytest.raises(FileExistsError, match=r"steps 1 to 2 .*`resume=True`"):
        KINDS[path.suffix](path)
    assert path.read_bytes() == whole(path, [1, 2])


@pytest.mark.parametrize(
    "content", ["a,b\n1,2\n", "no line end", '{"step": 1}\n', "[1]\n", "\xff\n"]
)
def test_foreign_files_are_refused(path, content):
    path.write_text(content, encoding="latin-1")
    with pytest.raises(FileError, match="damaged or is no"):
        KINDS[path.suffix](path, resume=True)
    assert path.read_text(encoding="latin-1") == content


def test_a_damaged_line_in_the_middle_is_refused(path):
    log(path, [1, 2])
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join([*lines[:2], "x\n", *lines[2:]]))
    with pytest.raises(FileError, match="damaged"):
        KINDS[path.suffix](path, resume=True)


def test_a_missing_directory_is_told_at_once(tmp_path):
    with pytest.raises(FileNotFoundError, match="must exist"):
        CSVLogger(tmp_path / "missing" / "run.csv")


class Writer:
    def __init__(self):
        self.calls, self.flushed = [], 0

    def add_scalar(self, name, value, step):
        self.calls.append((name, value, step))

    def flush(self):
        self.flushed += 1


def test_a_tensorboard_writer_by_its_methods():
    writer = Writer()
    as_logger(writer).write({"nc1": 1.0}, 3, 0)
    TensorBoardLogger(writer, prefix="x-").write({"nc1": 2.0}, 4, 0)
    assert writer.calls == [("collapse/nc1", 1.0, 3), ("x-nc1", 2.0, 4)]
    assert writer.flushed == 2


def test_the_real_summary_writer(tmp_path):
    tensorboard = pytest.importorskip("torch.utils.tensorboard")
    events = pytest.importorskip(
        "tensorboard.backend.event_processing.event_accumulator"
    )
    with tensorboard.SummaryWriter(tmp_path) as writer:
        as_logger(writer).write({"nc1": 0.25}, 7, None)
    accumulator = events.EventAccumulator(str(tmp_path))
    accumulator.Reload()
    (event,) = accumulator.Scalars("collapse/nc1")
    assert (event.step, event.value) == (7, 0.25)


def test_functions_and_lightning_loggers():
    got = []

    class Lightning:
        def log_metrics(self, metrics, step):
            got.append((metrics, step))

    for target in (Lightning(), lambda scalars, step: got.append((scalars, step))):
        as_logger(target).write({"nc1": 1.0}, 2, None)
    assert got == [({"nc1": 1.0}, 2)] * 2


def test_paths_become_files(tmp_path):
    assert isinstance(as_logger(tmp_path / "a.csv"), CSVLogger)
    assert isinstance(as_logger(str(tmp_path / "a.jsonl")), JSONLinesLogger)
    with pytest.raises(FileError, match=r"\.csv or \.jsonl"):
        as_logger(tmp_path / "a.txt")


def test_what_is_no_logger(tmp_path):
    with pytest.raises(TypeError, match="got int"):
        as_logger(3)
    with open(tmp_path / "x.csv", "w") as file, pytest.raises(TypeError, match="open"):
        as_logger(file)
