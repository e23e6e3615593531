#!/usr/bin/env bash
# trl 1.16.0: a deep copy of a model with the fused LM head answers with the weights of the original.
#
# Guess: `copy.deepcopy` of a model gives a second model. What is done to the copy's weights shows in its logits, and
#   the original may be deleted.
# Truth: the head replaces `forward` by a function that keeps the original's own `forward`. A deep copy shares that
#   function. Called with `fused_lm_head=True` the copy uses its own weights; called without, as by `generate`, it runs
#   the original. So one copy gives two sets of log-probabilities, and the original stays in memory.
# Seen: all weights of a copy are set to 0. Its fused log-probabilities are log(1/64), uniform; its logits are those of
#   the original.
# Matters for: references, averages of weights and copies for sampling, made with `deepcopy` from a model in a GRPO,
#   RLOO or KTO trainer.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"${PYTHON:-python3}" -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip install --quiet --no-compile torch==2.13.0
"$folder/venv/bin/python" -m pip install --quiet --no-compile \
  torch==2.13.0 transformers==5.24.0 trl==1.16.0 accelerate==1.15.0 datasets==5.2.0 numpy==2.4.6
cd "$folder"
export HF_HUB_OFFLINE=1 HF_HUB_DISABLE_TELEMETRY=1 HF_HUB_DISABLE_PROGRESS_BARS=1 HF_HOME="$folder/hf" OMP_NUM_THREADS=1
"$folder/venv/bin/python" -I - 2>messages <<'PY' || { cat messages; exit 1; }
import copy
import math

import torch
from transformers import LlamaConfig, LlamaForCausalLM
from trl.trainer.utils import add_fused_lm_head

torch.manual_seed(0)
sizes = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
plain = LlamaForCausalLM(LlamaConfig(vocab_size=64, initializer_range=0.2, **sizes)).eval()
headed = copy.deepcopy(plain)
add_fused_lm_head(headed)
tokens = torch.randint(3, 64, (2, 9))

with torch.no_grad():
    expected = plain(tokens).logits
    found = {}
    for name, model in (("without the head", plain), ("with the head", headed)):
        second = copy.deepcopy(model)
        for weight in second.parameters():
            weight.zero_()
        found[name] = second(tokens).logits
    fused = second(tokens, labels=tokens, fused_lm_head=True).log_probs

assert found["without the head"].abs().max() == 0
assert torch.allclose(found["with the head"], expected) and expected.abs().max() > 0.1
assert torch.allclose(fused, torch.full_like(fused, -math.log(64)))
print("logits of a copy whose weights are all 0: without the head 0, with it those of the original,")
print(f"at most {expected.abs().max():.2f}; its fused log-probabilities are {fused.unique().tolist()}, log(1/64)")
print("PASS: trl 1.16.0's fused LM head makes a deep copy run the original's forward")
PY
