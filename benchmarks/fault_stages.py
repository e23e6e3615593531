"""The stages of the work, each as it is done with a model and a corpus so small that a stage takes seconds.

A stage runs in a folder of its own, which contains its inputs, and leaves its results there. The profiles and the
model are in `world`, a folder that all stages read.
"""

import contextlib
import json
import shlex
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

ARM = "ddpo-both"

PROFILE = """\
extends: smoke
name: faults
what: a random model of two layers and a corpus of random words; its numbers mean nothing
data: {{max_prompts: 12, max_responses: 5, held_out: 0.4, prompts: null}}
spaces: {{semantic: {{model: minilm}}, style: {{model: stylometric}}, others: {{lexical: {{model: lexical}}}}}}
model: {{name: {model}, template: "{{prompt}} ", last_layers: 1}}
sft: {{epochs: 8.0, batch_size: 2, checkpoint_steps: 2}}
preference:
  dpo: {{epochs: 6.0, batch_size: 2, checkpoint_steps: 2}}
  orpo: {{epochs: 6.0, batch_size: 2, checkpoint_steps: 2}}
arms:
  dpo: {{loss: dpo, start: sft, prompts: 6}}
  ddpo-both: {{loss: dpo, start: sft, prompts: 6, weights: [semantic, style]}}
baselines: {{}}
sampling: {{samples: 4, max_new_tokens: 48, batch_tokens: 256}}
evaluation: {{temperatures: [], sft_prompts: 6}}
"""
REWARD = """\
extends: faults.yaml
name: rewards
what: the same with a reward model
quality:
  kind: reward-model
  base: {model}
  dtype: float32
  lora_r: 4
  lora_alpha: 8
  learning_rate: 1.0e-3
  epochs: 6.0
  batch_size: 2
  warmup_steps: 2
  max_tokens: 128
  dev: 0.3
  patience: 3
"""


@dataclass(frozen=True)
class Stage:
    """A stage of the work.

    Attributes:
        name: as the table calls it.
        prepare: makes the inputs in the current folder; called with the folder `world`.
        work: does the stage in the current folder, which contains the inputs; called with the folder `world`.
        results: patterns of the files and folders that it leaves.
    """

    name: str
    prepare: Callable[[Path], None]
    work: Callable[[Path], None]
    results: tuple[str, ...]


def write_world(world: Path) -> None:
    """Write the model, the corpus and the profiles that all stages use."""
    from benchmarks.gpu_shapes import SHAPES, random_model, word_tokenizer, words

    shape, model = SHAPES["tiny"], world / "model"
    random_model(shape).float().save_pretrained(model)
    word_tokenizer(shape).save_pretrained(model)
    rng = np.random.default_rng(0)
    lines = []
    for number in range(12):
        responses = [
            {"text": words(rng, shape, int(rng.integers(8, 24))), "score": 10 * i + int(rng.integers(5))}
            for i in range(5)
        ]
        lines.append(json.dumps({"prompt": f"{words(rng, shape, 4)} w{number + 3}", "responses": responses}))
    (world / "corpus.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    for name, text in (("faults", PROFILE), ("rewards", REWARD)):
        (world / f"{name}.yaml").write_text(text.format(model=model), encoding="utf-8")


def make_inputs(profile: str, name: str, world: Path) -> None:
    """Make the artifacts that an artifact needs, in the current folder."""
    from ddpo_lib.runs.pipeline import open_run

    run = open_run(str(world / f"{profile}.yaml"), str(world / "corpus.jsonl"), "runs")
    for needed in run.steps[name].inputs:
        run.path(needed)


def ddpo(commands: tuple[str, ...], world: Path) -> None:
    """Run commands of `ddpo` in the current folder, as the shell would."""
    from ddpo_lib.cli.main import main

    for words in commands:
        sys.argv = ["ddpo", *shlex.split(words.format(world=world))]
        with contextlib.suppress(_Done):
            try:
                main()
            except SystemExit as end:
                if end.code:
                    raise
                raise _Done from None


class _Done(Exception):
    """A command ended well."""


def _artifact(name: str, profile: str = "faults") -> Stage:
    title = name if profile == "faults" else f"{name}, {profile}"
    command = f"make {name} --profile {{world}}/{profile}.yaml --corpus {{world}}/corpus.jsonl --runs runs"
    return Stage(title, partial(make_inputs, profile, name), partial(ddpo, (command,)), (f"runs/*/{name}",))


def _command(title: str, before: tuple[str, ...], words: str, *results: str) -> Stage:
    return Stage(title, partial(ddpo, before), partial(ddpo, (words,)), results)


def _annotate(world: Path) -> None:
    (run,) = Path("runs").iterdir()
    ddpo((ANNOTATE.format(run=run),), world)


WEIGHTS = "weights {world}/corpus.jsonl weights.parquet --held-out 0.4 --split-seed 1"
SFT = "train weights.parquet sft --arm sft --profile {world}/faults.yaml"
DDPO = "train weights.parquet ddpo --arm ddpo-both --from sft --profile {world}/faults.yaml"
GENERATE = "generate sft weights.parquet samples.jsonl --profile {world}/faults.yaml"
ANNOTATE = (
    "annotate prepare {run} --arms ddpo-both dpo --out study --show summary --words 12 --prompts 3 --items 2 "
    "--checks 1 --profile {{world}}/faults.yaml"
)
CHAPTER = "chapter-01-deviation-analysis"
STAGES = {
    stage.name: stage
    for stage in (
        *map(_artifact, ("corpus", "vectors", "pairs", "quality")),
        _artifact("quality", "rewards"),
        *map(_artifact, ("sft", f"arm-{ARM}", f"samples-{ARM}", "evaluation", CHAPTER)),
        _command("ddpo weights", (), WEIGHTS, "weights.parquet"),
        _command("ddpo train --arm sft", (WEIGHTS,), SFT, "sft"),
        _command("ddpo train --from sft", (WEIGHTS, SFT), DDPO, "ddpo"),
        _command("ddpo generate", (WEIGHTS, SFT), GENERATE, "samples.jsonl"),
        Stage("ddpo annotate prepare", partial(make_inputs, "faults", "evaluation"), _annotate, ("study",)),
    )
}
