import json
import sys
from collections import OrderedDict

import pytest
from torch import nn

from layerpeel._checks import SourceError
from layerpeel.cli.references import call, load_object

MODULE = """
from __future__ import annotations

import os
from collections import OrderedDict
from typing import Optional

from torch import nn
from torch.utils.data import DataLoader

_private = 1
ready = nn.Linear(4, 3)
threshold = 0.5


class Net(nn.Module):
    pass


def make():
    return nn.Linear(4, 3)


def sized(width):
    return nn.Linear(width, 3)


def broken():
    raise RuntimeError("no such checkpoint")
"""


@pytest.fixture(autouse=True)
def fresh_imports(monkeypatch):
    """Forget what a test imports, and where it was looked for."""
    monkeypatch.setattr(sys, "path", sys.path.copy())
    before = set(sys.modules)
    yield
    for name in set(sys.modules) - before:
        if "/pytest-" in str(getattr(sys.modules[name], "__file__", "")):
            del sys.modules[name]


@pytest.fixture
def user(tmp_path):
    (tmp_path / "user_code.py").write_text(MODULE)
    return tmp_path / "user_code.py"


def test_a_file_and_its_module_name_lead_to_the_same_object(user, monkeypatch):
    monkeypatch.chdir(user.parent)
    by_file = load_object(f"{user}:ready")
    assert isinstance(by_file, nn.Linear)
    assert load_object("user_code.py:ready") is by_file
    assert load_object("user_code:ready") is by_file
    assert load_object("user_code:ready.weight") is by_file.weight


def test_installed_modules_are_found():
    assert load_object("collections:OrderedDict") is OrderedDict
    assert load_object("torch.nn:Linear") is nn.Linear


def test_a_file_finds_its_neighbours(tmp_path):
    (tmp_path / "parts_of_it.py").write_text("width = 7")
    (tmp_path / "whole.py").write_text("import parts_of_it\nsize = parts_of_it.width")
    assert load_object(f"{tmp_path / 'whole.py'}:size") == 7


def test_files_of_one_name_in_two_folders_are_two_modules(tmp_path):
    for folder, value in [("a", 1), ("b", 2)]:
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "same_name.py").write_text(f"value = {value}")
    paths = [tmp_path / folder / "same_name.py" for folder in "abab"]
    assert [load_object(f"{path}:value") for path in paths] == [1, 2, 1, 2]


def test_a_file_does_not_replace_a_module_of_its_name(tmp_path):
    (tmp_path / "json.py").write_text("value = 1")
    assert load_object(f"{tmp_path / 'json.py'}:value") == 1
    assert sys.modules["json"] is json


def test_classes_of_a_file_can_be_found_again_by_name(user):
    net = load_object(f"{user}:Net")
    assert getattr(sys.modules[net.__module__], net.__qualname__) is net


@pytest.mark.parametrize("reference", ["model.py", ":name", "file.py:", "vit-base", ""])
def test_malformed_references_are_refused(reference):
    with pytest.raises(SourceError, match=r"package\.module:name"):
        load_object(reference)


def test_missing_names_are_told_with_what_there_is(user):
    with pytest.raises(SourceError, match=r"no `mak`.*Did you mean `make`") as error:
        load_object(f"{user}:mak")
    listing = str(error.value)
    for name in ["Net", "make", "ready", "threshold", "sized"]:
        assert f"`{name}`" in listing
    for name in [
        "nn",
        "OrderedDict",
        "DataLoader",
        "annotations",
        "Optional",
        "_private",
    ]:
        assert f"`{name}`" not in listing


def test_a_listing_follows_all(tmp_path):
    (tmp_path / "listed.py").write_text("__all__ = ['shown']\nshown = hidden = 1")
    with pytest.raises(SourceError, match=r"it has `shown`[.]"):
        load_object(f"{tmp_path / 'listed.py'}:other")


def test_empty_module_is_said_to_be_empty(tmp_path):
    (tmp_path / "void.py").write_text("")
    with pytest.raises(SourceError, match="it is empty"):
        load_object(f"{tmp_path / 'void.py'}:model")


def test_missing_file_and_module(user, monkeypatch):
    with pytest.raises(FileNotFoundError, match=r"Did you mean `user_code\.py`"):
        load_object(f"{user.parent / 'user_cod.py'}:make")
    monkeypatch.chdir(user.parent)
    with pytest.raises(SourceError, match=r"no module `user_cod`.*`user_code`"):
        load_object("user_cod:make")
    with pytest.raises(SourceError, match=r"no module `collections\.abd`"):
        load_object("collections.abd:Iterable")


BROKEN = [
    ("import not_installed_at_all", "ModuleNotFoundError.*not_installed_at_all"),
    ("x = 1\ny = undefined_name", r"NameError.*undefined_name.*\(broken\.py, line 2\)"),
    ("def f(:", "SyntaxError"),
    ("import sys; sys.exit(3)", "SystemExit: 3"),
]


@pytest.mark.parametrize(("code", "message"), BROKEN)
def test_errors_of_the_users_module_are_told_as_such(
    tmp_path, monkeypatch, code, message
):
    (tmp_path / "broken.py").write_text(code)
    monkeypatch.chdir(tmp_path)
    for reference in ["broken.py:model", "broken:model"]:
        with pytest.raises(SourceError, match=f"Importing `broken.*{message}"):
            load_object(reference)
    assert "broken" not in sys.modules


def test_calls_return_what_is_made():
    assert call(list, "builtins:list") == []
    assert call(lambda size=3: size, "a:b") == 3


BAD_CALLS = [
    ("sized", r"without arguments; its signature is `\(width\)`"),
    ("broken", r"RuntimeError: no such checkpoint \(user_code\.py, line \d+\)"),
]


@pytest.mark.parametrize(("name", "message"), BAD_CALLS)
def test_bad_calls_are_told_as_the_callers(user, name, message):
    with pytest.raises(SourceError, match=f"`user_code:{name}`.*{message}"):
        call(load_object(f"{user}:{name}"), f"user_code:{name}")


def test_exit_in_a_call_is_an_error_too():
    with pytest.raises(SourceError, match="SystemExit: 0"):
        call(lambda: sys.exit(0), "script:main")
