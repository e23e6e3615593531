"""The paper's reward model: a language model with LoRA and a head for one number, trained to predict upvotes.

It imports torch, which takes seconds on a small machine. So callers import this module where they use it.
"""

import json
import logging
import shutil
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from datasets import Dataset
from peft import LoraConfig, PeftModel, get_peft_model
from tqdm import tqdm
from transformers import (
    DataCollatorWithPadding,
    EarlyStoppingCallback,
    ProgressCallback,
    Trainer,
    TrainingArguments,
    set_seed,
)

from ddpo_lib.base.code_keys import code_key
from ddpo_lib.base.errors import InputError
from ddpo_lib.base.files import write_json
from ddpo_lib.base.store import content_key
from ddpo_lib.base.unfinished import continue_or_begin
from ddpo_lib.measures.quality import Reward
from ddpo_lib.models import models
from ddpo_lib.models.adapters import name_base
from ddpo_lib.models.memory import memory_advice
from ddpo_lib.models.versions import check_version, exact_version
from ddpo_lib.profiles.evaluation_settings import Quality
from ddpo_lib.training.batches import ByLength
from ddpo_lib.training.checkpoints import WholeCheckpoints, last_whole
from ddpo_lib.training.train import QuietProgress, stay_on_one_device

log = logging.getLogger(__name__)

END = "</response>"
EVALUATIONS = 4  # per epoch, on the prompts set aside for early stopping
TOKENS = {"cpu": 4096, "mps": 8192, "cuda": 65536}  # padded tokens scored at once


def frame(prompt: str, text: str) -> str:
    """The text that the model reads (paper, reward model)."""
    return f"<prompt>{prompt}</prompt><response>{text}{END}"


@dataclass
class RewardModel(Reward):
    """A trained reward model.

    Attributes:
        policy: a PEFT model with one label, on its device.
        tokenizer: its tokenizer.
        settings: of the profile.
        facts: `responses` and `prompts` of the training part, `dev_prompts`, `steps`, `best_step`, `dev_loss` at that
            step, and `cut`, the number of training and dev responses longer than `max_tokens`.
    """

    policy: PeftModel
    tokenizer: object
    settings: Quality
    facts: dict

    @property
    def name(self) -> str:
        return f"reward model ({self.settings.base.rstrip('/').rsplit('/', 1)[-1]})"

    def predict(self, prompts: list[str], texts: list[str]) -> np.ndarray:
        """Scores, in batches of similar length; the other texts of a batch change a score only by rounding."""
        most = self.settings.max_tokens
        ids, cut = _encode(self.tokenizer, prompts, texts, most)
        if cut:
            log.warning("%s: %d of %d responses over %d tokens are cut", self.name, cut, len(ids), most)
        scores = np.empty(len(ids))
        self.policy.eval()
        with torch.inference_mode():
            for rows in tqdm(_batches([len(one) for one in ids], TOKENS[models.device()]), desc=self.name):
                batch = self.tokenizer.pad({"input_ids": [ids[row] for row in rows]}, return_tensors="pt")
                scores[rows] = self.policy(**batch.to(self.policy.device)).logits[:, 0].float().cpu().numpy()
        return scores

    def save(self, folder: Path) -> None:
        self.policy.save_pretrained(folder / "adapter")
        name_base(folder / "adapter", self.settings.base)
        kept = {"settings": self.settings.model_dump(), "facts": self.facts}
        version = exact_version(self.settings.base, self.settings.revision)
        write_json(folder / "reward.json", kept | {"version": version})

    @classmethod
    def load(cls, folder: Path) -> "RewardModel":
        kept = json.loads((folder / "reward.json").read_text(encoding="utf-8"))
        settings = Quality(**kept["settings"])
        check_version(kept["version"], settings.base, settings.revision, f"reward model {folder}")
        base = models.load_scorer(settings.base, revision=settings.revision, dtype=settings.dtype)
        policy = PeftModel.from_pretrained(base, str(folder / "adapter"))
        return cls(policy, _tokenizer(settings), settings, kept["facts"])


class RewardTrainer(ByLength, WholeCheckpoints, Trainer):
    """transformers' Trainer, which resumes as if it had not been interrupted."""


def fit(train: pd.DataFrame, settings: Quality, seed: int, folder: Path) -> RewardModel:
    """Train on responses with their scores (paper, reward model: LoRA, L1 loss, early stop).

    A share of the prompts is set aside. Training stops when the loss on their responses has not fallen for `patience`
    evaluations, and the weights with the lowest such loss are kept.

    Args:
        train: one row per response, with `prompt_id`, `prompt`, `text` and a transformed `score`.
        settings: of the profile.
        seed: of the prompts set aside, of the initial adapter and head, and of the order of the data.
        folder: for checkpoints, from which an interrupted call with the same data, settings, seed and code resumes,
            and for `log.json`.

    Raises:
        InputError: there are fewer than two prompts, or the base model cannot be loaded.
    """
    dev = _draw_dev(train["prompt_id"], settings.dev, seed)
    tokenizer = _tokenizer(settings)
    parts = [_dataset(tokenizer, part, settings.max_tokens) for part in (train[~dev], train[dev])]
    cut = sum(part_cut for _, part_cut in parts)
    if cut:
        log.warning("%d of %d scored responses over %d tokens are cut", cut, len(train), settings.max_tokens)
    set_seed(seed)
    base = models.load_scorer(settings.base, revision=settings.revision, dtype=settings.dtype)
    lora = LoraConfig(r=settings.lora_r, lora_alpha=settings.lora_alpha, task_type="SEQ_CLS")  # trains the head too
    policy, checkpoints = get_peft_model(base, lora), folder / "checkpoints"
    continue_or_begin(checkpoints, _begun(train, settings, seed))
    arguments = _arguments(settings, len(parts[0][0]), seed, checkpoints)
    stay_on_one_device(arguments)
    trainer = RewardTrainer(
        policy,
        args=arguments,
        data_collator=DataCollatorWithPadding(tokenizer),
        train_dataset=parts[0][0],
        eval_dataset=parts[1][0],
        compute_loss_func=l1_loss,
        callbacks=[EarlyStoppingCallback(settings.patience)],
    )
    trainer.remove_callback(ProgressCallback)
    trainer.add_callback(QuietProgress)
    last = last_whole(checkpoints)
    if last:
        log.info("continuing from %s", last.name)
    with memory_advice("in the profile, lower quality.batch_size or quality.max_tokens"):
        trainer.train(resume_from_checkpoint=last and str(last))
    state = trainer.state
    facts = {
        "responses": int((~dev).sum()),
        "prompts": int(train.loc[~dev, "prompt_id"].nunique()),
        "dev_prompts": int(train.loc[dev, "prompt_id"].nunique()),
        "steps": state.global_step,
        "best_step": state.best_global_step,
        "dev_loss": state.best_metric,
        "cut": cut,
    }
    write_json(folder / "log.json", state.log_history)
    shutil.rmtree(checkpoints)
    return RewardModel(policy, tokenizer, settings, facts)


def _begun(train: pd.DataFrame, settings: Quality, seed: int) -> dict:
    """What the training depends on, by name, as in `training.train`."""
    columns = (train[name] for name in ("prompt_id", "prompt", "text", "score"))
    return {
        "data": content_key(*(str(value) for column in columns for value in column)),
        "model": exact_version(settings.base, settings.revision),
        "settings": settings.model_dump(),
        "seed": seed,
        "code": code_key(fit),
    }


def l1_loss(outputs, labels: torch.Tensor, num_items_in_batch=None) -> torch.Tensor:
    """Mean absolute difference between the predicted scores, `outputs.logits` (B, 1), and `labels`, (B,).

    With `num_items_in_batch`, the responses of a step, it is the sum of the differences over that number, as Trainer
    expects.
    """
    differences = (outputs.logits[:, 0].float() - labels.float()).abs()
    return differences.mean() if num_items_in_batch is None else differences.sum() / num_items_in_batch


def _arguments(settings: Quality, responses: int, seed: int, checkpoints: Path) -> TrainingArguments:
    every = max(1, -(-responses // settings.batch_size) // EVALUATIONS)
    return TrainingArguments(
        output_dir=str(checkpoints),
        learning_rate=settings.learning_rate,
        num_train_epochs=settings.epochs,
        per_device_train_batch_size=settings.batch_size,
        per_device_eval_batch_size=4 * settings.batch_size,
        warmup_steps=settings.warmup_steps,
        seed=seed,
        use_cpu=models.device() == "cpu",
        gradient_checkpointing=torch.cuda.is_available(),
        gradient_checkpointing_kwargs={"use_reentrant": False},  # the reentrant kind needs inputs with a gradient
        train_sampling_strategy="group_by_length",
        label_names=["labels"],
        eval_strategy="steps",
        eval_steps=every,
        save_strategy="steps",
        save_steps=every,
        save_total_limit=1,
        load_best_model_at_end=True,
        metric_for_best_model="loss",
        greater_is_better=False,
        restore_callback_states_from_checkpoint=True,  # for how many evaluations the loss has not fallen
        logging_steps=1,
        report_to="none",
        dataloader_pin_memory=torch.cuda.is_available(),
    )


def _draw_dev(prompt_ids: pd.Series, share: float, seed: int) -> np.ndarray:
    """(n,) whether each response's prompt is set aside; this share of the prompts is, at least one and not all."""
    prompts = np.sort(prompt_ids.unique())
    if len(prompts) < 2:
        raise InputError(
            "a reward model needs scored responses to at least two prompts: one to train on, one for early stopping"
        )
    number = min(max(1, round(share * len(prompts))), len(prompts) - 1)
    return prompt_ids.isin(np.random.default_rng(seed).permutation(prompts)[:number]).to_numpy()


def _tokenizer(settings: Quality):
    tokenizer = models.load_tokenizer(settings.base, settings.revision)
    tokenizer.padding_side = "right"  # the score is read at the last token; positions then start at the first
    return tokenizer


def _dataset(tokenizer, part: pd.DataFrame, max_tokens: int) -> tuple[Dataset, int]:
    ids, cut = _encode(tokenizer, part["prompt"].tolist(), part["text"].tolist(), max_tokens)
    return Dataset.from_dict({"input_ids": ids, "labels": part["score"].tolist()}), cut


def _encode(tokenizer, prompts: list[str], texts: list[str], max_tokens: int) -> tuple[list[list[int]], int]:
    """Token ids of each frame, and how many frames exceed `max_tokens`: their responses are cut at the end."""
    end = tokenizer(END, add_special_tokens=False).input_ids
    framed = [frame(prompt, text) for prompt, text in zip(prompts, texts, strict=True)]
    ids = tokenizer(framed, verbose=False).input_ids
    cut = [ids_ if len(ids_) <= max_tokens else ids_[: max_tokens - len(end)] + end for ids_ in ids]
    return cut, sum(len(one) > max_tokens for one in ids)


def _batches(lengths: list[int], budget: int) -> list[list[int]]:
    """Rows in batches, longest first; each batch has as many rows as the budget of padded tokens allows."""
    batches, width = [], 0
    for row in np.argsort(lengths, kind="stable")[::-1].tolist():
        if batches and (len(batches[-1]) + 1) * width <= budget:
            batches[-1].append(row)
        else:
            batches.append([row])
            width = lengths[row]
    return batches
