"""vLLM's interface as far as the library uses it, and its rules of sampling, computed by transformers.

Names, order and defaults of arguments are those of vLLM 0.33.0, so a call that vLLM would refuse fails here too.
"""

import json
from dataclasses import dataclass, field
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType

import torch
from peft import PeftModel
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    LogitsProcessorList,
    RepetitionPenaltyLogitsProcessor,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

RANKS = (1, 8, 16, 32, 64, 128, 256, 320, 512)  # vllm/config/lora.py, MaxLoRARanks


class VLLMValidationError(Exception):
    """vllm/exceptions.py; it is no ValueError."""


@dataclass
class SamplingParams:
    """vllm/sampling_params.py; the fields after those that the library sets are left out."""

    n: int = 1
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    repetition_penalty: float = 1.0
    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0
    min_p: float = 0.0
    seed: int | None = None
    stop: str | list[str] | None = None
    stop_token_ids: list[int] | None = None
    ignore_eos: bool = False
    max_tokens: int | None = 16

    def rules(self) -> LogitsProcessorList:
        """The rules in vLLM's order; the penalty counts the prompt (vllm/model_executor/layers/utils.py)."""
        rules = [RepetitionPenaltyLogitsProcessor(self.repetition_penalty), TemperatureLogitsWarper(self.temperature)]
        rules += [TopKLogitsWarper(self.top_k)] if self.top_k > 0 else []
        return LogitsProcessorList([*rules, TopPLogitsWarper(self.top_p)])


@dataclass
class LoRARequest:
    """vllm/lora/request.py"""

    lora_name: str
    lora_int_id: int
    lora_path: str = ""


@dataclass
class CompletionOutput:
    """vllm/outputs.py; `token_ids` contains the end token."""

    index: int
    text: str
    token_ids: list[int]
    finish_reason: str | None = None
    stop_reason: int | str | None = None


@dataclass
class RequestOutput:
    prompt_token_ids: list[int]
    outputs: list[CompletionOutput] = field(default_factory=list)


class LLM:
    """vllm/entrypoints/llm.py; arguments after `**kwargs` are those of `EngineArgs`."""

    def __init__(
        self,
        model: str,
        *,
        tokenizer: str | None = None,
        dtype: str = "auto",
        revision: str | None = None,
        seed: int = 0,
        gpu_memory_utilization: float = 0.92,
        enable_lora: bool = False,
        max_lora_rank: int = 16,
    ):
        if max_lora_rank not in RANKS:
            raise ValueError(f"1 validation error for LoRAConfig\nmax_lora_rank\n  Input should be one of {RANKS}")
        self.model = AutoModelForCausalLM.from_pretrained(model, dtype=getattr(torch, dtype)).eval()
        self.tokenizer = AutoTokenizer.from_pretrained(tokenizer or model)
        self.max_lora_rank = max_lora_rank if enable_lora else None

    def generate(
        self,
        prompts: list[dict],
        sampling_params: SamplingParams | list[SamplingParams] | None = None,
        *,
        use_tqdm: bool = True,
        lora_request: LoRARequest | None = None,
    ) -> list[RequestOutput]:
        model = self._adapted(lora_request) if lora_request else self.model
        pairs = zip(prompts, sampling_params, strict=True)
        return [self._answer(model, prompt["prompt_token_ids"], params) for prompt, params in pairs]

    def _adapted(self, request: LoRARequest):
        config = json.loads((Path(request.lora_path) / "adapter_config.json").read_text())
        if config["r"] > (self.max_lora_rank or 0):  # vllm/lora/peft_helper.py
            raise ValueError(f"LoRA rank {config['r']} is greater than max_lora_rank {self.max_lora_rank}.")
        return PeftModel.from_pretrained(self.model, request.lora_path).eval()

    def _answer(self, model, prompt: list[int], params: SamplingParams) -> RequestOutput:
        limit = self.model.config.max_position_embeddings
        if len(prompt) >= limit:
            raise VLLMValidationError(f"The prompt (length {len(prompt)}) is longer than the maximum of {limit}.")
        # a sample's seed is the request's plus its number (vllm/v1/engine/parallel_sampling.py)
        return RequestOutput(prompt, [self._draw(model, prompt, params, s) for s in range(params.n)])

    @torch.inference_mode()
    def _draw(self, model, prompt: list[int], params: SamplingParams, index: int) -> CompletionOutput:
        noise, rules, ids = torch.Generator().manual_seed(params.seed + index), params.rules(), torch.tensor([prompt])
        end = self.tokenizer.eos_token_id
        for _ in range(params.max_tokens):
            scores = rules(ids, model(ids).logits[:, -1].float())
            token = scores.softmax(-1).multinomial(1, generator=noise)
            ids = torch.cat([ids, token], 1)
            if token.item() == end:
                break
        tokens = ids[0, len(prompt) :].tolist()
        reason = "stop" if tokens[-1] == end else "length"
        return CompletionOutput(index, self.tokenizer.decode(tokens, skip_special_tokens=True), tokens, reason)


def modules() -> dict[str, ModuleType]:
    """Name -> module, to be put into `sys.modules`."""
    names = ("vllm", "vllm.exceptions", "vllm.lora", "vllm.lora.request")
    vllm, exceptions, lora, request = (ModuleType(name) for name in names)
    for module in (vllm, exceptions, lora, request):
        module.__spec__ = ModuleSpec(module.__name__, None)
    vllm.LLM, vllm.SamplingParams, request.LoRARequest = LLM, SamplingParams, LoRARequest
    exceptions.VLLMValidationError = VLLMValidationError
    return {module.__name__: module for module in (vllm, exceptions, lora, request)}
