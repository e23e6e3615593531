"""Settings of arithmetic tasks -> tasks, answers with skewed frequencies, and the tokens of both.

A right answer of a task is drawn from its modes: simple ones are common, long ones rare. A wrong answer is drawn in the
same way from the expressions that miss the target by a little. So both have the same shapes, and only arithmetic tells
one from the other. There are more ways to be wrong than to be right, so each wrong answer is rarer. All answers use
as many numbers, and each mode has one text, with its terms in a fixed order: a small model does not learn in a minute
what random orders have in common, nor from batches of one length each.
"""

import re
from functools import cache
from itertools import combinations

import numpy as np
import pandas as pd

from ddpo_lib.base.errors import InputError
from ddpo_lib.data.corpus import COLUMNS
from ddpo_lib.domains.arithmetic import Mode, Task, near_misses, numbers_of, solutions, write
from ddpo_lib.profiles.domain_settings import Arithmetic, Domains

GOOD, BAD = 10.0, 1.0  # the scores of a right and of a wrong answer; answers with equal scores form no pair
PAD, END, SEPARATOR, UNKNOWN = "<pad>", "<end>", "<answer>", "<unknown>"
FACTS = ["mode", "right"]  # columns of a corpus besides COLUMNS


def prompt_of(task: Task) -> str:
    """`make 13 from 2 3 4 7`."""
    return f"make {task.target} from {' '.join(map(str, task.numbers))}"


def read_task(prompt: str) -> Task:
    """The task of a prompt.

    Raises:
        ValueError: it is not one of `prompt_of`.
    """
    found = re.fullmatch(r"make (\d+) from (\d+(?: \d+)*)", prompt)
    if found is None:
        raise ValueError(f"prompt: expected the form 'make 13 from 2 3 4 7', got {prompt!r}")
    return Task(tuple(map(int, found[2].split())), int(found[1]))


@cache
def all_tasks(settings: Arithmetic) -> tuple[Task, ...]:
    """Every task with as many right modes as the settings ask for, in a fixed order."""
    sets = combinations(range(1, settings.largest + 1), settings.numbers)
    every = (Task(numbers, target) for numbers in sets for target in range(settings.lowest, settings.highest + 1))
    return tuple(task for task in every if len(right_modes(task, settings)) >= settings.modes)


@cache
def right_modes(task: Task, settings: Arithmetic) -> list[Mode]:
    """The right modes of a task that a corpus has, the most common first."""
    return _of_size(solutions(task, settings.operations, settings.used), settings)


@cache
def wrong_modes(task: Task, settings: Arithmetic) -> list[Mode]:
    """The wrong modes of a task that a corpus has, the most common first."""
    return _of_size(near_misses(task, settings.miss, settings.operations, settings.used), settings)


def _of_size(modes: list[Mode], settings: Arithmetic) -> list[Mode]:
    return [mode for mode in modes if len(numbers_of(mode)) == settings.used]


def tasks_of(settings: Domains, seed: int) -> tuple[list[Task], list[Task]]:
    """The tasks of a seed: those for training and those that are held out, drawn without replacement.

    Raises:
        InputError: there are not as many tasks as the settings ask for.
    """
    every = all_tasks(settings.arithmetic)
    needed = settings.tasks + settings.held_out
    if needed > len(every):
        raise InputError(
            f"domains.tasks: {needed} tasks per seed with those held out, but domains.arithmetic allows {len(every)}; "
            "lower tasks, held_out or arithmetic.modes"
        )
    drawn = [every[i] for i in np.random.default_rng(seed).permutation(len(every))[:needed]]
    return drawn[settings.held_out :], drawn[: settings.held_out]


def write_corpus(settings: Domains, seed: int) -> pd.DataFrame:
    """Answers to the tasks of a seed; the same settings and seed give the same corpus.

    Returns:
        One row per answer: the columns of `corpus.read_corpus` (held-out tasks are the split "test"), then `mode`, the
        canonical text of the answer's mode, and `right`.
    """
    train, held_out = tasks_of(settings, seed)
    rng = np.random.default_rng([seed, 1])
    parts = [(task, "train") for task in train] + [(task, "test") for task in held_out]
    return _write(parts, settings.responses, settings.wrong, settings.zipf, settings.arithmetic, rng)


def write_language(settings: Domains) -> pd.DataFrame:
    """Right answers to all tasks that no seed holds out, in the form of `write_corpus`, for the common start.

    Raises:
        InputError: the seeds hold out all tasks.
    """
    unread = {task for seed in range(settings.seeds) for task in tasks_of(settings, seed)[1]}
    parts = [(task, "train") for task in all_tasks(settings.arithmetic) if task not in unread]
    if not parts:
        raise InputError("domains.held_out: the seeds hold out all tasks; lower it, or seeds")
    learned = settings.pretraining
    rng = np.random.default_rng(settings.seeds)  # the seed of no corpus
    return _write(parts, learned.responses, 0.0, learned.zipf, settings.arithmetic, rng)


def _write(
    parts: list[tuple[Task, str]],
    responses: int,
    wrong: float,
    zipf: float,
    settings: Arithmetic,
    rng: np.random.Generator,
) -> pd.DataFrame:
    rows = []
    for i, (task, split) in enumerate(parts):
        pools = right_modes(task, settings), wrong_modes(task, settings)
        is_wrong = rng.random(responses) < wrong
        for j, bad in enumerate(is_wrong.tolist()):
            pool = pools[bad]
            share = np.arange(1, len(pool) + 1) ** -zipf
            mode = pool[rng.choice(len(pool), p=share / share.sum())]
            score = BAD if bad else GOOD
            names = f"t{i:05d}", prompt_of(task), f"t{i:05d}-{j:04d}"
            rows.append((*names, write(mode), score, "arithmetic", split, write(mode), not bad))
    table = pd.DataFrame(rows, columns=[*COLUMNS, *FACTS])
    return table.astype({name: "str" for name in (*COLUMNS, "mode") if name != "score"})


def tokenizer(settings: Arithmetic):
    """A fast tokenizer with a token for each word, number, sign and bracket, and four special ones.

    Decoding restores texts whose tokens are separated by single blanks, as here. A response ends with its `eos_token`;
    `sep_token` stands between prompt and response.
    """
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel
    from tokenizers.pre_tokenizers import WhitespaceSplit
    from transformers import PreTrainedTokenizerFast

    numbers = map(str, range(1, max(settings.largest, settings.highest) + 1))
    words = [PAD, END, SEPARATOR, UNKNOWN, "make", "from", "(", ")", *settings.operations, *numbers]
    inner = Tokenizer(WordLevel({word: i for i, word in enumerate(words)}, unk_token=UNKNOWN))
    inner.pre_tokenizer = WhitespaceSplit()
    return PreTrainedTokenizerFast(
        tokenizer_object=inner,
        pad_token=PAD,
        eos_token=END,
        sep_token=SEPARATOR,
        unk_token=UNKNOWN,
        padding_side="left",
        clean_up_tokenization_spaces=False,
    )
