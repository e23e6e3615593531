"""Going on from a checkpoint of the same arm, and from one of another: arms share their pairs and differ in little."""

from pathlib import Path

import pytest
import torch
from datasets import Dataset
from tiny import load_with_adapter, save_model_and_adapter, tiny_pairs, tiny_tokenizer
from trl import SFTConfig

from ddpo_lib.training.trainer import DeviationConfig, DeviationTrainer, ResponseSFTTrainer

WEIGHT = [0.5, 1.0, 2.0, 0.0]
SETTINGS = {
    "use_cpu": True,
    "bf16": False,
    "report_to": "none",
    "disable_tqdm": True,
    "per_device_train_batch_size": 2,
    "max_steps": 4,
    "learning_rate": 0.01,
    "lr_scheduler_type": "linear",
    "save_strategy": "steps",
    "save_steps": 2,
}


@pytest.fixture(scope="module")
def start(tmp_path_factory):
    return save_model_and_adapter(tmp_path_factory.mktemp("tiny"))


@pytest.fixture(scope="module", autouse=True)
def private_cache(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        yield


def build(start, out: Path, weight: list | None, **arm) -> DeviationTrainer:
    config = DeviationConfig(str(out), **SETTINGS, **arm)
    pairs = tiny_pairs(4, weight)
    return DeviationTrainer(
        load_with_adapter(*start), args=config, train_dataset=pairs, processing_class=tiny_tokenizer()
    )


@pytest.fixture(scope="module")
def checkpoints(start, tmp_path_factory) -> dict[str, Path]:
    """A checkpoint after two steps of each of a few arms, and of SFT."""
    arms = {
        "ddpo": (WEIGHT, {"loss": "dpo", "beta": 0.1}),
        "dpo": (None, {"loss": "dpo", "beta": 0.1}),
        "dorpo": (WEIGHT, {"loss": "orpo", "lam": 0.25}),
    }
    found = {}
    for name, (weight, arm) in arms.items():
        out = tmp_path_factory.mktemp(name)
        build(start, out, weight, **arm).train()
        found[name] = out / "checkpoint-2"
    out = tmp_path_factory.mktemp("sft")
    pairs = tiny_pairs(4)
    ResponseSFTTrainer(
        load_with_adapter(*start),
        args=SFTConfig(str(out), **SETTINGS),
        train_dataset=Dataset.from_dict({"prompt": pairs["prompt"], "completion": pairs["chosen"]}),
        processing_class=tiny_tokenizer(),
    ).train()
    return found | {"sft": out / "checkpoint-2"}


@pytest.mark.parametrize(
    ("checkpoint", "weight", "arm", "why"),
    [
        ("ddpo", WEIGHT, {"loss": "orpo"}, "loss is dpo there and orpo here"),
        ("ddpo", WEIGHT, {"beta": 0.2}, "beta is 0.1 there and 0.2 here"),
        ("dorpo", WEIGHT, {"loss": "orpo", "lam": 0.5}, "lam is 0.25 there and 0.5 here"),
        (
            "dorpo",
            WEIGHT,
            {"loss": "orpo", "dorpo_variant": "released"},
            "dorpo_variant is paper there and released here",
        ),
        ("ddpo", [0.5, 1.5, 2.0, 0.1], {}, "weight of row 1 is 1.0 there and 1.5 here"),
        ("ddpo", None, {}, "weight is a list of 4 there and None here"),
        ("dpo", WEIGHT, {}, "weight is None there and a list of 4 here"),
        ("sft", WEIGHT, {}, "holds no arm; no DeviationTrainer wrote it"),
    ],
)
def test_a_checkpoint_of_another_arm_is_refused(start, checkpoints, tmp_path, checkpoint, weight, arm, why):
    trainer = build(start, tmp_path, weight, **arm)
    before = {name: p.detach().clone() for name, p in trainer.model.named_parameters()}
    with pytest.raises(ValueError, match=f"^resume_from_checkpoint: .*{checkpoints[checkpoint].name}.* {why}$"):
        trainer.train(resume_from_checkpoint=str(checkpoints[checkpoint]))
    assert all(torch.equal(p, before[name]) for name, p in trainer.model.named_parameters())


def test_fewer_weights_are_another_arm(start, checkpoints, tmp_path):
    config = DeviationConfig(str(tmp_path), **SETTINGS)
    settings = {"args": config, "train_dataset": tiny_pairs(3, WEIGHT[:3]), "processing_class": tiny_tokenizer()}
    trainer = DeviationTrainer(load_with_adapter(*start), **settings)
    with pytest.raises(ValueError, match=r"weight is a list of 4 there and a list of 3 here$"):
        trainer.train(resume_from_checkpoint=str(checkpoints["ddpo"]))


def test_the_newest_checkpoint_of_the_folder_is_checked_too(start, checkpoints):
    trainer = build(start, checkpoints["ddpo"].parent, WEIGHT, beta=0.2)
    with pytest.raises(ValueError, match=r"checkpoint-4 is of another arm: beta"):
        trainer.train(resume_from_checkpoint=True)


@pytest.mark.parametrize(
    ("checkpoint", "weight", "arm"),
    [("ddpo", WEIGHT, {}), ("dpo", None, {"lam": 0.5}), ("dorpo", WEIGHT, {"loss": "orpo", "beta": 0.2})],
)
def test_the_same_arm_goes_on_to_what_it_is_uninterrupted(start, checkpoints, tmp_path, checkpoint, weight, arm):
    """A setting that the loss does not use does not make another arm."""
    whole = build(start, tmp_path / "whole", weight, **arm)
    whole.train()
    resumed = build(start, tmp_path / "resumed", weight, **arm)
    resumed.train(resume_from_checkpoint=str(checkpoints[checkpoint]))
    assert resumed.state.global_step == 4
    known = dict(whole.model.named_parameters())
    moved = 0.0
    untrained = dict(load_with_adapter(*start).named_parameters())
    for name, parameter in resumed.model.named_parameters():
        if parameter.requires_grad:
            torch.testing.assert_close(parameter, known[name], atol=1e-6, rtol=0)
            moved = max(moved, (parameter - untrained[name]).abs().max().item())
    assert moved > 1e-3
