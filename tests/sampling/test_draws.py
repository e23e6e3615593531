"""The draw of a token: what survives, the penalty, and noise that is a hash; on worked numbers and by frequencies."""

import math

import numpy as np
import pytest
import torch
from scipy import stats
from transformers import TemperatureLogitsWarper, TopKLogitsWarper, TopPLogitsWarper

from ddpo_lib.profiles.settings import Sampling
from ddpo_lib.sampling.draws import STEP, Draw, gumbel, mix, penalise, sample_keys, survivors

NOTHING_SAID = torch.zeros((1, 0), dtype=torch.long)


def keys(number: int, seed: str = "0") -> torch.Tensor:
    return torch.tensor(sample_keys(["a prompt"], number, seed)[0])


def draw(logits: torch.Tensor, seed: str = "0", step: int = 0, **changes) -> torch.Tensor:
    n = len(logits)
    one = Draw(Sampling(repetition_penalty=1.0, **changes), ends=(0,))
    return one(logits.clone(), NOTHING_SAID.expand(n, 0), keys(n, seed), torch.full((n,), step))


@pytest.mark.parametrize("temperature", [0.7, 1.0, 1.5])
@pytest.mark.parametrize("top_p", [0.1, 0.5, 0.95, 1.0])
@pytest.mark.parametrize("top_k", [0, 1, 5, 50, 1000])
def test_the_survivors_are_those_of_the_warpers_of_transformers(temperature, top_p, top_k):
    logits = torch.randn(40, 200, generator=torch.Generator().manual_seed(1)) * 4
    expected = TemperatureLogitsWarper(temperature)(None, logits.clone())
    if top_k:
        expected = TopKLogitsWarper(top_k)(None, expected)
    if top_p < 1:
        expected = TopPLogitsWarper(top_p)(None, expected)
    kept, ids = survivors(logits, Sampling(temperature=temperature, top_k=top_k, top_p=top_p))
    ours = torch.full_like(logits, -torch.inf).scatter_(1, ids, kept)
    torch.testing.assert_close(ours.softmax(1), expected.softmax(1), rtol=1e-5, atol=1e-7)
    assert torch.equal(ours.isinf(), expected.isinf())


def test_of_tokens_tied_at_the_last_place_as_many_are_kept_as_make_k():
    logits = torch.tensor([[3.0, 1.0, 1.0, 1.0, 0.0]])
    kept, ids = survivors(logits, Sampling(top_k=2, top_p=1.0))
    assert kept.tolist() == [[3.0, 1.0]]
    assert ids[0, 1] in (1, 2, 3)


# The penalty


def test_a_token_of_the_response_is_penalised_once_and_an_end_token_never():
    logits = torch.tensor([[2.0, -2.0, 3.0, -3.0, 4.0, 0.0], [2.0, -2.0, 3.0, -3.0, 4.0, 0.0]])
    said = torch.tensor([[2, 2, 3, 4], [5, 1, 4, 4]])  # 4 ends texts: in the second row it only fills up
    penalise(logits, said, 2.0, spared=torch.tensor([4]))
    assert logits.tolist() == [[2.0, -2.0, 1.5, -6.0, 4.0, 0.0], [2.0, -4.0, 3.0, -3.0, 4.0, 0.0]]


def test_a_text_ends_no_sooner_than_it_may():
    logits = torch.tensor([[100.0, 0.0, 1.0]]).repeat(3, 1)
    one = Draw(Sampling(top_k=1), ends=(0,), least=2)
    drawn = one(logits, torch.tensor([[0, 0], [1, 0], [1, 1]]), keys(3), torch.tensor([0, 1, 2]))
    assert drawn.tolist() == [2, 2, 0]


# The noise


def test_the_hash_is_splitmix64():
    """The first numbers of the published generator from the seed 1234567."""
    drawn = mix(1234567 + STEP * torch.arange(1, 6))
    expected = [
        6457827717110365317,
        3203168211198807973,
        9817491932198370423,
        4593380528125082431,
        16408922859458223821,
    ]
    assert [n % (1 << 64) for n in drawn.tolist()] == expected


def test_noise_has_the_distribution_of_gumbel():
    noise = gumbel(keys(1000), torch.arange(1000), torch.arange(1000).expand(1000, -1))
    assert noise.dtype == torch.float32
    assert noise.isfinite().all()
    assert stats.kstest(noise.numpy().ravel()[::7], "gumbel_r").pvalue > 0.01
    # the largest noise decides draws: a million variables exceed 10 as often as they should
    expected = -math.expm1(-math.exp(-10)) * noise.numel()
    assert abs(int((noise > 10).sum()) - expected) < 4 * math.sqrt(expected)


def test_noise_is_that_of_the_token_and_not_of_its_place():
    ids = torch.tensor([[7, 3, 49_151], [3, 49_151, 7]])
    first, second = gumbel(keys(1).expand(2), torch.tensor([5, 5]), ids)
    assert first.tolist() == second[[2, 0, 1]].tolist()
    assert len(set(first.tolist())) == 3


def test_noise_of_samples_steps_tokens_seeds_and_prompts_is_uncorrelated():
    ids = torch.arange(200).expand(50, -1)
    base = gumbel(keys(50), torch.zeros(50, dtype=torch.long), ids)
    others = {
        "next sample": gumbel(keys(51)[1:], torch.zeros(50, dtype=torch.long), ids),
        "next step": gumbel(keys(50), torch.ones(50, dtype=torch.long), ids),
        "next token": gumbel(keys(50), torch.zeros(50, dtype=torch.long), ids + 1),
        "next step and token": gumbel(keys(50), torch.ones(50, dtype=torch.long), ids + 1),
        "another seed": gumbel(keys(50, "1"), torch.zeros(50, dtype=torch.long), ids),
        "another prompt": gumbel(torch.tensor(sample_keys(["b"], 50, "0")[0]), torch.zeros(50, dtype=torch.long), ids),
    }
    for name, other in others.items():
        correlation = np.corrcoef(base.numpy().ravel(), other.numpy().ravel())[0, 1]
        assert abs(correlation) < 4 / math.sqrt(base.numel()), name


def test_keys_depend_on_seed_text_and_sample_alone_and_a_text_that_comes_again_has_others():
    alone = sample_keys(["a"], 3, "0")[0]
    among = sample_keys(["b", "a", "a"], 2, "0")
    assert among[1] == alone[:2]
    assert len({*alone, *among[0], *among[2], *sample_keys(["a"], 3, "1")[0]}) == 3 + 2 + 2 + 3


# Frequencies


@pytest.mark.parametrize(("top_k", "top_p"), [(4, 0.92), (0, 1.0)])
@pytest.mark.parametrize("step", [0, 17])
def test_tokens_are_drawn_as_often_as_they_are_probable(top_k, top_p, step):
    probabilities = torch.tensor([0.5, 0.25, 0.15, 0.06, 0.04])
    # of the four that top-k keeps, 0.06 is in the last 8% and is cut
    expected = np.array([0.5, 0.25, 0.15, 0, 0]) / 0.9 if top_k else probabilities.numpy().astype(float)
    drawn = draw(probabilities.log().repeat(40_000, 1), step=step, top_k=top_k, top_p=top_p)
    counts = np.bincount(drawn.numpy(), minlength=5)
    assert counts[expected == 0].sum() == 0
    expected = expected[expected > 0] / expected.sum()
    assert stats.chisquare(counts[counts > 0], expected * 40_000).pvalue > 0.001


def test_the_next_token_is_independent_of_the_one_before():
    logits = torch.tensor([0.4, 0.3, 0.2, 0.1]).log().repeat(40_000, 1)
    first, second = (draw(logits, step=step, top_k=0, top_p=1.0).numpy() for step in (0, 1))
    table = np.zeros((4, 4))
    np.add.at(table, (first, second), 1)
    assert stats.chi2_contingency(table).pvalue > 0.001


def test_what_is_cut_or_reordered_changes_the_draw_of_no_other_token():
    logits = torch.randn(500, 50, generator=torch.Generator().manual_seed(1))
    other = logits.clone()
    other[:, 48:] -= 20  # two tokens leave, and with them the order of the others' logits changes
    for settings in ({"top_k": 0, "top_p": 1.0}, {"top_k": 40, "top_p": 0.999}):
        drawn, again = (draw(scores, **settings) for scores in (logits, other))
        assert (drawn[drawn < 48] == again[drawn < 48]).float().mean() > 0.97
        assert (drawn >= 48).any() and (again < 48).all()
