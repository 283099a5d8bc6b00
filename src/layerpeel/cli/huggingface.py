"""Classifiers in local folders that Hugging Face's ``save_pretrained`` wrote.

Only weights in safetensors are read, no code from the folder is run, and nothing is
looked up on a network.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from torch import nn

from layerpeel._checks import SourceError, listed

# What image and sequence classifiers take, by the names of their forward methods.
INPUT_NAMES = (
    "pixel_values",
    "pixel_mask",
    "input_ids",
    "inputs_embeds",
    "attention_mask",
    "token_type_ids",
    "position_ids",
)

_AUTO_CLASSES = {
    "ForImageClassification": "AutoModelForImageClassification",
    "ForSequenceClassification": "AutoModelForSequenceClassification",
}


def load_huggingface(folder: Path) -> tuple[nn.Module, tuple[str, ...] | None]:
    """Load an image or sequence classifier from a folder.

    Args:
        folder: A folder with ``config.json`` and weights in safetensors.

    Returns:
        The model, and its class names unless they are the placeholders ``LABEL_0``, ...

    Raises:
        SourceError: If the folder holds no such classifier, or not all of its weights.
        ImportError: If ``transformers`` is not installed.
    """
    auto_class = _auto_class(folder)
    if not any(folder.glob("*.safetensors")):
        raise SourceError(
            f"`{folder}` must hold weights in safetensors; it holds none. Save it "
            "again with `model.save_pretrained(folder, safe_serialization=True)`."
        )
    try:
        import transformers  # noqa: F401  # asked for here, to say what to install
    except ImportError as error:
        raise ImportError(
            "Hugging Face folders need `transformers`, which is not installed. "
            "Run `pip install 'layerpeel[transformers]'`."
        ) from error
    model, loading = _load(auto_class, folder)
    _check_complete(folder, loading)
    return model, _informative_names(model.config.id2label)


def _auto_class(folder: Path) -> str:
    architectures = _architectures(folder)
    for name in architectures:
        for suffix, auto_class in _AUTO_CLASSES.items():
            if name.endswith(suffix):
                return auto_class
    raise SourceError(
        f"`architectures` in `{folder / 'config.json'}` must name a class that ends in "
        f"{' or '.join(_AUTO_CLASSES)}; got {listed(architectures) or 'none'}. Other "
        "models need a function that builds them: `file.py:name`."
    )


def _architectures(folder: Path) -> list[str]:
    file = folder / "config.json"
    if not file.is_file():
        raise SourceError(
            f"`{folder}` must hold a `config.json`, as `save_pretrained` writes it. "
            "For other models, give a reference such as `path/to/file.py:name`."
        )
    try:
        return list(json.loads(file.read_text(encoding="utf-8"))["architectures"] or [])
    except KeyError:
        return []
    except (ValueError, TypeError) as error:
        raise SourceError(f"`{file}` is no configuration in JSON: {error}.") from error


def _load(auto_class: str, folder: Path) -> tuple[Any, dict[str, Any]]:
    import transformers

    model_class = getattr(transformers, auto_class)
    local = {"local_files_only": True, "trust_remote_code": False}
    try:
        with _no_progress_bar():
            config = transformers.AutoConfig.from_pretrained(folder, **local)
            # It could name an implementation of attention to be fetched from a hub;
            # what the file says wins over the argument of `from_pretrained`.
            config._attn_implementation = "eager"
            loaded: tuple[Any, dict[str, Any]] = model_class.from_pretrained(
                folder,
                config=config,
                use_safetensors=True,
                output_loading_info=True,
                **local,
            )
    except Exception as error:  # transformers, safetensors, or the model's constructor
        reason = str(error).partition("\n")[0].rstrip(".")
        raise SourceError(
            f"transformers could not load `{folder}`: {type(error).__name__}: {reason}."
        ) from error
    return loaded


@contextmanager
def _no_progress_bar() -> Iterator[None]:
    """Silence transformers, whose bar ignores whether stderr is a terminal."""
    import transformers

    logging: Any = transformers.utils.logging
    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            logging.enable_progress_bar()


def _check_complete(folder: Path, loading: dict[str, Any]) -> None:
    """Refuse a model that transformers would have completed with random weights."""
    missing = sorted(map(str, loading["missing_keys"]))
    mismatched = sorted(map(str, loading["mismatched_keys"]))
    if missing or mismatched:
        raise SourceError(
            f"`{folder}` must hold every weight of the model; missing: "
            f"{listed(missing) or 'none'}; of another shape: "
            f"{listed(mismatched) or 'none'}. Was the classifier trained and saved?"
        )


def _informative_names(id2label: dict[int, str]) -> tuple[str, ...] | None:
    names = tuple(id2label[index] for index in sorted(id2label))
    placeholders = all(re.fullmatch(r"LABEL_\d+", name) for name in names)
    return None if placeholders else names
