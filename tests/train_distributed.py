"""Five steps of each loss, in one process or several: train_distributed.py MODEL ADAPTER OUT BATCHxACCUMULATION ..."""

import os
import sys
from pathlib import Path

import torch
from datasets import Dataset
from tiny import load_with_adapter, tiny_pairs, tiny_tokenizer
from trl import SFTConfig

from ddpo_lib.training import reference
from ddpo_lib.training.trainer import DeviationConfig, DeviationTrainer, ResponseSFTTrainer

STEPS = 5
WEIGHT = [0.0, 0.3, 1.0, 2.5]
NUMBER = 23  # no multiple of any batch, so that some process is given a part of one


def train(model: Path, adapter: Path, out: Path, batch_size: int, accumulation: int) -> dict[str, dict]:
    """For "dpo", "orpo" and "sft": the losses of the steps, the trained adapter, and the reference's log-probs."""
    pairs = tiny_pairs(NUMBER, [WEIGHT[i % len(WEIGHT)] for i in range(NUMBER)])
    responses = Dataset.from_dict({"prompt": pairs["prompt"], "completion": pairs["chosen"]})
    settings = {
        "output_dir": str(out),
        "per_device_train_batch_size": batch_size,
        "gradient_accumulation_steps": accumulation,
        "max_steps": STEPS,
        "learning_rate": 0.1,
        "optim": "sgd",
        "lr_scheduler_type": "constant",
        "max_grad_norm": 1.0,
        "train_sampling_strategy": "group_by_length",
        "use_cpu": True,
        "bf16": False,
        "save_strategy": "no",
        "logging_steps": 1,
        "report_to": "none",
        "disable_tqdm": True,
    }
    results = {}
    for loss in ("dpo", "orpo", "sft"):
        common = {"model": load_with_adapter(model, adapter), "processing_class": tiny_tokenizer()}
        if loss == "sft":
            trainer = ResponseSFTTrainer(args=SFTConfig(**settings, loss_type="nll"), train_dataset=responses, **common)
        else:
            config = DeviationConfig(**settings, loss=loss, beta=0.3, lam=0.5, precompute_ref_batch_size=2)
            trainer = DeviationTrainer(args=config, train_dataset=pairs, **common)
        trainer.train()
        history = trainer.state.log_history
        results[loss] = {"losses": torch.tensor([entry["loss"] for entry in history if "loss" in entry])}
        results[loss] |= {name: p.detach().clone() for name, p in trainer.model.named_parameters() if p.requires_grad}
        if loss == "dpo":
            data = trainer.train_dataset
            results[loss]["reference"] = torch.tensor([data["ref_chosen_logps"], data["ref_rejected_logps"]])
    state = trainer.accelerator
    results["world"] = {"size": state.num_processes, "rank": state.process_index}
    return results


if __name__ == "__main__":
    model, adapter, out = map(Path, sys.argv[1:4])
    reference.AT_ONCE = 8  # three parts, the last of which is no multiple of the processes
    for batches in sys.argv[4:]:
        os.environ["XDG_CACHE_HOME"] = str(out / f"cache-{batches}")  # or the second would find the first's reference
        results = train(model, adapter, out, *map(int, batches.split("x")))
        torch.save(results, out / f"{batches}-rank-{results['world']['rank']}.pt")
