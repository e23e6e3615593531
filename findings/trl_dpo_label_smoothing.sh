#!/usr/bin/env bash
# trl 1.16.0: DPO with label smoothing trains without smoothing, unless the loss is one of a few.
#
# Guess: `DPOConfig(label_smoothing=0.1)` smooths DPO's loss, (1 - e) * -log sigmoid(m) - e * log sigmoid(-m), as
#   conservative DPO does and as trl's earlier versions did; or the trainer refuses what it does not use.
# Truth: the sigmoid loss, which is the default, ignores it. There is no error, warning or log line. Robust DPO and EXO
#   use it.
# Seen: with a policy unlike its reference, the first loss is equal with a smoothing of 0, 0.1 and 0.4. With `robust`
#   it differs.
# Matters for: a conservative-DPO baseline, and settings taken over from an earlier version.
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
from trl import DPOConfig, DPOTrainer

symbols = ["<s>", "</s>", "<pad>", *sorted(pre_tokenizers.ByteLevel.alphabet())]
of_bytes = Tokenizer(models.BPE(vocab={symbol: i for i, symbol in enumerate(symbols)}, merges=[]))
of_bytes.pre_tokenizer, of_bytes.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
tokenizer = PreTrainedTokenizerFast(tokenizer_object=of_bytes, bos_token="<s>", eos_token="</s>", pad_token="<pad>")
sizes = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
pairs = Dataset.from_list([{"prompt": "Q: x\nA:", "chosen": " A cat sat.", "rejected": " A dog ran."}] * 2)


def model(seed):
    torch.manual_seed(seed)
    return LlamaForCausalLM(LlamaConfig(vocab_size=len(symbols), pad_token_id=2, initializer_range=0.2, **sizes))


def first_loss(loss, smoothing):
    config = DPOConfig(
        "out",
        loss_type=loss,
        label_smoothing=smoothing,
        beta=0.5,
        use_cpu=True,
        bf16=False,
        report_to=[],
        per_device_train_batch_size=2,
        max_steps=1,
        logging_steps=1,
        save_strategy="no",
        disable_dropout=True,
    )
    trainer = DPOTrainer(model(0), ref_model=model(1), args=config, train_dataset=pairs, processing_class=tokenizer)
    trainer.train()
    return trainer.state.log_history[0]["loss"]


plain = [first_loss("sigmoid", smoothing) for smoothing in (0.0, 0.1, 0.4)]
robust = [first_loss("robust", smoothing) for smoothing in (0.0, 0.1, 0.4)]
said = open("messages").read().lower()
assert len(set(plain)) == 1 and abs(plain[0] - 0.6931) > 0.01, plain
assert len(set(robust)) == 3 and robust[0] == plain[0], robust
assert "smoothing" not in said, said
print("first loss with a smoothing of 0, 0.1, 0.4: sigmoid", plain, "robust", robust)
print("PASS: trl 1.16.0's sigmoid DPO loss ignores label_smoothing, without a word")
PY
