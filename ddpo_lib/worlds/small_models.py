"""Small models in worlds whose modes are known: the common start, one world, and one row.

Training, weights and sampling are those of the real model. Only the model is small, and the true modes are known.
"""

import copy
import gc
import shutil
from functools import cache
from itertools import product
from pathlib import Path

import numpy as np
import pandas as pd

from ddpo_lib.base.errors import InputError
from ddpo_lib.base.files import write_json
from ddpo_lib.base.run_folder import Run
from ddpo_lib.data.corpus import held_out_prompts
from ddpo_lib.profiles.profile import Profile
from ddpo_lib.profiles.settings import Model, Sampling
from ddpo_lib.profiles.world_settings import WORLD_SPACES, WorldRow, Worlds
from ddpo_lib.worlds import grammar, modes, modeworld

LONGEST = 96  # tokens of prompt and story; the grammar's are much shorter
NEW_TOKENS = 44  # of a sample; the grammar's longest story has 41 with its end token
BASE = "world-base"  # the artifact that worlds start from; each other kind of flaw has its own (`base_of`)
MANY = 1600  # samples of a single model that is shown and not compared
SFT, CORPUS = "sft:", "corpus:"  # prefixes of a world's name: rows of its model after SFT, and of its corpus


def check_kinds(settings: Worlds, where: str) -> None:
    """Check that every kind of world that a profile names can be written.

    Raises:
        InputError: a kind cannot be written; the message begins with `where` and the field.
    """
    for name, fields in settings.kinds.items():
        field = f"{where}, field `worlds.kinds.{name}`"
        if "seed" in fields:
            raise InputError(f"{field}: a kind has no seed of its own; leave it out and set worlds.seeds")
        try:
            world = modeworld.World(**fields)
        except (TypeError, ValueError) as error:
            raise InputError(f"{field}: {error}") from None
        if not world.held_out or settings.preference_prompts > world.prompts:
            raise InputError(
                f"{field}: expected a held-out prompt, and {settings.preference_prompts} or more for training"
            )


def world_of(settings: Worlds, kind: str, seed: int) -> modeworld.World:
    return modeworld.World(**settings.kinds[kind], seed=seed)


def base_of(flaw: str) -> str:
    """The artifact that worlds with this kind of flaw start from; a model that never read a flaw cannot write it."""
    return BASE if flaw == grammar.FLAWS[0] else f"{BASE}-{flaw}"


def flaws(settings: Worlds) -> list[str]:
    """The kinds of flaw in the worlds of a profile."""
    return sorted({modeworld.World(**fields).flaw for fields in settings.kinds.values()})


def make_base(profile: Profile, flaw: str, folder: Path, run: Run) -> None:
    """The model that worlds with this kind of flaw start from, and the modes of its samples.

    It is trained from random weights on stories of all modes in equal shares. So it knows the language, but not which
    modes are common.
    """
    from ddpo_lib.training.train import train_sft

    settings, random = profile.worlds, folder / "random"
    world = language(settings, flaw)
    every = [world_of(settings, kind, 0) for kind in settings.kinds]
    first = next(one for one in every if one.flaw == flaw)
    _write_random(settings, world.seed, random)
    stories = modeworld.write_corpus(world)
    unread = {
        grammar.cast(prompt)
        for kind, seed in product(settings.kinds, range(settings.seeds))
        for prompt in modeworld.held_out(world_of(settings, kind, seed))
    }
    stories = stories[[cast not in unread for cast in stories["prompt"].map(grammar.cast)]]
    train_sft(stories, _model(random), settings.pretraining.optimiser, LONGEST, world.seed, folder)
    shutil.rmtree(random)
    many = settings.model_copy(update={"samples": MANY // first.held_out})
    texts = sample(folder / "trained", modeworld.write_corpus(first), many, world.seed)
    write_json(folder / "modes.json", _measure(texts, world, "the model that worlds start from"))


def language(settings: Worlds, flaw: str) -> modeworld.World:
    """The world of pretraining: every plot and voice of the worlds, equally often, with one kind of flaw."""
    kinds = [modeworld.World(**fields) for fields in settings.kinds.values()]
    modes_of_all = {"plots": max(kind.plots for kind in kinds), "voices": max(kind.voices for kind in kinds)}
    read = {"prompts": settings.pretraining.prompts, "held_out": 0, "responses": settings.pretraining.responses}
    # the seed of no other world
    return modeworld.World(**read, **modes_of_all, zipf=0, voice_zipf=0, flaw=flaw, seed=settings.seeds)


def make_world(profile: Profile, kind: str, seed: int, folder: Path, run: Run) -> None:
    """The world's corpus, a model trained on its training prompts (SFT), and the modes of the model's samples."""
    from ddpo_lib.training.train import train_sft

    settings = profile.worlds
    world = world_of(settings, kind, seed)
    corpus = modeworld.write_corpus(world)
    corpus.to_parquet(folder / "corpus.parquet")
    train = corpus[corpus["split"] == "train"]
    train_sft(train, _model(run.path(base_of(world.flaw)) / "trained"), settings.sft, LONGEST, seed, folder)
    texts = sample(folder / "trained", corpus, settings, seed)
    texts.to_parquet(folder / "samples.parquet")
    measured = _measure(texts, world, f"the model of world {kind}, seed {seed}, after SFT")
    write_json(folder / "modes.json", {"sft": measured, "corpus": modes.measure(modes.read_modes(train), world)})


def make_row(profile: Profile, row: WorldRow, seed: int, start: str, folder: Path, run: Run) -> None:
    """Train one arm from the model of its world and measure the modes of its samples; the trained model is not kept."""
    from ddpo_lib.measures.surprisal import mean_surprisal
    from ddpo_lib.pairs.arms import training_pairs, with_equal_steps
    from ddpo_lib.pairs.rules import make_pairs
    from ddpo_lib.training.train import train_preferences

    _spare_the_collector()
    settings, gap = profile.worlds, profile.data.gap
    world, place = world_of(settings, row.world, seed), run.path(start)
    corpus = pd.read_parquet(place / "corpus.parquet")
    train = corpus[corpus["split"] == "train"]
    known = train["prompt_id"].unique()[: settings.preference_prompts]
    train = train[train["prompt_id"].isin(known)].reset_index(drop=True)
    if row.noise:
        train["score"] += np.random.default_rng([seed, 1]).normal(0, row.noise, len(train))
    vectors = {name: world_vectors(train, name) for name in row.arm.spaces()}
    trained = place / "trained"
    surprisal = mean_surprisal(train, _model(trained), trained) if row.arm.picks_by_probability() else None
    pairs = training_pairs(train, vectors, row.arm, gap, seed, surprisal)
    preference = settings.preference
    optimiser = preference.dpo if row.arm.loss == "dpo" else preference.orpo
    arm = with_equal_steps(row.arm, len(pairs), len(make_pairs(train, gap, seed)), optimiser)
    trace = [_trace(settings, world, corpus, seed)] if row.traced else []
    train_preferences(pairs, arm, trained, _model(trained), preference, LONGEST, seed, folder, trace)
    texts = sample(folder / "trained", corpus, settings, seed)
    texts.to_parquet(folder / "samples.parquet")
    measured = _measure(texts, world, f"a row of world {row.world}, seed {seed}")
    before = run.json(start, "modes.json")["sft"]
    weight = pairs.get("weight", pd.Series(1.0, pairs.index))
    flawed = pairs["chosen_id"].map(train.set_index("response_id")["flawed"]).astype(float)
    found = {
        "row": measured,
        "pairs": len(pairs),
        "pressure": float(weight.mean()),  # mean weight over pairs
        "zero_winners": float((weight == 0).mean()),
        "flawed_winners": float(np.average(flawed, weights=weight)),  # their share of the weight
        "trace": [_point(0.0, before), *trace[0].found, _point(1.0, measured)] if trace else [],
    }
    write_json(folder / "modes.json", found)
    shutil.rmtree(folder / "trained")


@cache
def _spare_the_collector() -> None:
    """Exclude all present objects from garbage collection, once per process. Nearly all of them come from imports, and
    the full collections that a trainer requests would otherwise take 0.3 s per row."""
    gc.collect()
    gc.freeze()


def _measure(texts: pd.DataFrame, world: modeworld.World, what: str) -> dict:
    measured = modes.measure(modes.read_modes(texts), world)
    if measured["none"] == 1:
        raise InputError(
            f"worlds: none of {len(texts)} stories of {what} can be read; in the profile, raise the prompts or epochs "
            "of worlds.pretraining, or lower the learning rates of SFT or of preference training"
        )
    return measured


def world_vectors(corpus: pd.DataFrame, name: str) -> np.ndarray:
    """(n, d) float32 unit rows of a world's responses in one of its spaces. The space of labels is an upper bound."""
    from ddpo_lib.spaces.embed import COUNTED, embed

    space = WORLD_SPACES[name]
    if space in COUNTED:  # counting such short texts takes a tenth of the time of reading stored vectors
        return COUNTED[space](corpus["text"].tolist())
    if space is not None:
        return embed(corpus["text"].tolist(), space)
    labels = corpus[name].to_numpy()
    return np.eye(labels.max() + 1, dtype=np.float32)[labels]


def sample(trained: Path, corpus: pd.DataFrame, settings: Worlds, seed: int) -> pd.DataFrame:
    """Samples of a trained model for the held-out prompts, from its full distribution: no top-k, no top-p."""
    from ddpo_lib.sampling.engines import open_trained
    from ddpo_lib.sampling.generate import generate

    engine = open_trained(_model(trained), trained)
    return generate(engine, held_out_prompts(corpus), _sampling(settings.samples), seed)


def _trace(settings: Worlds, world: modeworld.World, corpus: pd.DataFrame, seed: int):
    """A callback that measures the modes of the model during its training, `settings.trace` times in total.

    It uses half as many samples as for a trained row; otherwise it would take longer than the training.
    """
    from transformers import TrainerCallback

    from ddpo_lib.sampling.engines import Local
    from ddpo_lib.sampling.generate import generate
    from ddpo_lib.sampling.rendering import fill_template

    class Trace(TrainerCallback):
        def __init__(self):
            self.found = []

        def on_train_begin(self, args, state, control, processing_class=None, **kwargs):
            self.at = {round(i * state.max_steps / settings.trace) for i in range(1, settings.trace)}
            self.tokenizer = processing_class

        def on_step_end(self, args, state, control, model=None, **kwargs):
            if state.global_step in self.at:
                aside = copy.deepcopy(model)
                aside.__dict__.pop("forward", None)  # TRL's would run the original model, in training mode
                engine = Local(aside, self.tokenizer, fill_template(TEMPLATE))
                texts = generate(engine, held_out_prompts(corpus), _sampling(max(2, settings.samples // 2)), seed)
                found = modes.measure(modes.read_modes(texts), world)
                self.found.append(_point(state.global_step / state.max_steps, found))

    return Trace()


def _point(share: float, measured: dict) -> dict:
    """The values of `modes.measure` that a trace keeps, after this share of the training."""
    return {"share": share, **{key: measured[key] for key in ("none", "flawed", "plots", "voices")}}


TEMPLATE = "{prompt}" + grammar.SEPARATOR


def _model(place: Path) -> Model:
    return Model(name=str(place), dtype="float32", template=TEMPLATE, lora_r=None)


def _sampling(samples: int) -> Sampling:
    plain = {"temperature": 1.0, "top_k": 0, "top_p": 1.0, "repetition_penalty": 1.0}
    return Sampling(samples=samples, max_new_tokens=NEW_TOKENS, batch_tokens=100_000, **plain)


def _write_random(settings: Worlds, seed: int, folder: Path) -> None:
    """A causal language model with random weights and the world's vocabulary."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    tokenizer = grammar.tokenizer()
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=settings.width,
        intermediate_size=2 * settings.width,
        num_hidden_layers=settings.layers,
        num_attention_heads=8,
        num_key_value_heads=8,
        initializer_range=settings.width**-0.5,  # with transformers' 0.02, these learn to copy much later
        max_position_embeddings=2 * LONGEST,
        tie_word_embeddings=True,
        pad_token_id=tokenizer.pad_token_id,
        eos_token_id=tokenizer.eos_token_id,
        bos_token_id=None,
    )
    torch.manual_seed(seed)
    LlamaForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
