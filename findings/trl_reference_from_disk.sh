#!/usr/bin/env bash
# trl 1.16.0: without `ref_model`, `precompute_ref_log_probs` decides which model is the DPO reference.
#
# Guess: the reference is the model that the trainer is given, in its state before training, as documented. Precomputing
#   its log-probabilities saves memory and changes no number, so the first loss is log 2 = 0.6931 both ways.
# Truth: by default the reference is loaded again from the folder or hub name that the model was loaded from. Weights
#   changed since (a merged adapter, a loaded state dict, an average of checkpoints) are not in it. With
#   precompute_ref_log_probs=True the model at hand is the reference. Nothing warns.
# Seen: weights changed in memory, learning rate 0: first loss 0.5314 by default, 0.6931 precomputed. Untouched
#   weights: 0.6931 both ways.
# Matters for: DPO from an SFT model that was assembled in memory; DPO then holds it near the base model instead.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"${PYTHON:-python3}" -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip install --quiet --no-compile torch==2.13.0
"$folder/venv/bin/python" -m pip install --quiet --no-compile \
  torch==2.13.0 transformers==5.23.0 trl==1.16.0 accelerate==1.15.0 datasets==5.2.0 numpy==2.4.6
cd "$folder"
export HF_HUB_OFFLINE=1 HF_HUB_DISABLE_TELEMETRY=1 HF_HUB_DISABLE_PROGRESS_BARS=1 HF_HOME="$folder/hf" OMP_NUM_THREADS=1
"$folder/venv/bin/python" -I - 2>messages <<'PY' || { cat messages; exit 1; }
import math

import torch
from datasets import Dataset
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast
from trl import DPOConfig, DPOTrainer

torch.manual_seed(0)
symbols = ["<s>", "</s>", "<pad>", *sorted(pre_tokenizers.ByteLevel.alphabet())]
of_bytes = Tokenizer(models.BPE(vocab={symbol: i for i, symbol in enumerate(symbols)}, merges=[]))
of_bytes.pre_tokenizer, of_bytes.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
tokenizer = PreTrainedTokenizerFast(
    tokenizer_object=of_bytes, bos_token="<s>", eos_token="</s>", pad_token="<pad>"
)
sizes = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
LlamaForCausalLM(LlamaConfig(vocab_size=len(symbols), pad_token_id=2, **sizes)).save_pretrained("base")
sft = {  # the weights of an SFT model, here drawn at random
    name: weight + 0.2 * torch.randn_like(weight)
    for name, weight in LlamaForCausalLM.from_pretrained("base").state_dict().items()
}
pairs = Dataset.from_list([{"prompt": "Q: x\nA:", "chosen": " A cat sat.", "rejected": " A castle fell."}] * 4)


def first_loss(weights, precompute):
    model = LlamaForCausalLM.from_pretrained("base")
    if weights:
        model.load_state_dict(weights)
    config = DPOConfig(
        "out",
        use_cpu=True,
        bf16=False,
        report_to=[],
        per_device_train_batch_size=4,
        num_train_epochs=1,
        logging_steps=1,
        save_strategy="no",
        learning_rate=0.0,
        precompute_ref_log_probs=precompute,
    )
    trainer = DPOTrainer(model, args=config, train_dataset=pairs, processing_class=tokenizer)
    trainer.train()
    return trainer.state.log_history[0]["loss"]


untouched = [first_loss(None, precompute) for precompute in (False, True)]
changed = [first_loss(sft, precompute) for precompute in (False, True)]
said = open("messages").read().lower()
assert all(abs(loss - math.log(2)) < 1e-4 for loss in [*untouched, changed[1]]), (untouched, changed)
assert abs(changed[0] - 0.5314) < 0.02, changed
assert "reference" not in said.replace("reference log probs for train dataset", ""), said  # progress bars apart

print("first loss, weights as loaded: by default and precomputed", untouched)
print("first loss, weights changed in memory: by default and precomputed", changed)
print("PASS: trl 1.16.0 reloads the reference from disk unless its log-probabilities are precomputed")
PY
