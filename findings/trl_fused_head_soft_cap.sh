#!/usr/bin/env bash
# trl 1.16.0 with transformers 5.24.0: the fused LM head leaves out RecurrentGemma's soft cap of the logits.
#
# Guess: `add_fused_lm_head` gives the log-probabilities that the model's own logits give. It reads scales and soft
#   caps of the logits from the configuration, as for Gemma 2, so any causal model is covered.
# Truth: it knows the cap by one name, `final_logit_softcapping`. RecurrentGemma's is `logits_soft_cap`, and is left
#   out without a word. The log-probabilities are those of logits without a cap. GRPO, RLOO and KTO trainers use this
#   head.
# Seen: a random model with a cap of 2: log-probabilities differ by more than 10 from the model's own, and equal those
#   of the uncapped logits to 1e-3.
# Matters for: log-probabilities, ratios and KL terms of a model whose logits are capped under another name.
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
import torch
from transformers import RecurrentGemmaConfig, RecurrentGemmaForCausalLM
from trl.trainer.utils import add_fused_lm_head

torch.manual_seed(0)
sizes = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 3, "lru_width": 32}
heads = {"num_attention_heads": 2, "num_key_value_heads": 1, "attention_window_size": 16}
model = RecurrentGemmaForCausalLM(RecurrentGemmaConfig(vocab_size=64, logits_soft_cap=2.0, **sizes, **heads)).eval()
tokens = torch.randint(3, 64, (2, 9))


def chosen(logits):
    return logits[:, :-1].log_softmax(-1).gather(2, tokens[:, 1:, None])[..., 0]


with torch.no_grad():
    model.lm_head.weight.mul_(20)  # logits large enough for the cap to matter
    own = chosen(model(tokens, use_cache=False).logits)
    hidden = model.model(tokens, use_cache=False).last_hidden_state
    uncapped = chosen(hidden @ model.lm_head.weight.T)
    add_fused_lm_head(model)
    fused = model(tokens, labels=tokens, fused_lm_head=True).log_probs

from_own, from_uncapped = ((fused - other).abs().max().item() for other in (own, uncapped))
said = open("messages").read().lower()
assert from_own > 10 and from_uncapped < 1e-3, (from_own, from_uncapped)
assert "cap" not in said, said
print(f"fused log-probabilities: {from_own:.1f} from the model's own, {from_uncapped:.1g} from those without the cap")
print("PASS: trl 1.16.0's fused LM head leaves out RecurrentGemma's soft cap, without a word")
PY
