"""One row of the grid of rewards: a small model of the main world trained by TRL's GRPO or RLOO, and its modes.

In training, quality is the truth: 1 for a story that the grammar can write, that matches its prompt and has no flaw,
else 0. So nothing is learned from a wrong score, unless a row adds noise.
"""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd

from ddpo_lib.base.files import write_json
from ddpo_lib.base.run_folder import Run
from ddpo_lib.base.store import content_key
from ddpo_lib.data.corpus import held_out_prompts
from ddpo_lib.profiles.profile import Profile
from ddpo_lib.profiles.reward_settings import RewardRow, Rewards
from ddpo_lib.profiles.world_settings import MAIN_WORLD, WORLD_SPACES
from ddpo_lib.rewards.advantages import count_flat
from ddpo_lib.rewards.deviation_reward import DeviationReward
from ddpo_lib.worlds import modes
from ddpo_lib.worlds.grammar import is_faithful, read_mode
from ddpo_lib.worlds.small_models import NEW_TOKENS, TEMPLATE, _sampling, _spare_the_collector, world_of


def make_reward_row(profile: Profile, row: RewardRow, seed: int, start: str, folder: Path, run: Run) -> None:
    """Train one row from the model of its world, and measure the modes of its samples; the model is not kept.

    `modes.json` contains the values of `measure_all` under `row`; `flat`, the share of groups without an advantage in
    training; and `quality`, the share of good stories among the samples of each step.
    """
    _spare_the_collector()
    place = run.path(start)
    corpus = pd.read_parquet(place / "corpus.parquet")
    train = corpus[corpus["split"] == "train"]
    prompts = train["prompt"].drop_duplicates().tolist()[: profile.worlds.preference_prompts]
    spaces = [WORLD_SPACES[name] for name in row.spaces]
    reward = Counted(DeviationReward(Judge(row, seed), spaces, row.rule, num_generations=row.generations))
    engine = learn(place / "trained", prompts, reward, row, profile.rewards, seed, folder)
    texts = engine(held_out_prompts(corpus), profile.worlds.samples)
    texts.to_parquet(folder / "samples.parquet")
    found = {"row": measure_all(texts, profile, seed), "flat": reward.flat / reward.groups, "quality": reward.quality}
    write_json(folder / "modes.json", found)


class Judge:
    """The truth as a quality: 1 for a good story, else 0, with the noise, the factor and the shift of a row.

    Equal stories for a prompt in one step have the same noise, since `DeviationReward` asks for them once.
    """

    def __init__(self, row: RewardRow, seed: int):
        self.row, self.rng = row, np.random.default_rng([seed, 1])

    def __call__(self, prompts: list[str], texts: list[str]) -> list[float]:
        good = np.array([is_good(text, prompt) for prompt, text in zip(prompts, texts, strict=True)], dtype=float)
        place = np.array([int(content_key(prompt)[:8], 16) / 16**8 for prompt in prompts])  # from 0 to 1
        seen = good + self.rng.normal(0, self.row.noise, len(texts)) if self.row.noise else good
        return (seen * (1 + (self.row.factor - 1) * place) + self.row.shift * place).tolist()


class Counted:
    """A reward function that counts the groups that it sees, those without an advantage, and the good stories."""

    def __init__(self, reward: DeviationReward):
        self.reward, self.groups, self.flat = reward, 0, 0
        self.quality: list[float] = []  # the share of good stories, by step
        self.__name__ = reward.__name__

    def __call__(self, prompts: list[str], completions: list[str], **columns) -> list[float]:
        rewards = self.reward(prompts, completions, **columns)
        grouped = np.array(rewards).reshape(-1, self.reward.num_generations)  # TRL's samples lie prompt by prompt
        self.groups, self.flat = self.groups + len(grouped), self.flat + count_flat(grouped)
        self.quality.append(float(np.mean([is_good(*pair) for pair in zip(completions, prompts, strict=True)])))
        return rewards


def is_good(text: str, prompt: str) -> bool:
    """Whether the grammar can write a text, and it matches its prompt and has no flaw."""
    mode = read_mode(text)
    return mode is not None and not mode.flawed and is_faithful(text, prompt)


def measure_all(texts: pd.DataFrame, profile: Profile, seed: int) -> dict:
    """The values of `modes.measure`, and `good`, the share of all texts that are good stories."""
    told = modes.read_modes(texts)
    good = float((told["faithful"] & ~told["flawed"].astype(bool)).mean())
    return modes.measure(told, world_of(profile.worlds, MAIN_WORLD, seed)) | {"good": good}


def learn(
    trained: Path, prompts: list[str], reward: Callable, row: RewardRow, settings: Rewards, seed: int, folder: Path
) -> Callable[[pd.DataFrame, int], pd.DataFrame]:
    """Train a small model by TRL's own trainer, whose other settings are TRL's defaults, without a reference.

    Args:
        trained: folder of the model to start from.
        prompts: of training; TRL draws them in a random order.
        reward: a reward function as TRL calls it.
        row, settings: of the profile.
        seed: of the order of prompts and of the samples.
        folder: TRL's output folder; nothing is written to it.

    Returns:
        A function (prompts, samples per prompt) -> the samples of the trained model, as `generate.generate` has them.
    """
    from datasets import Dataset
    from trl import GRPOConfig, GRPOTrainer, RLOOConfig, RLOOTrainer

    from ddpo_lib.models import models
    from ddpo_lib.sampling.engines import Local
    from ddpo_lib.sampling.generate import generate
    from ddpo_lib.sampling.rendering import fill_template

    tokenizer, model = models.load_tokenizer(str(trained)), models.load_model(str(trained))
    common = {
        "output_dir": str(folder),
        "max_steps": settings.steps,
        "learning_rate": settings.learning_rate,
        "lr_scheduler_type": "constant",
        "per_device_train_batch_size": settings.samples,
        "num_generations": row.generations,
        "max_completion_length": NEW_TOKENS,
        "beta": 0.0,
        "seed": seed,
        "bf16": False,
        "use_cpu": models.device() == "cpu",
        "gradient_checkpointing": False,
        "disable_dropout": True,
        "logging_strategy": "no",
        "save_strategy": "no",
        "report_to": "none",
        "disable_tqdm": True,
    }
    if row.trainer == "grpo":
        trainer, args = GRPOTrainer, GRPOConfig(**common, scale_rewards="group" if row.scaled else "none")
    else:
        trainer, args = RLOOTrainer, RLOOConfig(**common)
    data = Dataset.from_dict({"prompt": [TEMPLATE.replace("{prompt}", prompt) for prompt in prompts]})
    trainer(model, reward, args, train_dataset=data, processing_class=tokenizer).train()
    engine = Local(model, tokenizer, fill_template(TEMPLATE))
    return lambda asked, samples: generate(engine, asked, _sampling(samples), seed)
