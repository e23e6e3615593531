"""Conversations -> completions by vLLM; `engines.py` says what an engine offers."""

import hashlib
import json
from collections.abc import Iterator
from collections.abc import Set as AbstractSet
from importlib.util import find_spec
from pathlib import Path

from ddpo_lib.base.errors import InputError
from ddpo_lib.models import models
from ddpo_lib.models.versions import exact_version
from ddpo_lib.profiles.settings import Sampling
from ddpo_lib.sampling.completions import Completion, Conversation
from ddpo_lib.sampling.rendering import Render, chat, decode_marked, encode
from ddpo_lib.sampling.thoughts import OPENING, opens_thoughts

VLLM_AT_ONCE = 1024  # conversations per call; a kill loses at most those


class VLLM:
    """A model in vLLM, with a LoRA adapter if one is given. It follows vLLM's documentation and has not been run.

    An adapter is handed over with each request. vLLM adds its output to that of the base weights and does not merge it,
    so in bfloat16 no part of it is rounded away.

    vLLM's repetition penalty also counts the prompt's tokens and end tokens. If the template contains an end token,
    texts are therefore longer than those of `Local`; a penalty of 1 avoids this.

    Args:
        name: a folder, or a hub model.
        adapter: folder of a PEFT adapter that was trained on this model.
        render: conversation -> text; None for the model's chat template.

    Raises:
        InputError: vLLM is not installed.
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
            raise InputError(
                "engine vllm: vLLM is not installed; `pip install vllm` on a machine with a GPU it supports, "
                "or use the engine transformers"
            )
        from vllm import LLM
        from vllm.lora.request import LoRARequest

        rank = json.loads((adapter / "adapter_config.json").read_text())["r"] if adapter else None
        lora = {"enable_lora": True, "max_lora_rank": rank} if adapter else {}
        self.name, self.version = name, exact_version(name, revision)
        self.adapter = adapter and exact_version(str(adapter))
        self.llm = LLM(model=str(models.model_place(name)), revision=revision, dtype=dtype, **lora)
        self.lora = LoRARequest("adapter", 1, str(adapter)) if adapter else None
        self.tokenizer = models.load_tokenizer(name, revision)
        self.render = render or chat(self.tokenizer)

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
        """Sample as the docstring of `engines` describes; the seed of a conversation depends on its position."""
        from vllm import SamplingParams

        wanted = [i for i in range(len(conversations)) if i not in skip]
        for start in range(0, len(wanted), VLLM_AT_ONCE):
            part = wanted[start : start + VLLM_AT_ONCE]
            texts = [self.render(conversations[i]) for i in part]
            settings = [
                SamplingParams(
                    n=samples,
                    temperature=sampling.temperature,
                    top_k=sampling.top_k,
                    top_p=sampling.top_p,
                    repetition_penalty=sampling.repetition_penalty,
                    max_tokens=sampling.max_new_tokens,
                    seed=hash_seed(f"{seed}-{i}"),
                )
                for i in part
            ]
            prompts = [{"prompt_token_ids": encode(self.tokenizer, text)} for text in texts]
            for i, request in zip(part, self.llm.generate(prompts, settings, lora_request=self.lora), strict=True):
                begun = OPENING if opens_thoughts(texts[part.index(i)]) else ""
                written = [begun + decode_marked(self.tokenizer, o.token_ids).strip() for o in request.outputs]
                reasons = [(len(o.token_ids), o.finish_reason) for o in request.outputs]
                yield i, [Completion(text, *of) for text, of in zip(written, reasons, strict=True)]


def hash_seed(seed: str) -> int:
    """Any text -> a seed of 31 bits."""
    return int.from_bytes(hashlib.sha256(seed.encode()).digest()[:4]) >> 1
