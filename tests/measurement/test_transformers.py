"""Hugging Face classifiers: tiny, from a configuration, with random weights."""

import pytest
import torch

from layerpeel.measurement import measure
from tests.measurement.reference import Reference, assert_agrees

transformers = pytest.importorskip("transformers", reason="an optional dependency")

SIZES = {
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 24,
    "num_labels": 3,
}


def vit():
    config = transformers.ViTConfig(**SIZES, image_size=8, patch_size=4)
    return transformers.ViTForImageClassification(config)


def bert():
    config = transformers.BertConfig(**SIZES, vocab_size=20, max_position_embeddings=12)
    return transformers.BertForSequenceClassification(config)


def gpt2():
    config = transformers.GPT2Config(
        vocab_size=20,
        n_positions=12,
        n_embd=16,
        n_layer=2,
        n_head=2,
        num_labels=3,
        pad_token_id=0,
    )
    return transformers.GPT2ForSequenceClassification(config)


def images(key):
    g = torch.Generator().manual_seed(0)
    x, y = torch.randn(12, 3, 8, 8, generator=g), torch.arange(12) % 3
    return [
        {"pixel_values": a, key: b} for a, b in zip(x.split(5), y.split(5), strict=True)
    ]


def texts(key):
    """Sentences of different lengths, padded with zeros."""
    g = torch.Generator().manual_seed(0)
    ids, y = torch.randint(1, 20, (12, 7), generator=g), torch.arange(12) % 3
    mask = (torch.arange(7) < torch.randint(2, 8, (12, 1), generator=g)).long()
    parts = ((ids * mask).split(5), mask.split(5), y.split(5))
    return [
        {"input_ids": i, "attention_mask": m, key: k}
        for i, m, k in zip(*parts, strict=True)
    ]


def build(model):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return model()


def own_features(model, batch):
    """The features as the models define them, computed without hooks on the head."""
    inputs = {k: v for k, v in batch.items() if k not in ("label", "labels")}
    if "pixel_values" in batch:
        return model.vit(**inputs).last_hidden_state[:, 0]
    if hasattr(model, "bert"):
        return model.bert(**inputs).pooler_output
    hidden = model.transformer(**inputs).last_hidden_state
    last = batch["attention_mask"].sum(1) - 1
    return torch.stack([row[t] for row, t in zip(hidden, last.tolist(), strict=True)])


@pytest.mark.parametrize("key", ["labels", "label"])
@pytest.mark.parametrize(
    ("model", "data", "head"),
    [(vit, images, "classifier"), (bert, texts, "classifier"), (gpt2, texts, "score")],
    ids=["vit", "bert", "gpt2"],
)
def test_features_are_those_of_the_model(model, data, head, key):
    model, batches = build(model), data(key)
    m = measure(model, batches)
    assert m.head == head
    model.eval()
    with torch.no_grad():
        h = torch.cat([own_features(model, batch) for batch in batches])
        z = torch.cat(
            [model(**{k: v for k, v in b.items() if k != key}).logits for b in batches]
        )
    y = torch.cat([b[key] for b in batches])
    W = model.get_submodule(head).weight.detach().double()
    # Eager and fused attention may differ in the last bits of float32.
    assert_agrees(m, Reference(h.double(), y, W, z.double()), rtol=1e-4)


def test_low_precision_and_batch_encodings():
    model = build(bert).bfloat16()
    batches = [transformers.BatchEncoding(batch) for batch in texts("labels")]
    m = measure(model, batches)
    assert m.head == "classifier"
    assert m.num_samples == 12


def test_batches_beside_labels_and_tuple_outputs():
    model = build(bert)
    model.config.return_dict = False
    batches = [
        ({k: v for k, v in b.items() if k != "labels"}, b["labels"])
        for b in texts("labels")
    ]
    assert measure(model, batches).head == "classifier"
