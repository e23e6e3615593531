"""A language model small enough to train in a test, its tokenizer, and pairs of uneven length."""

import random
from pathlib import Path

import torch
from datasets import Dataset
from peft import LoraConfig, PeftModel, get_peft_model
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import WhitespaceSplit
from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

WORDS = "a the one old cat dog king ship star door sat ran sang slept burned opened near under past and".split()
LAYERS = 4


def tiny_tokenizer() -> PreTrainedTokenizerFast:
    words = ["<pad>", "<end>", "<unknown>", *WORDS]
    tokenizer = Tokenizer(WordLevel({word: i for i, word in enumerate(words)}, unk_token="<unknown>"))
    tokenizer.pre_tokenizer = WhitespaceSplit()
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<pad>", eos_token="<end>", unk_token="<unknown>", padding_side="left"
    )


def tiny_model(seed: int = 0) -> LlamaForCausalLM:
    """A random model whose next-word probabilities are far from uniform."""
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=len(WORDS) + 3,
        hidden_size=64,
        intermediate_size=96,
        num_hidden_layers=LAYERS,
        num_attention_heads=4,
        num_key_value_heads=2,
        initializer_range=0.2,
        pad_token_id=0,
        eos_token_id=1,
        bos_token_id=None,
    )
    return LlamaForCausalLM(config).eval()


def save_model_and_adapter(folder: Path, last_layers: int = LAYERS) -> tuple[Path, Path]:
    """Folders of a model and of a LoRA adapter on its last layers that changes what the model says."""
    tiny_model().save_pretrained(folder / "model")
    base = AutoModelForCausalLM.from_pretrained(folder / "model")
    torch.manual_seed(1)
    lora = LoraConfig(
        r=4,
        lora_alpha=8,
        target_modules=["q_proj", "v_proj", "down_proj"],
        layers_to_transform=list(range(LAYERS - last_layers, LAYERS)),
        init_lora_weights=False,
        task_type="CAUSAL_LM",
    )
    get_peft_model(base, lora).save_pretrained(folder / "adapter")
    return folder / "model", folder / "adapter"


def load_with_adapter(model: Path | LlamaForCausalLM, adapter: Path) -> PeftModel:
    if isinstance(model, Path):
        model = AutoModelForCausalLM.from_pretrained(model)
    return PeftModel.from_pretrained(model, str(adapter), is_trainable=True)


def tiny_pairs(number: int, weight: list | None = None, seed: int = 0) -> Dataset:
    """Pairs of 2 to 12 words under prompts of 1 to 5; fewer pairs are the first of more."""
    rng = random.Random(seed)

    def text(low: int, high: int) -> str:
        return " ".join(rng.choices(WORDS, k=rng.randint(low, high)))

    rows = [{"prompt": text(1, 5) + " ", "chosen": text(2, 12), "rejected": text(2, 12)} for _ in range(number)]
    pairs = Dataset.from_list(rows)
    return pairs if weight is None else pairs.add_column("weight", weight)


def direct_logps(model, batch: dict) -> torch.Tensor:
    """(B, L - 1) log-probability of each next token, zero outside the response, from the full padded logits."""
    with torch.no_grad():
        logits = model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits
    logps = logits[:, :-1].double().log_softmax(-1)
    logps = logps.gather(-1, batch["input_ids"][:, 1:, None]).squeeze(-1)
    return logps * batch["completion_mask"][:, 1:]


def gradients(loss: torch.Tensor, model) -> dict[str, torch.Tensor]:
    """Of the parameters that train, by name."""
    model.zero_grad()
    loss.backward()
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


def size(tensors: dict[str, torch.Tensor]) -> float:
    """The largest absolute entry."""
    return max(tensor.abs().max().item() for tensor in tensors.values())
