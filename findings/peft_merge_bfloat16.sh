#!/usr/bin/env bash
# peft 0.21.2: merging an adapter into a bfloat16 model rounds a part of what was trained away.
#
# Guess: `merge_and_unload` gives the adapted model; rounding to bfloat16 changes outputs a little, as it always does.
# Truth: the sum is rounded to the steps of the weights, 1/256 to 1/128 of their size. An addition of a usual size is
#   near these steps. So in text from the merged model, a part of the difference between two trainings is noise. Unmerged, the adapter's own products keep it; so does a merge in float32.
# Seen: weights with a standard deviation of 0.02, additions with 1% of that. What the merge leaves of the additions has
#   an error of 16.7% of their size; in float32 of 0.0003%.
# Matters for: comparing arms that start from one model; merge in float32, or sample unmerged.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"${PYTHON:-python3}" -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip install --quiet --no-compile torch==2.13.0
"$folder/venv/bin/python" -m pip install --quiet --no-compile \
  torch==2.13.0 transformers==5.24.0 peft==0.21.2 accelerate==1.15.0 numpy==2.4.6
cd "$folder"
export HF_HUB_OFFLINE=1 HF_HUB_DISABLE_TELEMETRY=1 HF_HUB_DISABLE_PROGRESS_BARS=1 HF_HOME="$folder/hf" OMP_NUM_THREADS=1
"$folder/venv/bin/python" -I - 2>messages <<'PY' || { cat messages; exit 1; }
import copy

import torch
from peft import LoraConfig, get_peft_model
from transformers import LlamaConfig, LlamaForCausalLM

torch.manual_seed(0)
sizes = {"hidden_size": 256, "intermediate_size": 512, "num_hidden_layers": 2, "num_attention_heads": 4}
base = LlamaForCausalLM(LlamaConfig(vocab_size=64, initializer_range=0.02, **sizes)).to(torch.bfloat16)
settings = LoraConfig(r=8, lora_alpha=16, target_modules=["q_proj", "v_proj"], init_lora_weights=False)


def error(dtype):
    """The error of the additions that are left after the merge, relative to the additions."""
    model = get_peft_model(copy.deepcopy(base).to(dtype), settings)
    wanted, before = {}, {}
    for name, layer in model.named_modules():
        if hasattr(layer, "lora_A") and "default" in layer.lora_A:
            size = layer.get_delta_weight("default").std().item()
            layer.lora_B["default"].weight.data *= 0.01 * 0.02 / size
            plain = name.removeprefix("base_model.model.")
            wanted[plain] = layer.get_delta_weight("default").double()
            before[plain] = layer.base_layer.weight.detach().double().clone()
    merged = dict(model.merge_and_unload().named_modules())
    off = sum((merged[n].weight.double() - before[n] - wanted[n]).square().sum() for n in wanted)
    return (off / sum(addition.square().sum() for addition in wanted.values())).sqrt().item()


with torch.no_grad():
    half, full = error(torch.bfloat16), error(torch.float32)
said = open("messages").read().lower()
assert half > 0.1 and full < 1e-4, (half, full)
assert "round" not in said and "precision" not in said, said
print(f"error of the additions after the merge, relative to them: bfloat16 {half:.1%}, float32 {full:.2g}")
print("PASS: peft 0.21.2 rounds a part of an adapter away when it is merged into bfloat16")
PY
