#!/usr/bin/env bash
# trl 1.16.0 with peft 0.21.2: making a DPOTrainer changes a model that has a PiSSA or OLoRA adapter.
#
# Guess: `DPOTrainer(model)` with a PeftModel leaves the model as it is until `train()`; it copies the adapter, and the
#   copy is the reference.
# Truth: the copy is first made as a new adapter, and a new PiSSA or OLoRA adapter takes its start out of the base's
#   weights a second time. Then the adapter's values are copied over it. So the policy and the reference have both lost
#   a part of their weights. The first loss is log 2, as it should be, so nothing shows. There is no error, warning or
#   log line.
# Seen: before any training, the largest logit of a small model moves by 4.2 with PiSSA and by 3.2 with OLoRA; by 0
#   with the default start.
# Matters for: preference training that goes on from such an adapter; it starts from a damaged model.
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
from peft import LoraConfig, get_peft_model
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast
from trl import DPOConfig, DPOTrainer

symbols = ["<s>", "</s>", "<pad>", *sorted(pre_tokenizers.ByteLevel.alphabet())]
of_bytes = Tokenizer(models.BPE(vocab={symbol: i for i, symbol in enumerate(symbols)}, merges=[]))
of_bytes.pre_tokenizer, of_bytes.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
tokenizer = PreTrainedTokenizerFast(tokenizer_object=of_bytes, bos_token="<s>", eos_token="</s>", pad_token="<pad>")
sizes = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
pairs = Dataset.from_list([{"prompt": "Q: x\nA:", "chosen": " A cat sat.", "rejected": " A dog ran."}] * 2)
tokens = torch.tensor([[10, 20, 30, 40]])


@torch.no_grad()
def logits(model):
    return model.eval()(tokens).logits.clone()


def moved(start):
    """How far the logits move when the adapter is added, and when the trainer is made; and the first loss."""
    torch.manual_seed(0)
    given = LlamaForCausalLM(LlamaConfig(vocab_size=len(symbols), pad_token_id=2, initializer_range=0.2, **sizes))
    plain = logits(given)
    adapter = LoraConfig(
        r=4, lora_alpha=4, target_modules="all-linear", init_lora_weights=start, task_type="CAUSAL_LM"
    )
    model = get_peft_model(given, adapter)
    with_adapter = logits(model)
    config = DPOConfig(
        "out", use_cpu=True, bf16=False, report_to=[], max_steps=1, logging_steps=1, save_strategy="no"
    )
    trainer = DPOTrainer(model, args=config, train_dataset=pairs, processing_class=tokenizer)
    with_trainer = logits(trainer.model)
    trainer.train()
    by_peft, by_trl = (with_adapter - plain).abs().max().item(), (with_trainer - with_adapter).abs().max().item()
    return by_peft, by_trl, trainer.state.log_history[0]["loss"]


seen = {start: moved(start) for start in (True, "pissa", "olora")}
said = open("messages").read().lower()
assert all(by_peft < 1e-4 for by_peft, _, _ in seen.values()), seen
assert seen[True][1] < 1e-4 and seen["pissa"][1] > 1 and seen["olora"][1] > 1, seen
assert all(abs(loss - math.log(2)) < 1e-4 for _, _, loss in seen.values()), seen
assert not any(word in said for word in ("pissa", "olora", "base weights")), said
for start, (by_peft, by_trl, loss) in seen.items():
    print(f"{start}: logits moved by peft {by_peft:.1e}, by making the trainer {by_trl:.3f}; first loss {loss:.4f}")
print("PASS: making trl 1.16.0's DPOTrainer changes a model with a PiSSA or OLoRA adapter, without a word")
PY
