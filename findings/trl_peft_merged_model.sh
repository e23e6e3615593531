#!/usr/bin/env bash
# trl 1.16.0 with peft 0.21.0: a model from `merge_and_unload` goes through DPO training and nothing trains.
#
# Guess: merging an SFT adapter gives a plain model again; DPOTrainer without a `peft_config` trains all its weights, or
#   stops because there is nothing to train.
# Truth: the weights that peft froze stay frozen after the merge. DPOTrainer runs all its steps and logs a loss that
#   never changes and a gradient norm of 0. No warning, log line or error says that no weight is trainable. The cause:
#   trl's default gradient checkpointing makes the embeddings' output require gradients, so `backward` raises no error.
#   After `model.requires_grad_(True)` the same call trains.
# Seen: 4 steps at a learning rate of 0.01: the loss is 0.6931471824645996 each time; no tensor differs afterwards.
# Matters for: SFT with an adapter, merge, then preference training of the whole model.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"${PYTHON:-python3}" -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip install --quiet --no-compile torch==2.13.0
"$folder/venv/bin/python" -m pip install --quiet --no-compile \
  torch==2.13.0 transformers==5.23.0 trl==1.16.0 peft==0.21.0 accelerate==1.15.0 datasets==5.2.0 numpy==2.4.6
cd "$folder"
export HF_HUB_OFFLINE=1 HF_HUB_DISABLE_TELEMETRY=1 HF_HUB_DISABLE_PROGRESS_BARS=1 HF_HOME="$folder/hf" OMP_NUM_THREADS=1
"$folder/venv/bin/python" -I - 2>messages <<'PY' || { cat messages; exit 1; }
import torch
from datasets import Dataset
from peft import LoraConfig, get_peft_model
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

adapter = LoraConfig(r=2, target_modules=["q_proj", "v_proj"], init_lora_weights=False)  # as if SFT had trained it
model = get_peft_model(LlamaForCausalLM.from_pretrained("base"), adapter).merge_and_unload()
assert type(model) is LlamaForCausalLM
pairs = Dataset.from_list([{"prompt": "Q: x\nA:", "chosen": " A cat sat.", "rejected": " A dog ran."}] * 16)


def train():
    """The losses and gradient norms of 4 steps, and whether all weights stayed as they were."""
    config = DPOConfig(
        "out",
        use_cpu=True,
        bf16=False,
        report_to=[],
        per_device_train_batch_size=4,
        num_train_epochs=1,
        logging_steps=1,
        save_strategy="no",
        learning_rate=0.01,
        precompute_ref_log_probs=True,
    )
    before = {name: weight.clone() for name, weight in model.state_dict().items()}
    trainer = DPOTrainer(model, args=config, train_dataset=pairs, processing_class=tokenizer)
    trainer.train()
    steps = [entry for entry in trainer.state.log_history if "loss" in entry]
    same = all(torch.equal(before[name], weight) for name, weight in trainer.model.state_dict().items())
    return [step["loss"] for step in steps], [step["grad_norm"] for step in steps], same


losses, norms, same = train()
said = open("messages").read().lower()
assert len(losses) == 4 and len(set(losses)) == 1 and norms == [0.0] * 4 and same, (losses, norms, same)
assert not any(word in said for word in ("trainable", "frozen", "requires_grad", "requires grad")), said
model.requires_grad_(True)
losses_after, norms_after, same_after = train()
assert len(set(losses_after)) == 4 and min(norms_after) > 0 and not same_after, (losses_after, norms_after)

print("after the merge:           losses", losses, "gradient norms", norms, "weights unchanged:", same)
print("after requires_grad_(True): losses", losses_after, "weights unchanged:", same_after)
print("PASS: trl 1.16.0 runs DPO on a model merged by peft 0.21.0 and trains nothing, without a word")
PY
