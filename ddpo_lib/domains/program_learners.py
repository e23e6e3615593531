"""Small models that learn to write programs: their corpora and tokens, the common start, one seed's tasks, and one arm.

As for arithmetic (`learners.py`), training, weights and sampling are those of the real model. Programs are scored by
running them.
"""

import shutil
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pandas as pd

from ddpo_lib.base.errors import InputError
from ddpo_lib.base.files import plain, write_json
from ddpo_lib.base.run_folder import Run
from ddpo_lib.data.corpus import COLUMNS, held_out_prompts
from ddpo_lib.domains.arithmetic_corpus import BAD, END, FACTS, GOOD, PAD, SEPARATOR, UNKNOWN
from ddpo_lib.domains.checked import Checked, measure
from ddpo_lib.domains.learners import _model, _weighing, answer_vectors
from ddpo_lib.domains.programs import (
    ListTask,
    all_tasks,
    check_all,
    neighbours,
    programs_of,
    prompt_of,
    read_task,
    ways,
    write_program,
)
from ddpo_lib.profiles.domain_settings import DomainRow, Programs
from ddpo_lib.profiles.settings import Sampling

LONGEST = 56  # tokens of prompt and program
NEW_TOKENS = 44  # of a sample; the longest program of a corpus has 42 with its end token


# Corpora and tokens


def tasks_of(settings: Programs, seed: int) -> tuple[list[ListTask], list[ListTask]]:
    """The tasks of a seed: those for training and those that are held out, drawn without replacement.

    Raises:
        InputError: there are not as many tasks as the settings ask for.
    """
    every, needed = all_tasks(), settings.tasks + settings.held_out
    if needed > len(every):
        raise InputError(
            f"programs.tasks: {needed} tasks per seed with those held out, but there are {len(every)}; lower tasks or "
            "held_out"
        )
    drawn = [every[i] for i in np.random.default_rng(seed).permutation(len(every))[:needed]]
    return drawn[settings.held_out :], drawn[: settings.held_out]


def write_corpus(settings: Programs, seed: int) -> pd.DataFrame:
    """Programs for the tasks of a seed, each run in the sandbox; the same settings and seed give the same corpus.

    Returns:
        One row per program: the columns of `corpus.read_corpus` (held-out tasks are the split "test"), then `mode`, the
        source of its syntax tree, and `right`.
    """
    train, held_out = tasks_of(settings, seed)
    rng = np.random.default_rng([seed, 1])
    rows, tasks = [], []
    for i, (task, split) in enumerate([(t, "train") for t in train] + [(t, "test") for t in held_out]):
        for j, bad in enumerate((rng.random(settings.responses) < settings.wrong).tolist()):
            near = neighbours(task)
            text = draw_program(near[rng.integers(len(near))] if bad else task, settings.zipf, rng)
            rows.append((f"t{i:05d}", prompt_of(task), f"t{i:05d}-{j:04d}", text, "programs", split))
            tasks.append(task)
    table = pd.DataFrame(rows, columns=[name for name in COLUMNS if name != "score"])
    checked = check_all(tasks, table["text"].tolist())
    table["mode"], table["right"] = [one.mode for one in checked], [one.right for one in checked]
    table["score"] = np.where(table["right"], GOOD, BAD)
    kinds = {name: "str" for name in (*COLUMNS, "mode") if name != "score"}
    return table[[*COLUMNS, *FACTS]].astype(kinds)


def write_language(settings: Programs) -> pd.DataFrame:
    """Right programs for all tasks that no seed holds out, for the common start: `prompt` and `text`.

    Raises:
        InputError: the seeds hold out all tasks.
    """
    unread = {task for seed in range(settings.seeds) for task in tasks_of(settings, seed)[1]}
    learned, rng = settings.pretraining, np.random.default_rng(settings.seeds)  # the seed of no corpus
    tasks = [task for task in all_tasks() if task not in unread for _ in range(learned.responses)]
    if not tasks:
        raise InputError("programs.held_out: the seeds hold out all tasks; lower it, or seeds")
    texts = [draw_program(task, learned.zipf, rng) for task in tasks]
    return pd.DataFrame({"prompt": map(prompt_of, tasks), "text": texts}, dtype="str")


def draw_program(task: ListTask, zipf: float, rng: np.random.Generator) -> str:
    """A right program; of its form and of its limit, the way of rank r has probability ~ r ** -zipf."""
    chosen = []
    for number in ways(task):
        share = np.arange(1, number + 1) ** -zipf
        chosen.append(int(rng.choice(number, p=share / share.sum())))
    return write_program(task, *chosen)


def tokenizer():
    """A fast tokenizer with a token for each word of the prompts and programs, and four special ones.

    A line break with the tabs after it is a word. Decoding restores texts whose words are separated by single blanks.
    """
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel
    from tokenizers.pre_tokenizers import Split
    from transformers import PreTrainedTokenizerFast

    words = [PAD, END, SEPARATOR, UNKNOWN, *_words()]
    inner = Tokenizer(WordLevel({word: i for i, word in enumerate(words)}, unk_token=UNKNOWN))
    inner.pre_tokenizer = Split(" ", "removed")
    return PreTrainedTokenizerFast(
        tokenizer_object=inner,
        pad_token=PAD,
        eos_token=END,
        sep_token=SEPARATOR,
        unk_token=UNKNOWN,
        padding_side="left",
        clean_up_tokenization_spaces=False,
    )


def _words() -> Iterable[str]:
    """Each word of a prompt or program once."""
    texts = (text for task in all_tasks() for text in (prompt_of(task), *programs_of(task)))
    return dict.fromkeys(word for text in texts for word in text.split(" "))


# Models


def make_base(settings: Programs, folder: Path, run: Run) -> None:
    """The model that all seeds start from, and what its programs for the first seed's held-out tasks are."""
    from ddpo_lib.training.train import train_sft

    random, seed = folder / "random", settings.seeds  # the seed of no corpus
    write_random(settings, seed, random)
    programs = write_language(settings)
    train_sft(programs, _model(random), settings.pretraining.optimiser, LONGEST, seed, folder)
    shutil.rmtree(random)
    found = _measure(folder / "trained", write_corpus(settings, 0), settings, seed, folder)
    write_json(folder / "measured.json", plain({**found, "answers": len(programs)}))


def make_start(settings: Programs, seed: int, base: str, folder: Path, run: Run) -> None:
    """A seed's corpus, the model after SFT on its training tasks, and what its programs and those of the corpus are."""
    from ddpo_lib.training.train import train_sft

    corpus = write_corpus(settings, seed)
    corpus.to_parquet(folder / "corpus.parquet")
    train = corpus[corpus["split"] == "train"]
    train_sft(train, _model(run.path(base) / "trained"), settings.sft, LONGEST, seed, folder)
    found = _measure(folder / "trained", corpus, settings, seed, folder)
    checked = [Checked(*one) for one in zip(train["right"].tolist(), train["mode"].tolist(), strict=True)]
    written = measure(train["prompt_id"].tolist(), checked)
    write_json(folder / "measured.json", plain({"sft": found, "corpus": written | _weighing(train)}))


def make_row(settings: Programs, row: DomainRow, gap: float, seed: int, start: str, folder: Path, run: Run) -> None:
    """Train one arm from the model of its seed and measure its programs; the trained model is not kept."""
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
    write_json(folder / "measured.json", plain(found | weigh_pairs(pairs, train)))
    shutil.rmtree(folder / "trained")


def weigh_pairs(pairs: pd.DataFrame, train: pd.DataFrame) -> dict[str, float]:
    """How many pairs an arm trains on, what they weigh, and how often a wrong answer wins.

    Args:
        pairs: with `chosen_id`, and `weight` for a weighted arm.
        train: the answers, with `response_id` and `right`.

    Returns:
        `pairs`; `pressure`, the mean weight; `zero_winners`, the share of pairs without weight; `wrong_pairs`, the
        share of pairs that a wrong answer wins; `wrong_winners`, the same by weight.
    """
    weight = pairs.get("weight", pd.Series(1.0, pairs.index))
    wrong = ~pairs["chosen_id"].map(train.set_index("response_id")["right"]).astype(bool)
    shares = {"wrong_pairs": float(wrong.mean()), "wrong_winners": float(np.average(wrong, weights=weight))}
    return {
        "pairs": len(pairs),
        "pressure": float(weight.mean()),
        "zero_winners": float((weight == 0).mean()),
        **shares,
    }


def _measure(trained: Path, corpus: pd.DataFrame, settings: Programs, seed: int, folder: Path) -> dict[str, float]:
    """Sample a model for the held-out tasks, from its full distribution; run and write the samples; measure them."""
    from ddpo_lib.sampling.engines import open_trained
    from ddpo_lib.sampling.generate import generate

    plain_sampling = {"temperature": 1.0, "top_k": 0, "top_p": 1.0, "repetition_penalty": 1.0}
    sampling = Sampling(samples=settings.samples, max_new_tokens=NEW_TOKENS, batch_tokens=100_000, **plain_sampling)
    samples = generate(open_trained(_model(trained), trained), held_out_prompts(corpus), sampling, seed)
    checked = check_all([read_task(prompt) for prompt in samples["prompt"]], samples["text"].tolist())
    samples["right"] = [one.right for one in checked]
    samples["mode"] = [one.mode for one in checked]
    samples["why"] = [one.why for one in checked]
    samples.to_parquet(folder / "samples.parquet")
    found = measure(samples["prompt_id"].tolist(), checked)
    if found["unread"] == 1:
        raise InputError(
            f"programs: none of {len(samples)} programs of seed {seed} is Python; in the profile, raise the responses "
            "or epochs of programs.pretraining, or lower the learning rates of SFT or of preference training"
        )
    return found


def write_random(settings: Programs, seed: int, folder: Path) -> None:
    """A causal language model with random weights and the vocabulary of the tasks and programs."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    words = tokenizer()
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
