#!/usr/bin/env bash
# trl 1.16.0 with peft 0.21.2: with a PiSSA or OLoRA adapter, the reference model is not the model that was given.
#
# Guess: `DPOTrainer(model, peft_config=LoraConfig(init_lora_weights="pissa"))` starts at the model as it is, and that
#   model is the reference; so the first loss is log 2, as with every other adapter. Or the trainer refuses.
# Truth: the policy starts at the model that was given, but the reference is the model without its adapter. PiSSA and
#   OLoRA take the adapter's start out of the base's weights, so that reference is the rest, a model that nobody has
#   trained. There is no error, warning or log line. GRPO's KL term has the same reference.
# Seen: first DPO loss with the default start 0.693, with PiSSA 4.65, with OLoRA 4.03. GRPO's first KL is 0 with the
#   default start, 0.93 with PiSSA.
# Matters for: preference training with these adapters; the loss holds the policy near the wrong model.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"${PYTHON:-python3}" -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip install --quiet --no-compile torch==2.13.0
"$folder/venv/bin/python" -m pip install --quiet --no-compile \
  torch==2.13.0 transformers==5.24.0 trl==1.16.0 peft==0.21.2 accelerate==1.15.0 datasets==5.2.0 numpy==2.4.6
cd "$folder"
export HF_HUB_OFFLINE=1 HF_HUB_DISABLE_TELEMETRY=1 HF_HUB_DISABLE_PROGRESS_BARS=1 HF_HOME="$folder/hf" OMP_NUM_THREADS=1
"$folder/venv/bin/python" -I - 2>messages <<'PY' || { cat messages; exit 1; }
import math

import torch
from datasets import Dataset
from peft import LoraConfig
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast
from trl import DPOConfig, DPOTrainer, GRPOConfig, GRPOTrainer

symbols = ["<s>", "</s>", "<pad>", *sorted(pre_tokenizers.ByteLevel.alphabet())]
of_bytes = Tokenizer(models.BPE(vocab={symbol: i for i, symbol in enumerate(symbols)}, merges=[]))
of_bytes.pre_tokenizer, of_bytes.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
tokenizer = PreTrainedTokenizerFast(tokenizer_object=of_bytes, bos_token="<s>", eos_token="</s>", pad_token="<pad>")
sizes = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
pairs = Dataset.from_list([{"prompt": "Q: x\nA:", "chosen": " A cat sat.", "rejected": " A dog ran."}] * 2)
settings = {"use_cpu": True, "bf16": False, "report_to": [], "max_steps": 1, "logging_steps": 1, "save_strategy": "no"}


def model():
    torch.manual_seed(0)
    return LlamaForCausalLM(LlamaConfig(vocab_size=len(symbols), pad_token_id=2, initializer_range=0.2, **sizes))


def adapter(start):
    return LoraConfig(r=4, lora_alpha=4, target_modules="all-linear", init_lora_weights=start, task_type="CAUSAL_LM")


def first_loss(start):
    config = DPOConfig("out", beta=0.5, per_device_train_batch_size=2, **settings)
    trainer = DPOTrainer(
        model(), args=config, train_dataset=pairs, processing_class=tokenizer, peft_config=adapter(start)
    )
    trainer.train()
    return trainer.state.log_history[0]["loss"]


def first_kl(start):
    config = GRPOConfig(
        "out", beta=0.5, per_device_train_batch_size=4, num_generations=4, max_completion_length=6, **settings
    )
    trainer = GRPOTrainer(
        model(),
        lambda completions, **columns: [float(len(set(text))) for text in completions],
        args=config,
        train_dataset=pairs.select_columns("prompt"),
        processing_class=tokenizer,
        peft_config=adapter(start),
    )
    trainer.train()
    return trainer.state.log_history[0]["kl"]


losses = {start: first_loss(start) for start in (True, "gaussian", "pissa", "olora")}
divergences = {start: first_kl(start) for start in (True, "pissa")}
said = open("messages").read().lower()
assert abs(losses[True] - math.log(2)) < 1e-4 and abs(losses["gaussian"] - math.log(2)) < 1e-4, losses
assert abs(losses["pissa"] - math.log(2)) > 1 and abs(losses["olora"] - math.log(2)) > 1, losses
assert abs(divergences[True]) < 1e-6 and divergences["pissa"] > 0.1, divergences
assert not any(word in said for word in ("pissa", "olora", "base weights", "reference")), said
print("first DPO loss by the adapter's start:", losses)
print("first KL of GRPO by the adapter's start:", divergences)
print("PASS: with PiSSA and OLoRA, trl 1.16.0's reference is not the model that was given, without a word")
PY
