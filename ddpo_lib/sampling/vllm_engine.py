"""Conversations -> completions by vLLM; `engines.py` says what an engine offers."""

import gc
import json
from collections.abc import Iterator
from collections.abc import Set as AbstractSet
from importlib.util import find_spec
from pathlib import Path

import torch

from ddpo_lib.base.errors import InputError
from ddpo_lib.models import models
from ddpo_lib.models.versions import exact_version
from ddpo_lib.profiles.settings import Sampling
from ddpo_lib.sampling.completions import Completion, Conversation
from ddpo_lib.sampling.draws import sample_keys
from ddpo_lib.sampling.rendering import Render, chat, decode_marked, encode
from ddpo_lib.sampling.thoughts import OPENING, opens_thoughts

AT_ONCE = 1024  # conversations per call; a kill loses at most those
RANKS = (1, 8, 16, 32, 64, 128, 256, 320, 512)  # the values of vLLM's `max_lora_rank`
# what an adapter of PEFT may have and vLLM refuses after minutes, or leaves out without a word
BEYOND_VLLM = (
    "alpha_pattern",
    "layer_replication",
    "modules_to_save",
    "rank_pattern",
    "target_parameters",
    "trainable_token_indices",
    "use_dora",
)
MISSING = (
    "engine vllm: vLLM is not installed; `pip install vllm` on a machine with a GPU it supports, or use the engine "
    "transformers"
)


class VLLM:
    """A model in vLLM, with a LoRA adapter if one is given.

    The calls follow the interface of vLLM 0.33.0, with whose signatures the tests compare them; no test runs vLLM.

    An adapter is handed over with each request. vLLM adds its output to that of the base weights and does not merge it.
    Its matrices are rounded to the model's `dtype`; their product is not.

    Samples differ from those of `Local` as the section “Arms sampled by vLLM” of the book says: the repetition penalty
    also counts the tokens of the prompt, and end tokens, and the noise is another one.

    Args:
        name: a folder, or a hub model.
        adapter: folder of a PEFT adapter that was trained on this model.
        render: conversation -> text; None for the model's chat template.
        revision: of a hub model.
        dtype: "bfloat16" or "float32"; vLLM multiplies adapters in 16-bit formats only.

    Raises:
        InputError: vLLM is not installed, or it cannot load the model or the adapter.
    """

    def __init__(
        self,
        name: str,
        adapter: Path | None = None,
        render: Render | None = None,
        *,
        revision: str | None = None,
        dtype: str = "bfloat16",
    ):
        if find_spec("vllm") is None:
            raise InputError(MISSING)
        lora = lora_options(adapter) if adapter else {}
        from vllm import LLM
        from vllm.lora.request import LoRARequest

        self.name, self.version = name, exact_version(name, revision)
        self.adapter = adapter and exact_version(str(adapter))
        self.tokenizer = models.load_tokenizer(name, revision)
        self.render = render or chat(self.tokenizer)
        gc.collect()  # vLLM takes a share of all memory of the GPU, also of what a training in this process has held
        torch.cuda.empty_cache()
        try:
            self.llm = LLM(model=str(models.model_place(name)), revision=revision, dtype=dtype, **lora)
        except ValueError as error:
            raise InputError(f"model {name}: vLLM cannot load it ({_one_line(error)})") from error
        self.lora = LoRARequest("adapter", 1, str(adapter)) if adapter else None

    def facts(self) -> dict:
        return {
            "engine": "vllm",
            "model": Path(self.name).name,
            "version": self.version,
            "adapter": self.adapter,
            "template": self.render([{"role": "user", "content": "{prompt}"}]),
            "penalty_counts": "tokens of the prompt and of the response, with end tokens",
        }

    def sample(
        self,
        conversations: list[Conversation],
        samples: int,
        sampling: Sampling,
        seed: str,
        skip: AbstractSet[int] = frozenset(),
    ) -> Iterator[tuple[int, list[Completion]]]:
        """Sample as the docstring of `engines` describes.

        The seed of vLLM's noise depends on the seed, the conversation and the number of the sample.

        Raises:
            InputError: vLLM refuses a request, as one whose prompt is longer than the model's context.
        """
        from vllm import SamplingParams
        from vllm.exceptions import VLLMValidationError

        texts = [self.render(conversation) for conversation in conversations]
        keys = [key & 0x7FFFFFFF for (key,) in sample_keys(texts, 1, seed)]  # vLLM adds the number of the sample
        wanted = [i for i in range(len(conversations)) if i not in skip]
        for start in range(0, len(wanted), AT_ONCE):
            part = wanted[start : start + AT_ONCE]
            settings = [
                SamplingParams(
                    n=samples,
                    temperature=sampling.temperature,
                    top_k=sampling.top_k,
                    top_p=sampling.top_p,
                    repetition_penalty=sampling.repetition_penalty,
                    max_tokens=sampling.max_new_tokens,
                    seed=keys[i],
                )
                for i in part
            ]
            prompts = [{"prompt_token_ids": encode(self.tokenizer, texts[i])} for i in part]
            try:
                made = self.llm.generate(prompts, settings, lora_request=self.lora)
            except (ValueError, VLLMValidationError) as error:  # the second is no ValueError in vLLM 0.33
                raise InputError(f"vLLM refuses a request ({_one_line(error)})") from error
            for i, request in zip(part, made, strict=True):
                begun = OPENING if opens_thoughts(texts[i]) else ""
                yield i, [self._read(output, begun) for output in request.outputs]

    def _read(self, output, begun: str) -> Completion:
        """A completion of vLLM's, whose tokens contain the end token if it has one."""
        tokens = list(output.token_ids)[: -1 if output.finish_reason == "stop" else None]
        return Completion(begun + decode_marked(self.tokenizer, tokens).strip(), len(tokens), output.finish_reason)


def lora_options(adapter: Path) -> dict:
    """The options with which vLLM loads an adapter of PEFT.

    Raises:
        InputError: the adapter has a part that vLLM does not know, or more ranks than it takes.
    """
    config = json.loads((adapter / "adapter_config.json").read_text(encoding="utf-8"))
    beyond = [name for name in BEYOND_VLLM if config.get(name)]
    beyond += ["bias"] if config.get("bias", "none") != "none" else []
    if beyond:
        raise InputError(f"{adapter}: has {', '.join(beyond)}, which vLLM does not know; use the engine transformers")
    if config["r"] > RANKS[-1]:
        raise InputError(
            f"{adapter}: has rank {config['r']}, and vLLM takes {RANKS[-1]} at most; use the engine transformers"
        )
    return {"enable_lora": True, "max_lora_rank": min(rank for rank in RANKS if rank >= config["r"])}


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:300]
