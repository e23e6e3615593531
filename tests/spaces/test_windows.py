"""Texts longer than the encoder reads: they are counted aloud, and windows read all of them."""

import itertools

import numpy as np
import pytest

from ddpo_lib.spaces import windows
from ddpo_lib.spaces.embed import Space, _encoder, count_overlong, embed

SEA = "The old captain heard the song of his youth in the fog. "
LAND = "A fish that could talk was sold at the market for three coins. "
PLAIN, WINDOWS = Space("minilm"), Space("minilm", windows=True)


@pytest.fixture(scope="module")
def encoder():
    return _encoder(PLAIN)


def tokens(encoder, text: str) -> list[int]:
    return encoder.tokenizer(text, add_special_tokens=False, verbose=False).input_ids


@pytest.mark.parametrize("text", [SEA, SEA * 60, "word\n\n" * 700, "海" * 900, "x" * 3000, SEA * 40 + "海" * 300])
def test_windows_hold_every_token_of_a_text_and_the_encoder_reads_each_whole(encoder, text):
    (pieces,) = windows.split([text], encoder)
    assert "".join("".join(pieces).split()) == "".join(text.split())
    assert all(len(tokens(encoder, piece)) <= encoder.max_seq_length - 2 for piece in pieces)
    if " " in text.strip():
        assert list(itertools.chain.from_iterable(tokens(encoder, piece) for piece in pieces)) == tokens(encoder, text)
    assert len(pieces) == max(1, -(-len(tokens(encoder, text)) // (encoder.max_seq_length - 2))) or len(pieces) > 1


def test_a_short_text_has_the_vector_that_it_has_without_windows():
    np.testing.assert_array_equal(embed([SEA, LAND], WINDOWS), embed([SEA, LAND], PLAIN))


def test_only_windows_see_where_long_texts_differ():
    start = SEA * 30
    pair = [start + LAND * 30, start + "Snow fell on the wires between the two villages. " * 30]
    cut, whole = embed(pair, PLAIN), embed(pair, WINDOWS)
    assert cut[0] @ cut[1] == pytest.approx(1, abs=1e-6)
    assert whole[0] @ whole[1] < 0.97
    np.testing.assert_allclose(np.linalg.norm(whole, axis=1), 1, atol=1e-6)


def test_the_vector_of_windows_is_their_mean_by_characters():
    def units(texts):
        return np.array([[1, 0] if text.startswith("a") else [0, 1] for text in texts], dtype=np.float32)

    found = windows.embed_windows([["a" * 30, "b" * 40], ["b"], ["a", "a"]], units)
    np.testing.assert_allclose(found, [[0.6, 0.8], [0, 1], [1, 0]], atol=1e-6)


def test_cut_texts_are_counted_aloud_unless_windows_read_them(caplog):
    texts = [SEA, SEA * 60, LAND * 60]
    assert count_overlong(texts, PLAIN) == 2
    assert "minilm: 2 of 3 texts are longer than the 256 tokens that it reads" in caplog.text
    caplog.clear()
    assert count_overlong(texts, WINDOWS) == 2
    assert count_overlong(texts, "stylometric") == 0
    assert not caplog.text


def test_a_profile_can_ask_for_windows(tmp_path):
    from ddpo_lib.measures.from_profile import space
    from ddpo_lib.profiles.profile import load_profile

    path = tmp_path / "mine.yaml"
    path.write_text("extends: smoke\nspaces: {semantic: {model: minilm, windows: true}}\n")
    profile = load_profile(path)
    assert space(profile, "semantic").windows
    assert not space(profile, "style").windows
