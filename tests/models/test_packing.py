"""The layout of packed rows, and attention within each of their sequences."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from packed_rows import CASES, Row, batches, packed

from ddpo_lib.models import packing
from ddpo_lib.models.packing import packed_attention

# The layout


def check_layout(rows: list[Row]) -> None:
    row = packed(rows)
    tokens, positions = row.tokens[0].tolist(), row.positions[0].tolist()
    distinct = {tuple(prompt) for prompt, _ in rows}
    responses = sum(len(response) + bool(prompt) for prompt, response in rows)  # with the token that predicts the first
    assert len(tokens) == responses + sum(len(prompt) - 1 for prompt in distinct if prompt), "a prompt stands twice"

    for pieces in (row.pieces, row.queries):
        assert [start for _, start, _ in pieces] == [0, *(stop for _, _, stop in pieces[:-1])], "pieces leave gaps"
        assert pieces[-1][2] == len(tokens)
        for (low, high), start, stop in pieces:
            assert positions[low:high] + positions[start:stop] == list(range(high - low + stop - start))
    whole = sorted(tokens[low:high] + tokens[start:stop] for (low, high), start, stop in row.queries)
    assert whole == sorted(prompt + response for prompt, response in rows)

    for i, (prompt, response) in enumerate(rows):
        places = row.predicting[row.row == i].tolist()
        assert row.predicted[row.row == i].tolist() == (response if prompt else response[1:])
        assert [tokens[place + 1] for place in places] == row.predicted[row.row == i].tolist()
        assert [positions[place] + 1 for place in places] == list(range(max(len(prompt), 1), len(prompt + response)))
    assert row.row.tolist() == sorted(row.row.tolist())


@given(batches())
def test_each_sequence_stands_whole_and_each_prompt_once(rows):
    check_layout(rows)


@CASES
def test_each_sequence_stands_whole_and_each_prompt_once_where_it_is_special(rows):
    check_layout(rows)


def test_the_layout_of_two_responses_by_hand():
    row = packed([([3, 4, 5], [6, 7]), ([3, 4, 5], [8])])
    assert row.tokens.tolist() == [[3, 4, 5, 6, 7, 5, 8]]
    assert row.positions.tolist() == [[0, 1, 2, 3, 4, 2, 3]]
    assert row.predicting.tolist() == [2, 3, 5]
    assert row.predicted.tolist() == [6, 7, 8]
    assert row.row.tolist() == [0, 0, 1]
    assert row.pieces == [((0, 0), 0, 2), ((0, 2), 2, 5), ((0, 2), 5, 7)]
    assert row.queries == [((0, 0), 0, 5), ((0, 2), 5, 7)]


# Attention over all sequences at once, on CUDA


def varlen_by_its_contract(
    query, key, value, ends_q, ends_k, longest_q, longest_k, *, scale, window_size, enable_gqa=False
):
    """What `varlen_attn` is documented to compute, segment by segment in float64."""
    assert ends_q.dtype == ends_k.dtype == torch.int32
    left, right = window_size
    assert right == 0, "causal"
    assert enable_gqa or query.shape[1] == key.shape[1] == value.shape[1]
    assert ends_q[-1] == len(query)
    assert ends_k[-1] == len(key) == len(value)
    assert (ends_q.diff().max(), ends_k.diff().max()) == (longest_q, longest_k)
    repeats = query.shape[1] // key.shape[1]
    out = torch.empty_like(query)
    for i in range(len(ends_q) - 1):
        q = query[ends_q[i] : ends_q[i + 1]].double()
        k, v = (x[ends_k[i] : ends_k[i + 1]].double().repeat_interleave(repeats, dim=1) for x in (key, value))
        scores = torch.einsum("qhd,khd->hqk", q, k) * scale
        seen = torch.ones(len(q), len(k), dtype=torch.bool).tril(len(k) - len(q))  # the last query sees the last key
        seen = seen & ~torch.ones_like(seen).tril(len(k) - len(q) - left - 1) if left >= 0 else seen
        weights = scores.masked_fill(~seen, -torch.inf).softmax(-1)
        out[ends_q[i] : ends_q[i + 1]] = torch.einsum("hqk,khd->qhd", weights, v).to(query.dtype)
    return out


def varlen_before_grouping(*tensors, scale, window_size):
    return varlen_by_its_contract(*tensors, scale=scale, window_size=window_size)


@settings(max_examples=40)
@given(
    rows=batches(),
    heads=st.sampled_from([(4, 4), (4, 2), (4, 1)]),
    window=st.none() | st.integers(1, 9),
    grouped=st.booleans(),
)
def test_attending_at_once_is_attending_in_turn(rows, heads, window, grouped):
    """The kernel itself needs CUDA and is replaced by its contract; the places that it is given are the real ones.

    That of torch 2.11 takes as many heads of keys and values as of queries.
    """
    layout = packed(rows)
    generator = torch.Generator().manual_seed(0)
    length = layout.tokens.shape[1]
    query, key, value = (torch.randn(1, h, length, 8, generator=generator) for h in (heads[0], heads[1], heads[1]))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(packing, "varlen_attn", varlen_by_its_contract if grouped else varlen_before_grouping)
        patch.setattr(packing, "_GROUPED", grouped)
        at_once = packing._attend_at_once(query, key, value, layout, scale=0.3, window=window)
    in_turn, _ = packed_attention(None, query, key, value, None, packed=layout, scaling=0.3, sliding_window=window)
    torch.testing.assert_close(at_once, in_turn, atol=1e-5, rtol=0)


def test_what_a_token_sees_by_hand():
    """Two queries after a context of two, of which each sees itself and one before."""
    assert packing._mask(2, 4, None, "cpu").int().tolist() == [[1, 1, 1, 0], [1, 1, 1, 1]]
    assert packing._mask(2, 4, 2, "cpu").int().tolist() == [[0, 1, 1, 0], [0, 0, 1, 1]]
    assert packing._mask(3, 3, 3, "cpu") is packing._mask(3, 3, None, "cpu") is None
    assert packing._mask(3, 3, 1, "cpu").int().tolist() == [[1, 0, 0], [0, 1, 0], [0, 0, 1]]
