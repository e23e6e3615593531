"""Advantages are those that TRL's own trainers compute in a real step."""

import numpy as np
import pytest
from datasets import Dataset
from tiny import WORDS, tiny_model, tiny_tokenizer
from trl import GRPOConfig, GRPOTrainer, RLOOConfig, RLOOTrainer

from ddpo_lib.rewards.advantages import count_flat, grpo, rloo, spread
from ddpo_lib.rewards.rules import SPREAD, shape

SIZE, PROMPTS = 4, 4
REWARDS = np.array([[1, 0, 0.5, 0.25], [3, 3, 3, 3], [np.nan, 1, 0, 1], [np.nan, np.nan, 2, np.nan]])


def trl_step(trainer, config, reward_funcs, folder, **options) -> dict:
    """One step of a trainer of TRL: its advantages, prompt by prompt, and what it logged."""
    args = config(
        str(folder), num_generations=SIZE, per_device_train_batch_size=SIZE * PROMPTS, max_completion_length=3,
        max_steps=1, report_to="none", bf16=False, use_cpu=True, logging_steps=1, save_strategy="no", **options,
    )  # fmt: skip
    prompts = Dataset.from_dict({"prompt": [f"the {word} and" for word in WORDS[3 : 3 + PROMPTS]]})
    made = trainer(tiny_model(), reward_funcs, args, train_dataset=prompts, processing_class=tiny_tokenizer())
    made.train()
    advantages = np.array(made._logs["advantages"]).reshape(PROMPTS, SIZE)
    return {"advantages": advantages, "flat": made.state.log_history[0]["frac_reward_zero_std"]}


def given(rewards):
    """A reward function that returns these rewards, whatever the samples are."""

    def fixed(completions, **columns):
        return [None if np.isnan(value) else float(value) for value in rewards.reshape(-1)]

    return fixed


def test_grpo_with_and_without_division_is_that_of_trl(tmp_path):
    for scaled, option in ((True, "group"), (False, "none")):
        found = trl_step(GRPOTrainer, GRPOConfig, given(REWARDS), tmp_path, scale_rewards=option)
        assert grpo(REWARDS, scaled=scaled) == pytest.approx(found["advantages"], abs=1e-5)


def test_rloo_is_that_of_trl(tmp_path):
    found = trl_step(RLOOTrainer, RLOOConfig, given(REWARDS), tmp_path, beta=0.0)
    assert rloo(REWARDS) == pytest.approx(found["advantages"], abs=1e-5)


def test_groups_without_an_advantage_are_those_that_trl_counts(tmp_path):
    rewards = np.array([[1, 0, 0.5, 0.25], [3, 3, 3, 3], [0.1, 0.1, 0.1, 0.1], [np.nan, 1, 0, 1]])
    found = trl_step(GRPOTrainer, GRPOConfig, given(rewards), tmp_path)
    assert count_flat(rewards) / PROMPTS == found["flat"] == 0.5
    assert count_flat(REWARDS) == 2  # one reward alone gives no advantage either
    assert (grpo(REWARDS)[[1, 3]] == 0).all() and (rloo(REWARDS)[[1, 3]] == 0).all()


def test_the_rule_normalised_is_the_sum_that_trl_standardises_over_the_batch(tmp_path):
    rng = np.random.default_rng(0)
    quality = rng.normal(size=(PROMPTS, SIZE))
    distances = rng.uniform(0.2, 1, size=(PROMPTS, SIZE, SIZE))
    distances = (distances + distances.transpose(0, 2, 1)) / 2 * (1 - np.eye(SIZE))
    apart = distances.sum(axis=2) / (SIZE - 1)
    functions = [given(quality), given(apart)]
    option = {"multi_objective_aggregation": "normalize_then_sum"}
    found = trl_step(GRPOTrainer, GRPOConfig, functions, tmp_path, **option)["advantages"]
    ours = np.array([shape("normalised", *group) for group in zip(quality, distances, strict=True)])
    assert (ours - ours.mean()) / (ours.std(ddof=1) + SPREAD) == pytest.approx(found, abs=1e-4)


def test_worked_numbers():
    assert grpo([0, 0, 1, 1], scaled=False).tolist() == [-0.5, -0.5, 0.5, 0.5]
    assert grpo([0, 0, 1, 1]) == pytest.approx(np.array([-0.5, -0.5, 0.5, 0.5]) / (3**-0.5 + SPREAD))
    assert rloo([0, 0, 1, 1]) == pytest.approx([-2 / 3, -2 / 3, 2 / 3, 2 / 3])
    assert spread([0, 0, 1, 1]) == pytest.approx(3**-0.5)


def test_a_term_that_all_share_cancels_and_a_factor_only_under_division():
    rewards = np.array([0.2, 0.9, 0.4, 0.4])
    for advantages in (grpo, rloo, lambda r: grpo(r, scaled=False)):
        assert advantages(rewards + 7) == pytest.approx(advantages(rewards))
    assert grpo(3 * rewards) == pytest.approx(grpo(rewards), rel=1e-3)
    assert grpo(3 * rewards, scaled=False) == pytest.approx(3 * grpo(rewards, scaled=False))
    assert rloo(rewards) == pytest.approx(grpo(rewards, scaled=False) * 4 / 3)


def test_one_sample_has_no_advantage():
    assert grpo([[5.0]]).tolist() == rloo([[5.0]]).tolist() == [[0.0]]
    assert grpo([np.nan, np.nan]).tolist() == [0.0, 0.0]
