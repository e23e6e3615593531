"""Encoders of every kind that sentence-transformers has: tiny ones, saved by it and embedded by `embed`."""

import numpy as np
import pytest
import torch
from sentence_transformers import CrossEncoder, SentenceTransformer, SparseEncoder
from sentence_transformers.base.modules import Dense, Normalize, Router, Transformer
from sentence_transformers.sentence_transformer.modules import BoW, Pooling, StaticEmbedding
from tiny import WORDS, tiny_tokenizer
from transformers import (
    BertConfig,
    BertForMaskedLM,
    BertForSequenceClassification,
    BertModel,
    CLIPConfig,
    CLIPImageProcessor,
    CLIPModel,
    CLIPProcessor,
    PreTrainedTokenizerFast,
)

from ddpo_lib.base.errors import InputError
from ddpo_lib.spaces.embed import Space, count_overlong, embed

DIMS, LONGEST = 16, 32


@pytest.fixture(autouse=True)
def empty_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture(scope="module")
def texts() -> list[str]:
    rng = np.random.default_rng(0)
    return [" ".join(rng.choice(WORDS, size)) for size in range(1, 29)]


def tokenizer() -> PreTrainedTokenizerFast:
    own = tiny_tokenizer()
    own.padding_side, own.model_max_length = "right", LONGEST
    return own


def bert(kind=BertModel, **changes):
    torch.manual_seed(0)
    sizes = {"hidden_size": DIMS, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    return kind(BertConfig(vocab_size=len(tokenizer()), **sizes, max_position_embeddings=LONGEST, **changes)).eval()


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    """Makes the folder of a tiny BERT of a kind."""

    def make(kind=BertModel, **changes) -> str:
        folder = tmp_path_factory.mktemp("bert")
        bert(kind, **changes).save_pretrained(folder)
        tokenizer().save_pretrained(folder)
        return str(folder)

    return make


def transformer(base) -> list:
    return [Transformer(base(), max_seq_length=LONGEST), Pooling(DIMS, "mean")]


def static(dims=DIMS, seed=0) -> StaticEmbedding:
    torch.manual_seed(seed)
    return StaticEmbedding(tiny_tokenizer(), embedding_dim=dims)


def clip(folder) -> str:
    """A model of texts and pictures."""
    torch.manual_seed(0)
    sizes = {"hidden_size": DIMS, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    words = {"vocab_size": len(tokenizer()), "max_position_embeddings": LONGEST, "eos_token_id": 1, "pad_token_id": 0}
    config = CLIPConfig(
        text_config={**sizes, **words}, vision_config={**sizes, "image_size": 8, "patch_size": 4}, projection_dim=DIMS
    )
    CLIPModel(config).save_pretrained(folder)
    size = {"height": 8, "width": 8}
    CLIPProcessor(CLIPImageProcessor(size=size, crop_size=size), tokenizer()).save_pretrained(folder)
    return str(folder)


def modules(kind: str, base, folder) -> dict:
    """What `SentenceTransformer` is made from."""
    if kind == "clip":
        return {"model_name_or_path": clip(folder)}
    made = {
        "transformer": lambda: [*transformer(base), Normalize()],
        "not normalised": lambda: transformer(base),
        "dense": lambda: [*transformer(base), Dense(DIMS, 8)],
        "static": lambda: [static()],
        "bag of words": lambda: [BoW(WORDS)],
    }
    return {"modules": made[kind]()}


KINDS = ["transformer", "not normalised", "dense", "static", "bag of words", "clip"]


@pytest.mark.parametrize("kind", KINDS)
def test_vectors_are_the_encoders_own_and_depend_on_nothing_but_the_text(kind, base, texts, tmp_path, monkeypatch):
    stock = SentenceTransformer(**modules(kind, base, tmp_path / "made"), device="cpu")
    stock.save(str(tmp_path / "saved"))
    together = embed(texts, str(tmp_path / "saved"))
    expected = np.stack([stock.encode(text, normalize_embeddings=True) for text in texts])
    np.testing.assert_allclose(together, expected, atol=1e-5)
    assert np.ptp(together, axis=0).max() > 0.1
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "apart"))
    for part in range(3):
        np.testing.assert_array_equal(embed(texts[part::3], str(tmp_path / "saved")), together[part::3])
    assert count_overlong([*texts, "cat " * 40], str(tmp_path / "saved")) == (kind in KINDS[:3] or kind == "clip")


def test_a_prompt_of_the_model_is_put_before_each_text(base, texts, tmp_path):
    prompts = {"query": "the old cat: ", "document": "one ship: "}
    plain = SentenceTransformer(modules=transformer(base), device="cpu", prompts=prompts)
    plain.save(str(tmp_path / "plain"))
    plain.default_prompt_name = "query"
    plain.save(str(tmp_path / "default"))

    def by_hand(prompt: str):
        return plain.encode([prompt + text for text in texts], prompt="", normalize_embeddings=True)

    for folder, asked, prompt in [
        ("plain", None, ""),
        ("plain", "document", prompts["document"]),
        ("plain", "a dog: ", "a dog: "),
        ("default", None, prompts["query"]),
        ("default", "document", prompts["document"]),
    ]:
        made = embed(texts, Space(str(tmp_path / folder), prompt=asked))
        np.testing.assert_allclose(made, by_hand(prompt), atol=1e-5, err_msg=f"{folder} {asked}")
    assert count_overlong(["cat " * 30], Space(str(tmp_path / "plain"))) == 0
    assert count_overlong(["cat " * 30], Space(str(tmp_path / "default"))) == 1
    with pytest.raises(InputError, match=r"has no prompt 'documents'; it has query, document$"):
        embed(texts, Space(str(tmp_path / "plain"), prompt="documents"))


def test_the_first_dimensions_are_kept_and_have_unit_length(base, texts, tmp_path):
    stock = SentenceTransformer(modules=[*transformer(base), Normalize()], device="cpu")
    stock.save(str(tmp_path / "whole"))
    whole = embed(texts, str(tmp_path / "whole"))
    first = whole[:, :4] / np.linalg.norm(whole[:, :4], axis=1, keepdims=True)
    np.testing.assert_allclose(embed(texts, Space(str(tmp_path / "whole"), truncate_dim=4)), first, atol=1e-5)
    assert embed(texts, str(tmp_path / "whole")).shape == whole.shape, "the two spaces share vectors"
    with pytest.raises(InputError, match="truncate_dim: 99 of its 16 dimensions are asked"):
        embed(texts, Space(str(tmp_path / "whole"), truncate_dim=99))


def test_of_an_asymmetric_model_the_route_for_documents_is_used(base, texts, tmp_path):
    router = Router.for_query_document([static(seed=1)], transformer(base))
    stock = SentenceTransformer(modules=[router, Normalize()], device="cpu")
    stock.save(str(tmp_path / "router"))
    made = embed(texts, str(tmp_path / "router"))
    np.testing.assert_allclose(made, stock.encode_document(texts, normalize_embeddings=True), atol=1e-5)
    assert np.abs(made - stock.encode_query(texts, normalize_embeddings=True)).max() > 0.1


def test_a_text_without_a_direction_is_named(tmp_path):
    SentenceTransformer(modules=[BoW(WORDS)], device="cpu").save(str(tmp_path / "bow"))
    with pytest.raises(InputError, match="gives no direction to '😀 😀'"):
        embed(["the cat", "😀 😀"], str(tmp_path / "bow"))


@pytest.mark.parametrize("kind", ["cross-encoder", "classifier", "sparse encoder"])
def test_models_without_vectors_of_single_texts_are_refused(kind, base, tmp_path):
    if kind == "cross-encoder":
        CrossEncoder(base(BertForSequenceClassification, num_labels=1), device="cpu").save(str(tmp_path / "made"))
    elif kind == "classifier":
        bert(BertForSequenceClassification, num_labels=1).save_pretrained(tmp_path / "made")
    else:
        SparseEncoder(base(BertForMaskedLM), device="cpu").save(str(tmp_path / "made"))
    with pytest.raises(InputError, match="sparse encoder" if kind == "sparse encoder" else "cross-encoder"):
        embed(["the cat"], str(tmp_path / "made"))


def test_a_bare_language_model_is_pooled_with_a_warning(base, texts, caplog):
    embed(texts[:3], base())
    assert "no sentence encoder (no modules.json)" in caplog.text
    with pytest.raises(InputError, match="is counted"):
        Space("lexical", prompt="query: ")
