"""What the book says that the released code computes, and what is computed here in its place (shared/paper.md's list).

The released formulas stand on the page alone; they are taken from it. What is computed here is held by the
tests of the losses (1), the deviation (2, 9), the pairs (4), the corpus (5) and the trainer (6) too.
"""

import ast
import re
from itertools import product
from pathlib import Path

import numpy as np
import pytest
import torch
from datasets import Dataset
from tiny import LAYERS, load_with_adapter, save_model_and_adapter, tiny_tokenizer
from trl import SFTConfig

from ddpo_lib.base.errors import InputError
from ddpo_lib.data.corpus import transform_scores
from ddpo_lib.deviation.weighting import weights
from ddpo_lib.measures.diversity import pairwise_distance
from ddpo_lib.profiles.profile import load_profile
from ddpo_lib.training.losses import dorpo_loss
from ddpo_lib.training.trainer import ResponseSFTTrainer

PAGE = Path(__file__).parents[1] / "notebooks" / "06-released-code.md"


@pytest.fixture(scope="module")
def released() -> dict:
    """The page's functions by name, those that need nothing but numpy and their arguments."""
    names = {"np": np}
    for cell in re.findall(r"```\{code-cell\} python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.S):
        code = re.sub(r"^:tags:.*\n", "", cell, flags=re.M)
        for node in ast.parse(code).body:
            if isinstance(node, ast.FunctionDef) and node.name.startswith("released_"):
                exec(compile(ast.Module([node], []), str(PAGE), "exec"), names)
    return names


# 1


@pytest.mark.parametrize(("variant", "expected"), [("paper", [0.0, 1.0 / 2]), ("released", [1 / 4, 1 / 4])])
def test_the_pull_of_dorpos_nll_by_hand(variant, expected):
    """Weights 0 and 1; lambda near 0 leaves the NLL: d of the mean over 2 pairs is w/2, as released mean(w)/2."""
    chosen = torch.tensor([-2.0, -2.0], dtype=torch.float64, requires_grad=True)
    weight = torch.tensor([0.0, 1.0], dtype=torch.float64)
    dorpo_loss(chosen, torch.full_like(chosen, -2.5), weight, 1e-12, variant=variant).mean().backward()
    np.testing.assert_allclose(-chosen.grad.numpy(), expected, atol=1e-9)


def test_doubling_a_weight_inside_the_sigmoid_can_weaken_the_pull():
    """The odds-ratio term at a log odds ratio of 2: w / (1 + e^2w) is 0.119203 at w = 1 and 0.035972 at w = 2."""
    pulls = {}
    for weight in (1.0, 2.0):
        ratio = torch.tensor([2.0], dtype=torch.float64, requires_grad=True)
        chosen = torch.nn.functional.logsigmoid(ratio)  # odds of e^ratio
        rejected = torch.tensor([0.5], dtype=torch.float64).log()  # odds of 1
        loss = dorpo_loss(chosen, rejected, torch.tensor([weight]), 1.0, variant="released")
        odds_term = loss + weight * chosen.mean()  # what is left without the NLL
        (gradient,) = torch.autograd.grad(odds_term.sum(), ratio)
        pulls[weight] = -gradient.item()
    assert pulls[1.0] == pytest.approx(0.119203, abs=1e-6)
    assert pulls[2.0] == pytest.approx(0.035972, abs=1e-6)


# 2, and the weights of zero


@pytest.mark.parametrize(("n", "share"), [(4, 7 / 16), (8, 15 / 64), (16, 31 / 256)])
def test_the_share_at_weight_zero_over_all_places_of_the_two_lowest(n, share):
    """1 - (1 - 1/n)^2, exactly, where the lowest response of each space may be any with equal chance."""
    high, cases = np.linspace(0.5, 1.0, n), list(product(range(n), repeat=2))
    spaces = [np.tile(high, len(cases)) for _ in range(2)]
    for case, lowest in enumerate(cases):
        for space, place in zip(spaces, lowest, strict=True):
            space[case * n + place] = 0.1
    groups = np.arange(len(cases)).repeat(n)
    assert (weights(spaces, groups) == 0).mean() == share
    assert (weights(spaces[0], groups) == 0).mean() == 1 / n


def test_the_released_floor_changes_no_weight_that_is_read(released):
    read, unread = released["released_floor"](np.array([0.0, 1.5]), np.array([0.05, 0.8]), 0.1)
    assert read.tolist() == [0.0, 1.5]
    assert unread.tolist() == [0.1, 0.8]


@pytest.mark.parametrize("word", ["False", "True", "0.1"])
def test_a_floor_that_is_a_word_is_refused(tmp_path, word):
    path = tmp_path / "mine.yaml"
    arm = f'{{loss: dpo, start: sft, weights: [semantic], floor: "{word}"}}'
    path.write_text(f"extends: embedded\nname: mine\narms:\n  ddpo-floor: {arm}\n")
    with pytest.raises(InputError, match=r"arms\.ddpo-floor\.floor"):
        load_profile(path)


# 5


def test_the_pages_transform_is_the_released_one(released, golden):
    for case in golden["transform_scores"]:
        limits = case["min_score"], case["max_score"], case["compression_factor"]
        made = released["released_transform"](np.array(case["scores"]), *limits)
        np.testing.assert_allclose(made, case["transformed"], atol=1e-9)


def test_scores_from_zero_are_squeezed_and_scores_below_are_nan(released):
    """One log of 0, 1, 6: the scores become log 2, log 3, log 8, the unshifted range log 1 to log 7."""
    made = released["released_transform"](np.array([0.0, 1.0, 6.0]), 0, 6, compression=1)
    np.testing.assert_allclose(made, [-0.287586, 0.129150, 1.137244], atol=1e-6)
    below = np.array([-2.0, 0.0, 40.0])
    assert np.isnan(released["released_transform"](below, -2, 40)).all()
    assert np.isfinite(transform_scores(below, -2, 40)).all()


# 6


def test_prompt_and_padding_have_no_part_in_the_loss_of_sft(tmp_path):
    """Other words in the prompt's labels and in the padding: same loss, and a batch's labels count response tokens."""
    model, adapter = save_model_and_adapter(tmp_path, LAYERS)
    rows = {"prompt": ["the cat ", "a "], "completion": ["sat", "ran past the old king"]}
    config = SFTConfig(str(tmp_path / "sft"), report_to="none", use_cpu=True, per_device_train_batch_size=2)
    policy = load_with_adapter(model, adapter)
    trainer = ResponseSFTTrainer(
        policy, args=config, train_dataset=Dataset.from_dict(rows), processing_class=tiny_tokenizer()
    )
    batch = next(iter(trainer.get_train_dataloader()))
    assert sorted((batch["labels"] != -100).sum(1).tolist()) == [2, 6]  # 1 and 5 words, each with its end
    policy.eval()
    loss = trainer.compute_loss(policy, batch)
    padding = batch["attention_mask"] == 0
    assert padding.any()
    changed = batch | {"input_ids": batch["input_ids"].masked_fill(padding, 7)}
    torch.testing.assert_close(trainer.compute_loss(policy, changed), loss)


# 7


def test_homogenisation_without_the_last_document_is_three_quarters_for_four(released):
    alike = np.full(4, 0.6)
    assert released["released_homogenisation"](alike) == pytest.approx(0.45)
    # similarities of 0.2, 0.4, 0.6 and 0.8 to the others: (0.2 + 0.4 + 0.6) / 4
    assert released["released_homogenisation"](np.array([0.2, 0.4, 0.6, 0.8])) == pytest.approx(0.3)


def test_every_sample_counts_in_the_diversity_here():
    """Three equal vectors and one at right angles, wherever it stands: 3 of 6 pairs at distance 1."""
    for last in range(4):
        vectors = np.tile([1.0, 0.0], (4, 1))
        vectors[last] = [0.0, 1.0]
        _, distance = pairwise_distance(vectors, np.zeros(4, dtype=int))
        assert distance.tolist() == pytest.approx([0.5])


# 8


def test_the_message_that_is_sent_holds_the_story_and_no_instruction(released):
    built, sent = released["released_message"]("A door opens.")
    assert "100 words" in built
    assert built.endswith("A door opens.")
    assert sent == "A door opens."


# 9


def test_the_pages_weights_are_the_released_ones(released, golden):
    for case in golden["deviation"]:
        for space, distance in case["mean_distance"].items():
            made = released["released_weights"](np.array(distance))
            np.testing.assert_allclose(made, case["weights"][space], atol=1e-5)


def test_two_responses_one_ulp_apart(released):
    one = np.float32(0.3)
    apart = np.array([one, np.nextafter(one, np.float32(1))])
    assert released["released_weights"](np.array([one, one])).tolist() == [1, 1]
    assert released["released_weights"](apart).tolist() == [0, 2]
    assert weights(apart, np.zeros(2, dtype=int)).tolist() == [1, 1]
