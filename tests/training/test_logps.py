"""Packed rows against the padded forward they stand for: layout, log-probs, gradients, and what cannot be packed."""

import copy

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from peft import PromptTuningConfig, get_peft_model
from tiny import WORDS, gradients, load_with_adapter, save_model_and_adapter, size, tiny_model
from transformers import (
    AutoModelForCausalLM,
    BartConfig,
    GemmaConfig,
    GPT2Config,
    GraniteConfig,
    LlamaConfig,
    LlamaForCausalLM,
    MistralConfig,
    NemotronConfig,
    OPTConfig,
    Qwen2Config,
    StableLmConfig,
)
from trl.trainer.utils import add_fused_lm_head

from ddpo_lib.models import frozen_linears
from ddpo_lib.training import logps
from ddpo_lib.training.logps import (
    FEWEST,
    PACKED_ATTENTION,
    _frozen_head,
    _HeadLogProbs,
    _LogProbs,
    can_pack,
    pack,
    packed_attention,
    score_responses,
)

needs_onednn = pytest.mark.skipif(not torch.backends.mkldnn.is_available(), reason="torch was built without oneDNN")

VOCABULARY = len(WORDS) + 3  # of the tiny model: 0 is padding
Row = tuple[list[int], list[int]]


def padded(rows: list[Row]) -> dict:
    """(B, L) tensors of prompts and responses, padded on the right."""
    length = max(len(prompt) + len(response) for prompt, response in rows)
    batch = {name: torch.zeros(len(rows), length, dtype=torch.long) for name in ("input_ids", "attention_mask")}
    batch["completion_mask"] = torch.zeros(len(rows), length, dtype=torch.long)
    for i, (prompt, response) in enumerate(rows):
        stop = len(prompt) + len(response)
        batch["input_ids"][i, :stop] = torch.tensor(prompt + response)
        batch["attention_mask"][i, :stop] = 1
        batch["completion_mask"][i, len(prompt) : stop] = 1
    return batch


def packed(rows: list[Row]):
    batch = padded(rows)
    return pack(batch["input_ids"], batch["attention_mask"], batch["completion_mask"])


def padded_logps(model, batch: dict, virtual: int = 0) -> torch.Tensor:
    """(B,) from the full logits of the padded forward, of a model that nothing was done to."""
    inputs = {name: batch[name] for name in ("input_ids", "attention_mask")}
    logps = model(**inputs, use_cache=False).logits[:, virtual:-1].log_softmax(-1)
    logps = logps.gather(-1, batch["input_ids"][:, 1:, None]).squeeze(-1)
    return (logps * batch["completion_mask"][:, 1:]).sum(dim=1)


tokens = st.integers(1, VOCABULARY - 1)
prompts = st.lists(st.lists(tokens, max_size=6), min_size=1, max_size=3)
responses = st.lists(tokens, min_size=1, max_size=8)


@st.composite
def batches(draw) -> list[Row]:
    """One to six rows under one to three prompts, in any order; prompts may be empty, rows may be equal."""
    choices = draw(prompts)
    return draw(st.lists(st.tuples(st.sampled_from(choices), responses), min_size=1, max_size=6))


SPECIAL = {
    "one row": [([3, 4, 5], [6, 7])],
    "no prompt": [([], [6, 7, 8]), ([], [9])],
    "prompts of one token": [([3], [6, 7]), ([3], [8]), ([4], [6, 7])],
    "equal rows": [([3, 4, 5], [6, 7])] * 3,
    "a prompt that begins another": [([3, 4], [5, 6]), ([3, 4, 5], [6]), ([3, 4], [5, 7, 8])],
    "rows of a prompt apart": [([3, 4], [5]), ([8, 9, 3], [5, 5]), ([3, 4], [6, 7])],
}
CASES = pytest.mark.parametrize("rows", SPECIAL.values(), ids=SPECIAL)


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


# Log-probabilities and gradients


@pytest.fixture(scope="module")
def policies(tmp_path_factory):
    """Two equal policies; only the first is ever packed."""
    saved = save_model_and_adapter(tmp_path_factory.mktemp("tiny"))
    ours, plain = load_with_adapter(*saved), load_with_adapter(*saved)
    assert can_pack(ours)
    return ours, plain


def check_against_padded(policies, rows: list[Row]) -> None:
    ours, plain = policies
    batch = padded(rows)
    sums, counts = score_responses(ours, batch, batch["completion_mask"])[:2]
    expected = padded_logps(plain, batch)
    torch.testing.assert_close(sums, expected, atol=1e-4, rtol=0)
    assert counts.tolist() == [len(response) - (not prompt) for prompt, response in rows]
    scale = torch.linspace(0.5, 2, len(rows)) / counts.sum().clamp(min=1)
    found, known = gradients((sums * scale).sum(), ours), gradients((expected * scale).sum(), plain)
    assert found.keys() == known.keys()
    assert size({name: found[name] - known[name] for name in found}) < 1e-5 * max(1, size(known))


@settings(max_examples=40, deadline=None)
@given(rows=batches().filter(lambda rows: any(prompt or len(response) > 1 for prompt, response in rows)))
def test_log_probs_and_gradients_are_those_of_the_padded_forward(policies, rows):
    check_against_padded(policies, rows)


@CASES
def test_log_probs_and_gradients_are_those_of_the_padded_forward_where_it_is_special(policies, rows):
    check_against_padded(policies, rows)


ROWS = [([3, 4, 5, 6, 7], [8, 9, 10, 11]), ([3, 4, 5, 6, 7], [12, 9]), ([13, 14], [15]), ([16], [3, 5, 7, 9, 11, 13])]


TOKENS = 500  # of the vocabulary of these logits


@pytest.fixture
def small_blocks(monkeypatch):
    monkeypatch.setattr(logps, "LOGITS", TOKENS * FEWEST)


def check_distribution(logits: torch.Tensor, tokens: torch.Tensor, found: tuple) -> torch.Tensor:
    """Compare with float64; gives the (R, V) gradients of the log-probabilities for the logits."""
    log_probs, entropy, mean, top1 = found
    exact = logits.detach().double().log_softmax(dim=1)
    at = torch.arange(len(tokens))
    torch.testing.assert_close(log_probs.double(), exact[at, tokens], atol=1e-5, rtol=1e-6)
    torch.testing.assert_close(entropy.double(), -(exact.exp() * exact).sum(dim=1), atol=2e-5, rtol=0)
    torch.testing.assert_close(mean.double(), logits.double().mean(dim=1), atol=1e-6, rtol=0)
    assert top1.tolist() == (exact.argmax(dim=1) == tokens).tolist()
    assert not (entropy.requires_grad or mean.requires_grad or top1.requires_grad)
    return F.one_hot(tokens, TOKENS) - exact.exp()


@pytest.mark.parametrize("rows", [0, 1, 2 * FEWEST + 3])
def test_log_probs_of_logits_and_what_the_log_says_of_them(small_blocks, rows):
    """Over more tokens than are taken at once; logits reach 40, so that some shares vanish."""
    torch.manual_seed(0)
    logits = (10 * torch.randn(rows, TOKENS)).requires_grad_()
    tokens = torch.where(torch.arange(rows) % 3 == 0, logits.argmax(dim=1), torch.randint(TOKENS, (rows,)))
    found = _LogProbs.apply(logits, tokens)
    slopes = check_distribution(logits, tokens, found)

    scale = torch.linspace(0.5, 2, rows)
    (gradient,) = torch.autograd.grad((scale * found[0]).sum(), logits, retain_graph=True)
    torch.testing.assert_close(gradient.double(), scale[:, None] * slopes, atol=1e-6, rtol=1e-5)
    if rows:
        with pytest.raises(RuntimeError, match="modified by an inplace operation"):
            torch.autograd.grad(found[0].sum(), logits)  # the shares are the gradient now
    with torch.no_grad():
        assert torch.equal(_LogProbs.apply(logits, tokens)[1], found[1])


@pytest.mark.parametrize("onednn", [False, pytest.param(True, marks=needs_onednn)])
@pytest.mark.parametrize("rows", [0, 1, 2 * FEWEST + 3])
def test_log_probs_under_a_frozen_head(monkeypatch, small_blocks, rows, onednn):
    monkeypatch.setattr(frozen_linears, "_mkl_is_slow", lambda: onednn)
    torch.manual_seed(0)
    head = torch.nn.Linear(16, TOKENS, bias=False).requires_grad_(False)
    states = (40 * torch.randn(rows, 16)).requires_grad_()
    logits = head(states).detach()
    tokens = torch.where(torch.arange(rows) % 3 == 0, logits.argmax(dim=1), torch.randint(TOKENS, (rows,)))
    with frozen_linears.fast_frozen_linears(head):
        found = _HeadLogProbs.apply(states, head.weight, tokens, *frozen_linears.products_of(head))
    slopes = check_distribution(logits, tokens, found)
    (gradient,) = torch.autograd.grad((torch.linspace(0.5, 2, rows) * found[0]).sum(), states)
    expected = torch.linspace(0.5, 2, rows)[:, None] * (slopes @ head.weight.double())
    torch.testing.assert_close(gradient.double(), expected, atol=1e-5, rtol=1e-5)


def test_gradient_checkpointing_changes_nothing(policies):
    ours, _ = policies
    batch = padded(ROWS)
    found = []
    for checkpointing in (False, True):
        model = copy.deepcopy(ours)
        if checkpointing:
            model.gradient_checkpointing_enable({"use_reentrant": False})
            model.enable_input_require_grads()
        model.train()
        found.append(gradients(score_responses(model, batch, batch["completion_mask"])[0].mean(), model))
    assert size({name: found[0][name] - found[1][name] for name in found[0]}) < 1e-6
    assert size(found[0]) > 1e-2


def test_bfloat16_is_as_close_as_its_padded_forward():
    """Sums of up to 6 log-probs of size 3 to 8, in a format with steps of 1/64 between 2 and 4."""
    exact, plain, ours = tiny_model(), tiny_model().bfloat16(), tiny_model().bfloat16()
    batch = padded(ROWS)
    with torch.no_grad():
        sums = score_responses(ours, batch, batch["completion_mask"])[0]
        expected, other = padded_logps(exact, batch), padded_logps(plain, batch)
    assert sums.dtype == torch.float32
    assert can_pack(ours)
    assert (sums - expected).abs().max() < 2 * (other - expected).abs().max()
    torch.testing.assert_close(sums, expected, rtol=0.03, atol=0)


def test_generation_and_padded_forwards_stay_as_they_were():
    plain, ours = tiny_model(), tiny_model()
    assert can_pack(ours)
    batch = padded(ROWS)
    score_responses(ours, batch, batch["completion_mask"])
    inputs = {name: batch[name] for name in ("input_ids", "attention_mask")}
    left = {name: tensor.flip(1) for name, tensor in inputs.items()}  # padding on the left, as generation needs it
    for each in (inputs, left):
        with torch.no_grad():
            torch.testing.assert_close(ours(**each).logits, plain(**each).logits, atol=0, rtol=0)
    said = [model.generate(**left, max_new_tokens=8, do_sample=False, eos_token_id=None) for model in (plain, ours)]
    assert torch.equal(*said)
    assert len({tuple(row[-8:].tolist()) for row in said[0]}) > 1


# Other models

SMALL = {
    "vocab_size": VOCABULARY,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 64,
    "pad_token_id": 0,
    "bos_token_id": None,
    "eos_token_id": 1,
}
GPT2 = {
    "vocab_size": VOCABULARY,
    "n_embd": 32,
    "n_layer": 3,
    "n_head": 4,
    "n_positions": 64,
    "bos_token_id": None,
    "eos_token_id": 1,
}
OPT = {"vocab_size": VOCABULARY, "hidden_size": 32, "ffn_dim": 48, "num_hidden_layers": 3, "num_attention_heads": 4}
BART = {"vocab_size": VOCABULARY, "d_model": 32, "decoder_layers": 3, "decoder_attention_heads": 4, "is_decoder": True}
BART |= {"decoder_ffn_dim": 48, "max_position_embeddings": 64, "pad_token_id": 0, "is_encoder_decoder": False}
WINDOW = {"use_sliding_window": True, "sliding_window": 3, "max_window_layers": 1}


def random_model(config, **options):
    """With weights large enough that what a token attends to shows in what follows it."""
    torch.manual_seed(2)
    model = AutoModelForCausalLM.from_config(config, **options).eval()
    for parameter in model.parameters():
        if parameter.ndim > 1:
            torch.nn.init.normal_(parameter, std=0.3)
    return model


def check_model(model, virtual: int = 0) -> None:
    batch = padded(ROWS)
    with torch.no_grad():
        expected = padded_logps(model, batch, virtual)
        add_fused_lm_head(getattr(model, "base_model", model) if virtual else model)
        for _ in range(2):  # a model that turned out not to be packed stays so
            sums = score_responses(model, batch, batch["completion_mask"])[0]
            torch.testing.assert_close(sums, expected, atol=1e-4, rtol=0)
    assert len(set(expected.tolist())) == len(ROWS)


@pytest.mark.parametrize(
    "config",
    [
        LlamaConfig(**SMALL),
        Qwen2Config(**SMALL),
        GemmaConfig(**SMALL, head_dim=8),
        MistralConfig(**SMALL, sliding_window=None),
        GPT2Config(**GPT2),
        OPTConfig(**OPT, word_embed_proj_dim=32),
    ],
    ids=lambda config: config.model_type,
)
def test_families_that_are_packed(config):
    model = random_model(config)
    assert can_pack(model)
    check_model(random_model(config))


class Capped(LlamaForCausalLM):
    """With logits that cannot exceed 2, as other families have them."""

    def forward(self, input_ids=None, position_ids=None, **kwargs):
        outputs = super().forward(input_ids, position_ids=position_ids, **kwargs)
        outputs.logits = 2 * torch.tanh(outputs.logits / 2)
        return outputs


@pytest.mark.parametrize(
    ("build", "alone"),
    [
        (lambda: random_model(LlamaConfig(**SMALL)), True),
        (lambda: random_model(GraniteConfig(**SMALL, logits_scaling=4.0)), True),
        (lambda: Capped(LlamaConfig(**SMALL, initializer_range=0.3)).eval(), False),
    ],
    ids=["as they are", "divided", "capped"],
)
def test_a_frozen_head_takes_part_if_it_alone_makes_logits(build, alone):
    torch.manual_seed(3)
    model = build().requires_grad_(False)
    assert can_pack(model)
    inputs = packed(ROWS).inputs() | {"logits_to_keep": packed(ROWS).predicting}
    assert (_frozen_head(model, inputs) is model.lm_head) is alone
    assert "forward" not in vars(model.lm_head)
    model.lm_head.requires_grad_(True)
    assert _frozen_head(model, inputs) is None
    if alone:
        check_model(build().requires_grad_(False))


@pytest.mark.parametrize(
    ("config", "options"),
    [
        (MistralConfig(**SMALL, sliding_window=3), {}),
        (Qwen2Config(**SMALL, **WINDOW), {}),
        (LlamaConfig(**SMALL), {"attn_implementation": "eager"}),
        (BartConfig(**BART), {}),
    ],
    ids=["a window", "a window in some layers", "eager attention", "positions that cannot be given"],
)
def test_models_that_cannot_be_packed_run_padded(config, options):
    model = random_model(config, **options)
    assert not can_pack(model)
    check_model(model)
    assert model.config._attn_implementation != PACKED_ATTENTION


@pytest.mark.parametrize("kind", [StableLmConfig, NemotronConfig])
def test_a_model_that_does_not_pass_the_layout_on_runs_padded(kind, caplog):
    """Their decoder layers keep what they are called with from the attention, which shows at the first batch."""
    model = random_model(kind(**SMALL))
    check_model(model)
    assert not can_pack(model)
    assert [record.levelname for record in caplog.records if record.name == "ddpo_lib.training.logps"] == ["WARNING"]


def test_a_window_matters_in_these_rows():
    """Otherwise the tests above would pass a window by."""
    batch = padded(ROWS)
    narrow, whole = (random_model(MistralConfig(**SMALL, sliding_window=width)) for width in (3, None))
    with torch.no_grad():
        assert (padded_logps(narrow, batch) - padded_logps(whole, batch)).abs().max() > 0.1


def test_a_prompt_that_is_learned_runs_padded():
    config = PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=3)
    model, plain = (get_peft_model(tiny_model(), config).eval() for _ in range(2))
    plain.load_state_dict(model.state_dict())
    batch = padded(ROWS)
    with torch.no_grad():
        expected = padded_logps(plain, batch, virtual=3)
        add_fused_lm_head(model.get_base_model())
        sums = score_responses(model, batch, batch["completion_mask"])[0]
    assert not can_pack(model)
    torch.testing.assert_close(sums, expected, atol=1e-4, rtol=0)


# Attention over all sequences at once, on CUDA


def varlen_by_its_contract(
    query, key, value, ends_q, ends_k, longest_q, longest_k, *, scale, window_size, enable_gqa=False
):
    """What `varlen_attn` is documented to compute, segment by segment in float64."""
    assert ends_q.dtype == ends_k.dtype == torch.int32
    assert window_size == (-1, 0), "causal"
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
        weights = scores.masked_fill(~seen, -torch.inf).softmax(-1)
        out[ends_q[i] : ends_q[i + 1]] = torch.einsum("hqk,khd->qhd", weights, v).to(query.dtype)
    return out


def varlen_before_grouping(*tensors, scale, window_size):
    return varlen_by_its_contract(*tensors, scale=scale, window_size=window_size)


@settings(max_examples=40, deadline=None)
@given(rows=batches(), heads=st.sampled_from([(4, 4), (4, 2), (4, 1)]), grouped=st.booleans())
def test_attending_at_once_is_attending_in_turn(rows, heads, grouped):
    """The kernel itself needs CUDA and is replaced by its contract; the places that it is given are the real ones.

    That of torch 2.11 takes as many heads of keys and values as of queries.
    """
    layout = packed(rows)
    generator = torch.Generator().manual_seed(0)
    length = layout.tokens.shape[1]
    query, key, value = (torch.randn(1, h, length, 8, generator=generator) for h in (heads[0], heads[1], heads[1]))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(logps, "varlen_attn", varlen_by_its_contract if grouped else varlen_before_grouping)
        patch.setattr(logps, "_GROUPED", grouped)
        at_once = logps._attend_at_once(query, key, value, layout, 0.3)
    in_turn, _ = packed_attention(None, query, key, value, None, packed=layout, scaling=0.3)
    torch.testing.assert_close(at_once, in_turn, atol=1e-5, rtol=0)
