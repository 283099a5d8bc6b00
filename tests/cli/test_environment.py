import importlib.metadata
import json
import platform
import tomllib
from pathlib import Path

import pytest
import torch

import layerpeel
from layerpeel._checks import DeviceError
from layerpeel.cli.environment import EXTRAS, Environment, usable_device

PROJECT = tomllib.loads(
    (Path(__file__).parents[2] / "pyproject.toml").read_text(encoding="utf-8")
)["project"]


def names(requirements):
    return {line.split(">")[0].split("[")[0].strip() for line in requirements}


def test_versions_are_those_installed():
    versions = Environment.here().versions
    assert versions["layerpeel"] == layerpeel.__version__ == PROJECT["version"]
    assert versions["python"] == platform.python_version()
    assert set(versions) == {"layerpeel", "python"} | names(PROJECT["dependencies"])
    assert versions["torch"] == torch.__version__


def test_extras_are_those_of_the_project():
    optional = PROJECT["optional-dependencies"]
    assert {extra: set(packages) for extra, packages in EXTRAS.items()} == {
        extra: names(optional[extra]) for extra in EXTRAS
    }
    everything = optional["all"][0].partition("[")[2].rstrip("]").split(",")
    assert set(EXTRAS) == set(everything)


def test_missing_packages_come_with_the_line_that_installs_them(monkeypatch):
    installed = importlib.metadata.version

    def version(name):
        if name in ("jinja2", "pandas"):
            raise importlib.metadata.PackageNotFoundError(name)
        return installed(name)

    monkeypatch.setattr(importlib.metadata, "version", version)
    environment = Environment.here()
    assert environment.extras["report"] == {"jinja2": None}
    rows = dict(environment.rows())
    assert rows["report: jinja2"] == "missing: pip install 'layerpeel[report]'"
    assert rows["study: pandas"] == "missing: pip install 'layerpeel[study]'"
    assert rows["study: scikit-learn"] == installed("scikit-learn")


def test_content_is_plain_and_complete():
    environment = Environment.here()
    content = json.loads(json.dumps(environment.to_dict()))
    assert content["threads"] == torch.get_num_threads()
    assert content["devices"][0] == "cpu"
    assert len(content["devices"]) >= 1 + torch.cuda.device_count()
    assert set(content["blas"]) == {"torch", "numpy"}
    found = [value for _, value in environment.rows()]
    for version in content["versions"].values():
        assert version in found


def test_devices_are_checked_by_use():
    assert usable_device("cpu") == torch.device("cpu")
    for name in ["gpu", "cuda:99", "", "xla"]:
        with pytest.raises(DeviceError, match=f"must be one of cpu.*got '{name}'"):
            usable_device(name)
