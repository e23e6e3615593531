#!/usr/bin/env bash
# trl 1.16.0: GRPO and RLOO sample with the min-p and the typical-p of the model's own generation_config.json.
#
# Guess: the completions are drawn as `GRPOConfig` says; its `min_p` is None, which is no min-p.
# Truth: what the config leaves at None, and what it does not have, comes from the model's folder. With a high min-p
#   there the completions of a group are alike, so no advantage is left. With `GRPOConfig(min_p=0.0)` they differ. The
#   temperature, top-p, top-k and the repetition penalty of the folder are not used. No warning or log line tells.
# Seen: 16 completions of 4 tokens for one prompt. With min_p 0.999 in the folder all are the same, with GRPO and RLOO;
#   the same with typical_p 0.001; with min_p=0.0 in the config, or without it in the folder, all 16 differ.
# Matters for: online training of models whose makers recommend min-p, and its diversity: rare tokens are never drawn,
#   although the log-probabilities are those of the whole distribution.
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
from datasets import Dataset
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast
from trl import GRPOConfig, GRPOTrainer, RLOOConfig, RLOOTrainer

symbols = ["<s>", "</s>", "<pad>", *sorted(pre_tokenizers.ByteLevel.alphabet())]
of_bytes = Tokenizer(models.BPE(vocab={symbol: i for i, symbol in enumerate(symbols)}, merges=[]))
of_bytes.pre_tokenizer, of_bytes.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
tokenizer = PreTrainedTokenizerFast(tokenizer_object=of_bytes, bos_token="<s>", eos_token="</s>", pad_token="<pad>")
sizes = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
prompts = Dataset.from_list([{"prompt": "Q: x\nA:"}] * 2)


def distinct(trainer, config, in_folder, **in_config):
    """How many of 16 completions differ, and the spread of their rewards."""
    torch.manual_seed(0)
    model = LlamaForCausalLM(LlamaConfig(vocab_size=len(symbols), pad_token_id=2, initializer_range=0.2, **sizes))
    model.generation_config.update(do_sample=True, **in_folder)
    model.save_pretrained("model")
    met = []

    def reward(completion_ids, **columns):
        met.extend(tuple(ids) for ids in completion_ids)
        return [float(sum(ids)) for ids in completion_ids]

    settings = config(
        "out",
        beta=0.0,
        use_cpu=True,
        bf16=False,
        report_to=[],
        max_steps=1,
        logging_steps=1,
        save_strategy="no",
        per_device_train_batch_size=16,
        num_generations=16,
        max_completion_length=4,
        **in_config,
    )
    run = trainer(
        LlamaForCausalLM.from_pretrained("model"),
        reward,
        args=settings,
        train_dataset=prompts,
        processing_class=tokenizer,
    )
    run.train()
    assert len(met) == 16, met
    return len(set(met)), run.state.log_history[0]["reward_std"]


assert GRPOConfig("out", use_cpu=True, bf16=False).min_p is None
seen = {}
for name, trainer, config in (("GRPO", GRPOTrainer, GRPOConfig), ("RLOO", RLOOTrainer, RLOOConfig)):
    seen[name, "plain"] = distinct(trainer, config, {})
    seen[name, "min_p in the folder"] = distinct(trainer, config, {"min_p": 0.999})
    seen[name, "the same and min_p=0.0 in the config"] = distinct(trainer, config, {"min_p": 0.999}, min_p=0.0)
    seen[name, "typical_p in the folder"] = distinct(trainer, config, {"typical_p": 0.001})
    seen[name, "temperature in the folder"] = distinct(trainer, config, {"temperature": 0.001})
said = open("messages").read().lower()
for (name, case), (different, spread) in seen.items():
    print(f"{name}, {case}: {different} of 16 differ, spread of rewards {spread:.2f}")
    alike = case in ("min_p in the folder", "typical_p in the folder")
    assert (different == 1 and spread == 0) if alike else (different > 8 and spread > 0), (name, case)
assert "min_p" not in said and "typical" not in said, said
print("PASS: trl 1.16.0's GRPO and RLOO take min_p and typical_p from the model's folder, without a word")
PY
