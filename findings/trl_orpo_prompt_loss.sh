#!/usr/bin/env bash
# trl 1.16.0: the ORPO trainer's likelihood term trains on the prompt too, although its labels mask the prompt.
#
# Guess: the term is the mean negative log-likelihood of the chosen response given the prompt, as in ORPO's paper and
#   as the data set's `chosen_labels`, -100 on the prompt, suggest. No prompt token counts.
# Truth: it is the mean over prompt and response together; `chosen_labels` play no part in it. The odds-ratio term
#   counts the response alone. So with long prompts and short responses the term trains mostly the prompts, and the
#   balance of the two terms depends on the prompts' length. No setting turns it off.
# Seen: one pair with a prompt of 50 tokens and a response of 12: nll_loss 5.9079, which is the mean over all tokens;
#   the mean over the response is 5.6297.
# Matters for: an ORPO baseline; do not compare it with training on responses alone.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"${PYTHON:-python3}" -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip install --quiet --no-compile torch==2.13.0
"$folder/venv/bin/python" -m pip install --quiet --no-compile \
  torch==2.13.0 transformers==5.23.0 trl==1.16.0 accelerate==1.15.0 datasets==5.2.0 numpy==2.4.6
cd "$folder"
export HF_HUB_OFFLINE=1 HF_HUB_DISABLE_TELEMETRY=1 HF_HUB_DISABLE_PROGRESS_BARS=1 HF_HOME="$folder/hf" OMP_NUM_THREADS=1
export TRL_EXPERIMENTAL_SILENCE=1
"$folder/venv/bin/python" -I - 2>messages <<'PY' || { cat messages; exit 1; }
import torch
from datasets import Dataset
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast
from trl.experimental.orpo import ORPOConfig, ORPOTrainer

torch.manual_seed(0)
symbols = ["<s>", "</s>", "<pad>", *sorted(pre_tokenizers.ByteLevel.alphabet())]
of_bytes = Tokenizer(models.BPE(vocab={symbol: i for i, symbol in enumerate(symbols)}, merges=[]))
of_bytes.pre_tokenizer, of_bytes.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
tokenizer = PreTrainedTokenizerFast(
    tokenizer_object=of_bytes, bos_token="<s>", eos_token="</s>", pad_token="<pad>"
)
sizes = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
model = LlamaForCausalLM(LlamaConfig(vocab_size=len(symbols), pad_token_id=2, initializer_range=0.2, **sizes))


def term(prompt):
    """The trainer's term, the means over all tokens and over the response, the lengths of prompt and response."""
    pair = {"prompt": prompt, "chosen": " A cat sat.", "rejected": " A dog ran."}
    config = ORPOConfig(
        "out",
        use_cpu=True,
        bf16=False,
        report_to=[],
        per_device_train_batch_size=1,
        num_train_epochs=1,
        logging_steps=1,
        save_strategy="no",
        learning_rate=0.0,
    )
    trainer = ORPOTrainer(model, args=config, train_dataset=Dataset.from_list([pair]), processing_class=tokenizer)
    row = trainer.train_dataset[0]
    trainer.train()
    tokens, labels = torch.tensor(row["chosen_input_ids"]), torch.tensor(row["chosen_labels"])
    with torch.no_grad():
        logps = model(tokens[None]).logits[0, :-1].log_softmax(-1).gather(1, tokens[1:, None])[:, 0]
    responded = labels != -100
    means = -logps.mean().item(), -logps[responded[1:]].mean().item()
    return trainer.state.log_history[0]["nll_loss"], *means, int((~responded).sum()), int(responded.sum())


found, over_all, over_response, prompt_length, response_length = term("Q: a rather long prompt, with many words in it\nA:")
assert (prompt_length, response_length) == (50, 12), (prompt_length, response_length)
assert abs(found - over_all) < 1e-3 < 0.05 < abs(found - over_response), (found, over_all, over_response)
said = open("messages").read().lower()
assert "nll" not in said and "prompt tokens" not in said, said

print(f"nll_loss {found:.4f}; mean over prompt and response {over_all:.4f}, over the response {over_response:.4f}")
print("PASS: trl 1.16.0 ORPO's likelihood term is over prompt and response")
PY
