import inspect
import json
import socket
import sys

import pytest
import torch
from safetensors.torch import save_file

from layerpeel._checks import SourceError
from layerpeel.cli.huggingface import INPUT_NAMES, load_huggingface


@pytest.fixture
def offline(monkeypatch):
    def refuse(*_):
        raise AssertionError("nothing may be looked up on a network")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)


SMALL = {
    "hidden_size": 8,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "intermediate_size": 8,
}


def bert(**changes):
    import transformers

    config = transformers.BertConfig(vocab_size=20, num_labels=3, **SMALL, **changes)
    return transformers.BertForSequenceClassification(config)


def vit(**changes):
    import transformers

    sizes = {"image_size": 8, "patch_size": 4, "num_labels": 3}
    return transformers.ViTForImageClassification(
        transformers.ViTConfig(**sizes, **SMALL, **changes)
    )


def resnet(**changes):
    import transformers

    sizes = {"embedding_size": 4, "hidden_sizes": [4, 8], "depths": [1, 1]}
    return transformers.ResNetForImageClassification(
        transformers.ResNetConfig(**sizes, num_labels=3, **changes)
    )


NAMED = {"id2label": {0: "cat", 1: "dog", 2: "owl"}}
TOKENS = {"input_ids": torch.tensor([[1, 2, 3]])}
PIXELS = {"pixel_values": torch.ones(1, 3, 8, 8)}


@pytest.mark.parametrize(
    ("make", "batch"), [(bert, TOKENS), (vit, PIXELS), (resnet, PIXELS)]
)
def test_folders_give_the_saved_model(tmp_path, offline, capfd, make, batch):
    model = make(**NAMED).eval()
    model.save_pretrained(tmp_path)
    capfd.readouterr()
    loaded, names = load_huggingface(tmp_path)
    assert capfd.readouterr() == ("", ""), "no bars: stderr is no terminal here"
    assert type(loaded) is type(model)
    assert names == ("cat", "dog", "owl")
    with torch.no_grad():
        torch.testing.assert_close(loaded(**batch).logits, model(**batch).logits)


def test_placeholder_names_are_left_out(tmp_path, offline):
    bert().save_pretrained(tmp_path)
    assert load_huggingface(tmp_path)[1] is None


@pytest.mark.parametrize("make", [bert, vit, resnet])
def test_named_inputs_are_those_of_the_models(make):
    tensors = set(inspect.signature(make().forward).parameters)
    tensors -= {"labels", "head_mask", "kwargs"}
    flags = {"interpolate_pos_encoding"} | {
        n for n in tensors if n.startswith("output_")
    }
    assert tensors - flags - {"return_dict", "bool_masked_pos"} <= set(INPUT_NAMES)


@pytest.mark.parametrize("name", ["kernels-community/flash-attn3", "flash_attention_2"])
def test_configuration_cannot_have_attention_code_fetched(tmp_path, offline, name):
    bert().save_pretrained(tmp_path)
    edit_config(tmp_path, _attn_implementation=name)
    loaded, _ = load_huggingface(tmp_path)
    assert loaded.config._attn_implementation == "eager"


def edit_config(folder, **changes):
    file = folder / "config.json"
    config = json.loads(file.read_text()) | changes
    file.write_text(json.dumps({k: v for k, v in config.items() if v is not None}))


def without_head(folder):
    state = bert().state_dict()
    state = {name: value for name, value in state.items() if "classifier" not in name}
    save_file(state, folder / "model.safetensors", metadata={"format": "pt"})


def with_other_classes(folder):
    edit_config(
        folder, id2label={str(i): f"class {i}" for i in range(5)}, label2id=None
    )


def as_pickle(folder):
    torch.save(bert().state_dict(), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()


def with_own_code(folder):
    (folder / "modeling_own.py").write_text("import os; os.mkdir('sprung')")
    edit_config(
        folder,
        model_type="own",
        auto_map={
            "AutoConfig": "modeling_own.OwnConfig",
            "AutoModelForSequenceClassification": "modeling_own.Own",
        },
    )


def with_damaged_weights(folder):
    content = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(content[: len(content) // 2])


BAD_FOLDERS = [
    (lambda f: (f / "config.json").unlink(), "must hold a `config.json`"),
    (lambda f: (f / "config.json").write_text("{"), "no configuration in JSON"),
    (lambda f: (f / "config.json").write_text("[]"), "no configuration in JSON"),
    (
        lambda f: edit_config(f, architectures=["BertForMaskedLM"]),
        "got BertForMaskedLM",
    ),
    (lambda f: edit_config(f, architectures=None), "got none"),
    (without_head, r"every weight.*missing: classifier\.bias, classifier\.weight"),
    (with_other_classes, "could not load|of another shape: .*classifier"),
    (as_pickle, "weights in safetensors; it holds none"),
    (with_own_code, "could not load"),
    (with_damaged_weights, "could not load"),
]


@pytest.mark.parametrize(("spoil", "message"), BAD_FOLDERS)
def test_bad_folders_are_refused(tmp_path, offline, monkeypatch, spoil, message):
    monkeypatch.chdir(tmp_path)
    bert().save_pretrained(tmp_path)
    spoil(tmp_path)
    with pytest.raises(SourceError, match=message):
        load_huggingface(tmp_path)
    assert not (tmp_path / "sprung").exists()


def test_missing_transformers_is_told_with_the_extra(tmp_path, monkeypatch):
    bert().save_pretrained(tmp_path)
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(ImportError, match=r"pip install 'layerpeel\[transformers\]'"):
        load_huggingface(tmp_path)
