"""Vectors of texts: from the real encoder and the counted spaces, whatever else is embedded with them."""

import re
import signal
import subprocess
import sys
import time

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ddpo_lib.base.errors import InputError
from ddpo_lib.data.corpus import PACKAGE_CORPUS, read_corpus
from ddpo_lib.spaces import embed as module
from ddpo_lib.spaces.embed import COUNTED, Space, count_overlong, embed

WORDS = "the tide took her letters one by one and nobody in the village asked where they went".split()


@pytest.fixture
def empty_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return tmp_path


@pytest.fixture(scope="module")
def uneven() -> list[str]:
    """Forty texts of 3 to 400 words."""
    rng = np.random.default_rng(0)
    return [" ".join(rng.choice(WORDS, size)) for size in np.geomspace(3, 400, 40).astype(int)]


def kept(cache) -> int:
    """The number of stored vectors."""
    return sum(len(pa.ipc.open_file(part).read_all()) for part in cache.rglob("vectors-*/*.arrow"))


def test_vectors_are_those_of_the_encoder_itself(empty_cache, uneven):
    from sentence_transformers import SentenceTransformer

    from ddpo_lib.models.models import encoder_place

    stock = SentenceTransformer(str(encoder_place("minilm")), device="cpu")
    expected = stock.encode(uneven, normalize_embeddings=True, show_progress_bar=False)
    np.testing.assert_allclose(embed(uneven, "minilm"), expected, atol=1e-5)


@pytest.mark.parametrize("space", ["minilm", *COUNTED])
def test_a_vector_depends_on_nothing_but_its_text(space, uneven, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "together"))
    together = embed(uneven, space)
    assert together.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(together, axis=1), 1, atol=1e-5)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "apart"))
    for part in range(3):
        np.testing.assert_array_equal(embed(uneven[part::3], space), together[part::3])


@pytest.mark.parametrize("space", ["minilm", "lexical"])
def test_a_repeated_text_is_embedded_once_and_gets_one_vector(empty_cache, uneven, space):
    vectors = embed([uneven[3], uneven[1], uneven[3], uneven[3]], space)
    assert kept(empty_cache) == 2
    np.testing.assert_array_equal(vectors[[0, 0]], vectors[[2, 3]])
    assert not np.array_equal(vectors[0], vectors[1])


def test_what_is_kept_is_not_computed_again(empty_cache, uneven, monkeypatch):
    first = embed(uneven, "lexical")
    monkeypatch.setattr("ddpo_lib.spaces.embed._count_all", None)  # calling it would fail
    np.testing.assert_array_equal(embed(uneven[::-1], "lexical"), first[::-1])


def test_a_killed_call_goes_on_where_it_was(empty_cache):
    script = (
        "from ddpo_lib.spaces import embed\nfrom ddpo_lib.data.corpus import read_corpus\n"
        "embed.SUBMIT, embed.KEEP = 4, 0.0\nembed.embed(read_corpus(held_out=0.0)['text'].tolist()[:160], 'minilm')"
    )
    run = [sys.executable, "-c", script]
    killed = subprocess.Popen(run, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 120
    while not kept(empty_cache) and killed.poll() is None and time.monotonic() < deadline:
        time.sleep(0.05)
    assert killed.poll() is None
    killed.send_signal(signal.SIGKILL)
    total = tokens_to_do(killed.communicate()[1])
    assert 0 < kept(empty_cache) < 160
    rest = tokens_to_do(subprocess.run(run, capture_output=True, text=True, check=True).stderr)
    assert 0 < rest < total
    assert kept(empty_cache) == read_corpus(PACKAGE_CORPUS, held_out=0.0)["text"][:160].nunique()


def tokens_to_do(progress: str) -> float:
    """The total of the progress bar, in thousands of tokens."""
    return float(re.findall(r"/([\d.]+)k \[", progress)[-1])


@given(st.lists(st.integers(1, 300), max_size=60), st.integers(1, 2000))
def test_a_batch_has_one_length_and_keeps_to_the_budget(padded, budget):
    batches = module._batches(padded, budget)
    assert sorted(i for batch in batches for i in batch) == list(range(len(padded)))
    lengths = [{padded[i] for i in batch} for batch in batches]
    assert all(len(length) == 1 for length in lengths)
    assert all(len(b) * padded[b[0]] <= budget or len(b) == 1 for b in batches)
    assert [length.pop() for length in lengths] == sorted((padded[b[0]] for b in batches), reverse=True)


def test_texts_beyond_what_the_model_reads_are_counted(empty_cache):
    texts = ["one two three", "word " * 200, "word " * 300, "word " * 20_000]
    assert count_overlong(texts, "minilm") == 2
    assert count_overlong(texts, "stylometric") == 0


def cosine_of_own(one: np.ndarray, other: np.ndarray) -> float:
    """Of what two counted vectors hold besides the last coordinate, which all texts have in common."""
    return one[:-1] @ other[:-1] / (np.linalg.norm(one[:-1]) * np.linalg.norm(other[:-1]))


def test_the_lexical_space_sees_words_and_not_their_order(empty_cache):
    text = "The bridge sang when the river rose."
    one, turned, other, name = embed(
        [text, "rose river the when sang bridge The.", "Nobody came.", text.upper()], "lexical"
    )
    np.testing.assert_allclose(one, turned, atol=1e-6)
    np.testing.assert_allclose(one, name, atol=1e-6)
    assert cosine_of_own(one, other) < 0.2


def test_the_delta_space_sees_function_words_and_not_topic(empty_cache):
    one, topic, voice = embed(
        [
            "I went to the harbour because my boat was there.",
            "I went to the library because my novel was there.",
            "You go up some stairs and then everything is over.",
        ],
        "delta",
    )
    np.testing.assert_allclose(one, topic, atol=1e-6)
    assert cosine_of_own(one, voice) < 0.5


@pytest.mark.parametrize("space", list(COUNTED))
def test_odd_texts_have_a_direction(empty_cache, space):
    vectors = embed(["😀", "!!!", "مرحبا بالعالم", "x" * 200_000, "a\n\n\nb", "<script>"], space)
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)


def test_a_blank_text_is_named(empty_cache):
    with pytest.raises(InputError, match="entry 1 is blank"):
        embed(["a", " \n"], "lexical")


def test_a_model_that_cannot_be_had_is_one_clear_line(empty_cache, tmp_path):
    with pytest.raises(InputError, match=r"none: is no folder here.*without a network"):
        embed(["a"], str(tmp_path / "none"))
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match=r"empty: cannot be loaded.*without a network"):
        embed(["a"], str(tmp_path / "empty"))


def save_encoder(folder, seed: int) -> str:
    """A sentence-transformers model with random weights."""
    import torch
    from sentence_transformers import SentenceTransformer
    from tiny import tiny_tokenizer
    from transformers import BertConfig, BertModel

    torch.manual_seed(seed)
    tokenizer, sizes = tiny_tokenizer(), {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    config = BertConfig(vocab_size=len(tokenizer), intermediate_size=16, initializer_range=0.5, **sizes)
    BertModel(config).save_pretrained(folder / "bert")
    tokenizer.save_pretrained(folder / "bert")
    SentenceTransformer(str(folder / "bert"), device="cpu").save(str(folder / "encoder"))
    return str(folder / "encoder")


def test_an_encoder_that_is_trained_anew_in_its_folder_gives_new_vectors(empty_cache, tmp_path):
    texts = ["the old king slept", "a dog ran past the door"]
    first = embed(texts, save_encoder(tmp_path, 1))
    second = embed(texts, save_encoder(tmp_path, 2))
    assert kept(empty_cache) == 4
    assert np.abs(first - second).max() > 0.1
    np.testing.assert_array_equal(embed(texts, save_encoder(tmp_path, 1)), first)
    assert kept(empty_cache) == 4


def test_code_from_the_hub_needs_a_pinned_revision():
    for revision in (None, "main", "v1.0"):
        with pytest.raises(InputError, match="pin its revision to a commit"):
            Space("someone/model", revision, trust_remote_code=True)
    assert Space("someone/model", "0123456789abcdef" * 2 + "01234567", trust_remote_code=True).revision


def test_two_processes_share_the_work(tmp_path):
    """`accelerate launch` of `ddpo weights`: each text once, and the table is that of one process."""
    import pandas as pd

    lines = PACKAGE_CORPUS.read_text(encoding="utf-8").splitlines()[:3]
    (tmp_path / "c.jsonl").write_text("\n".join(lines), encoding="utf-8")
    words = ["-m", "ddpo_lib.cli", "weights", str(tmp_path / "c.jsonl")]
    launch = ["-m", "accelerate.commands.launch", "--cpu", "--num_processes", "2", "--num_machines", "1"]
    launch += ["--mixed_precision", "no", "--dynamo_backend", "no", "--main_process_port", "0"]
    for name, start in {"two": launch, "one": []}.items():
        environment = {"XDG_CACHE_HOME": str(tmp_path / name), "OMP_NUM_THREADS": "1"}
        command = [sys.executable, *start, *words, str(tmp_path / f"{name}.parquet")]
        done = subprocess.run(
            command, env={**module.os.environ, **environment}, capture_output=True, text=True, timeout=300, check=False
        )
        assert done.returncode == 0, done.stderr[-3000:]
        assert done.stdout.count("responses to 3 prompts") == 1
    one, two = (pd.read_parquet(tmp_path / f"{name}.parquet") for name in ("one", "two"))
    pd.testing.assert_frame_equal(one, two, check_exact=True)
    assert kept(tmp_path / "two") == kept(tmp_path / "one") == 2 * one["text"].nunique()
