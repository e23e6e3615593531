"""Small models that learn arithmetic tasks: the common start, one seed's tasks, and one arm.

Training, weights and sampling are those of the real model. Only the model is small, and a checker tells which answers
are right.
"""

import shutil
from pathlib import Path

import numpy as np
import pandas as pd

from ddpo_lib.base.errors import InputError
from ddpo_lib.base.files import plain, write_json
from ddpo_lib.base.run_folder import Run
from ddpo_lib.data.corpus import held_out_prompts
from ddpo_lib.domains import arithmetic_corpus
from ddpo_lib.domains.arithmetic import check, write
from ddpo_lib.domains.arithmetic_corpus import SEPARATOR, read_task, tokenizer
from ddpo_lib.domains.checked import Checked, measure
from ddpo_lib.profiles.domain_settings import DOMAIN_SPACES, DomainRow, Domains
from ddpo_lib.profiles.settings import Model, Sampling

LONGEST = 48  # tokens of prompt and answer
NEW_TOKENS = 20  # of a sample; the longest answer of a corpus has 14 with its end token
TEMPLATE = "{prompt}" + SEPARATOR


def make_base(settings: Domains, folder: Path, run: Run) -> None:
    """The model that all seeds start from, and what its answers to the first seed's held-out tasks are.

    It is trained from random weights on right answers to all tasks that no seed holds out.
    """
    from ddpo_lib.training.train import train_sft

    random, seed = folder / "random", settings.seeds  # the seed of no corpus
    write_random(settings, seed, random)
    answers = arithmetic_corpus.write_language(settings)
    train_sft(answers, _model(random), settings.pretraining.optimiser, LONGEST, seed, folder)
    shutil.rmtree(random)
    found = _measure(folder / "trained", arithmetic_corpus.write_corpus(settings, 0), settings, seed, folder)
    write_json(folder / "measured.json", plain({**found, "answers": len(answers)}))


def make_start(settings: Domains, seed: int, base: str, folder: Path, run: Run) -> None:
    """A seed's corpus, the model after SFT on its training tasks, and what its answers and those of the corpus are."""
    from ddpo_lib.training.train import train_sft

    corpus = arithmetic_corpus.write_corpus(settings, seed)
    corpus.to_parquet(folder / "corpus.parquet")
    train = corpus[corpus["split"] == "train"]
    train_sft(train, _model(run.path(base) / "trained"), settings.sft, LONGEST, seed, folder)
    found = _measure(folder / "trained", corpus, settings, seed, folder)
    written = measure(train["prompt_id"].tolist(), check_answers(train))
    write_json(folder / "measured.json", plain({"sft": found, "corpus": written | _weighing(train)}))


def make_row(settings: Domains, row: DomainRow, gap: float, seed: int, start: str, folder: Path, run: Run) -> None:
    """Train one arm from the model of its seed and measure its answers; the trained model is not kept."""
    from ddpo_lib.pairs.arms import training_pairs
    from ddpo_lib.training.train import train_preferences

    place = run.path(start)
    corpus = pd.read_parquet(place / "corpus.parquet")
    train = corpus[corpus["split"] == "train"].reset_index(drop=True)
    if row.noise:
        train["score"] += np.random.default_rng([seed, 2]).normal(0, row.noise, len(train))
    vectors = {name: answer_vectors(train, name) for name in row.arm.spaces()}
    pairs = training_pairs(train, vectors, row.arm, gap, seed)
    trained = place / "trained"
    train_preferences(pairs, row.arm, trained, _model(trained), settings.preference, LONGEST, seed, folder)
    found = _measure(folder / "trained", corpus, settings, seed, folder)
    weight = pairs.get("weight", pd.Series(1.0, pairs.index))
    wrong = ~pairs["chosen_id"].map(train.set_index("response_id")["right"]).astype(bool)
    found |= {
        "pairs": len(pairs),
        "pressure": float(weight.mean()),  # mean weight over pairs
        "zero_winners": float((weight == 0).mean()),
        "wrong_pairs": float(wrong.mean()),  # share of pairs in which a wrong answer wins
        "wrong_winners": float(np.average(wrong, weights=weight)),  # the same, by weight
    }
    write_json(folder / "measured.json", plain(found))
    shutil.rmtree(folder / "trained")


def check_answers(answers: pd.DataFrame) -> list[Checked]:
    """The checker's word on each row's `text`, as an answer to the task of its `prompt`."""
    return [check(read_task(p), text) for p, text in zip(answers["prompt"], answers["text"], strict=True)]


def answer_vectors(corpus: pd.DataFrame, name: str) -> np.ndarray:
    """(n, d) float32 unit rows of answers in one of DOMAIN_SPACES. The space of modes is an upper bound."""
    from ddpo_lib.spaces.embed import COUNTED

    space = DOMAIN_SPACES[name]
    if space is not None:
        return COUNTED[space](corpus["text"].tolist())
    modes = corpus.groupby("prompt_id")["mode"].transform(lambda of: of.astype("category").cat.codes).to_numpy(int)
    return np.eye(modes.max() + 1, dtype=np.float32)[modes]


def _weighing(train: pd.DataFrame) -> dict[str, float]:
    """By space, the mean deviation weight of right and of wrong answers, among all answers to a task."""
    from ddpo_lib.deviation.distances import mean_distance
    from ddpo_lib.deviation.weighting import weights

    groups = train["prompt_id"].astype("category").cat.codes.to_numpy()
    found = {}
    for space in DOMAIN_SPACES:
        weight = weights([mean_distance(answer_vectors(train, space), groups)], groups)
        for kind, rows in (("right", train["right"]), ("wrong", ~train["right"])):
            found[f"weight_{kind}_{space}"] = float(weight[rows.to_numpy()].mean())
    return found


def _measure(trained: Path, corpus: pd.DataFrame, settings: Domains, seed: int, folder: Path) -> dict[str, float]:
    """Sample a model for the held-out tasks, from its full distribution; write the samples; measure them."""
    from ddpo_lib.sampling.engines import open_trained
    from ddpo_lib.sampling.generate import generate

    plain_sampling = {"temperature": 1.0, "top_k": 0, "top_p": 1.0, "repetition_penalty": 1.0}
    sampling = Sampling(samples=settings.samples, max_new_tokens=NEW_TOKENS, batch_tokens=100_000, **plain_sampling)
    samples = generate(open_trained(_model(trained), trained), held_out_prompts(corpus), sampling, seed)
    checked = check_answers(samples)
    samples["right"] = [one.right for one in checked]
    samples["mode"] = [None if one.mode is None else write(one.mode) for one in checked]
    samples["why"] = [one.why for one in checked]
    samples.to_parquet(folder / "samples.parquet")
    found = measure(samples["prompt_id"].tolist(), checked)
    if found["unread"] == 1:
        raise InputError(
            f"domains: none of {len(samples)} answers of seed {seed} can be read; in the profile, raise the responses "
            "or epochs of domains.pretraining, or lower the learning rates of SFT or of preference training"
        )
    return found


def _model(place: Path) -> Model:
    return Model(name=str(place), dtype="float32", template=TEMPLATE, lora_r=None)


def write_random(settings: Domains, seed: int, folder: Path) -> None:
    """A causal language model with random weights and the vocabulary of the tasks."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    words = tokenizer(settings.arithmetic)
    shape = {"hidden_size": settings.width, "intermediate_size": 2 * settings.width}
    shape |= {"num_hidden_layers": settings.layers, "num_attention_heads": 8, "num_key_value_heads": 8}
    special = {"pad_token_id": words.pad_token_id, "eos_token_id": words.eos_token_id, "bos_token_id": None}
    config = LlamaConfig(
        vocab_size=len(words),
        **shape,
        **special,
        initializer_range=settings.width**-0.5,  # as for the small models of the worlds
        max_position_embeddings=2 * LONGEST,
        tie_word_embeddings=True,
    )
    torch.manual_seed(seed)
    LlamaForCausalLM(config).save_pretrained(folder)
    words.save_pretrained(folder)
