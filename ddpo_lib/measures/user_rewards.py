"""Rewards that a user brings: a Python function, a reward that this project saved, or a judge behind a URL.

Each gives the samples of a round one number, higher is better. A NaN is no score; such a sample is in no pair. What has
been scored is written to a journal at once, so an interrupted scoring goes on where it was.
"""

import importlib
import inspect
import json
import os
import re
import sys
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from ddpo_lib.base.errors import InputError, first_line
from ddpo_lib.base.run_folder import Run
from ddpo_lib.measures.quality import Reward
from ddpo_lib.profiles.evaluation_settings import Baseline
from ddpo_lib.profiles.profile import Profile
from ddpo_lib.profiles.settings import Sampling

Function = Callable[[list[str], list[str]], Sequence[float]]

ASK = """A text was written for a prompt. Rate its quality with one number from 1 (worst) to 10 (best).

The prompt:
{prompt}

The text:
{text}

Answer with the number and nothing else."""
SAMPLING = Sampling(samples=2, temperature=0.1, top_k=0, top_p=1.0, repetition_penalty=1.0, max_new_tokens=16)
NUMBER = re.compile(r"[\s*]*([-+]?\d+(?:\.\d+)?)(?:\s*/\s*10)?[\s*.]*")


def load_function(name: str) -> Function:
    """The function that `module:function` names; modules of the current folder are found too.

    Raises:
        InputError: there is no such module or function.
    """
    module, _, function = name.partition(":")
    sys.path.insert(0, str(Path.cwd()))
    try:
        found = getattr(importlib.import_module(module), function, None)
    except ImportError as error:
        raise InputError(f"reward {name}: the module {module} cannot be imported ({first_line(error)})") from None
    finally:
        sys.path.remove(str(Path.cwd()))
    if not inspect.isfunction(found):
        raise InputError(f"reward {name}: {module} defines no function {function}; give MODULE:FUNCTION")
    return found


def load_saved(folder: Path) -> Reward:
    """The reward that a run saved in a folder: `quality` of a run, or one of the folders of its `graders`.

    Raises:
        InputError: the folder contains no reward.
    """
    file = folder / "reward.json"
    try:
        kept = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        raise InputError(f"{file}: no reward; give a folder such as runs/NAME/quality") from None
    if "settings" in kept:
        from ddpo_lib.measures.reward_model import RewardModel as Kept
    else:
        from ddpo_lib.measures.stand_in import StandIn as Kept
    return Kept.load(folder)


def score_by_function(function: Function, samples: pd.DataFrame, journal: Path, name: str) -> np.ndarray:
    """Scores of samples, asked for one prompt at a time, as a reward may compare the samples of a prompt.

    Args:
        function: prompts, texts -> a number for each text; all prompts of a call are the same.
        samples: rows with `prompt_id`, `prompt` and `text`.
        journal: a file that only this function, these samples and this reward use.
        name: of the reward, for messages.

    Returns:
        (n,) float64; NaN is no score.

    Raises:
        InputError: the function fails, or gives something else than a number for each text. The scores so far are in
            the journal.
    """
    known = _read(journal)
    scores = pd.Series(np.nan, samples.index)
    for prompt_id, rows in samples.groupby("prompt_id").groups.items():
        if prompt_id not in known:
            prompts, texts = samples.loc[rows, "prompt"].tolist(), samples.loc[rows, "text"].tolist()
            values = _call(function, prompts, texts, f"reward {name}, prompt {prompt_id}", journal)
            _write(journal, prompt_id, values)
            known[prompt_id] = values
        scores[rows] = known[prompt_id]
    return scores.to_numpy()


def _call(function: Function, prompts: list[str], texts: list[str], where: str, journal: Path) -> list[float]:
    goes_on = f"the scores so far are kept in {journal}: the same command goes on from there"
    try:
        values = np.asarray(function(prompts, texts), dtype=np.float64)
    except Exception as error:
        place = traceback.extract_tb(error.__traceback__)[-1]
        raise InputError(
            f"{where}: {type(error).__name__} at {place.filename}:{place.lineno} ({first_line(error)}); {goes_on}"
        ) from error
    if values.shape != (len(texts),) or np.isinf(values).any():
        found = f"shape {values.shape}" if values.shape != (len(texts),) else "an infinite number"
        raise InputError(f"{where}: expected a number for each of {len(texts)} texts, got {found}; {goes_on}")
    return values.tolist()


def _read(journal: Path) -> dict[str, list[float]]:
    """The scores by prompt; a line that a kill cut is left out, and its prompt is scored again."""
    known = {}
    for line in journal.read_bytes().splitlines() if journal.exists() else []:
        try:
            prompt_id, values = json.loads(line)
        except ValueError:
            continue
        known[prompt_id] = values
    return known


def _write(journal: Path, prompt_id: str, values: list[float]) -> None:
    with journal.open("a", encoding="utf-8") as file:
        file.write("\n" + json.dumps([prompt_id, values]) + "\n")  # the first break ends a line that a kill cut
        file.flush()
        os.fsync(file.fileno())


def score_by_judge(engine, samples: pd.DataFrame, ask: str, seed: int, journal: Path) -> np.ndarray:
    """Scores that a language model gives, one request per sample.

    Args:
        engine: one of `engines`, such as a server.
        samples: rows with `prompt` and `text`.
        ask: the request; `{prompt}` and `{text}` are replaced.
        seed: of the draws.
        journal: as in `generate.generate`.

    Returns:
        (n,) float64; NaN where the answer is not a number in the form asked for, cut or refused. It is never guessed.

    Raises:
        InputError: the engine fails, or no answer is a number; answers so far are in the journal.
    """
    from ddpo_lib.sampling.generate import generate

    def write(prompt: str, text: str) -> str:
        filled = {"prompt": prompt, "text": text}
        return re.sub(r"\{(prompt|text)\}", lambda field: filled[field[1]], ask)

    asked = [write(*row) for row in zip(samples["prompt"], samples["text"], strict=True)]
    table = pd.DataFrame({"prompt_id": [f"{n:08d}" for n in range(len(asked))], "prompt": asked})
    said = generate(engine, table, SAMPLING.model_copy(update={"samples": 1}), seed, journal=journal)
    scores = np.array([_number(text) for text in said["text"]])
    scores[~said["finished"].to_numpy()] = np.nan
    if np.isnan(scores).all():
        raise InputError(f"judge: none of {len(scores)} answers is a number, such as {said['text'].iloc[0]!r}")
    return scores


def _number(said: str) -> float:
    found = NUMBER.fullmatch(said)
    return float(found[1]) if found else float("nan")


# Artifacts of `ddpo online`


def pool_by_function(function: Function, name: str, samples: str, folder: Path, run: Run) -> None:
    """Write `pool.parquet`: the samples of a round, with the scores of a user's function.

    Args:
        function, name: as in `score_by_function`.
        samples: the artifact with `samples.parquet`, of `generate.generate`.
    """
    pool, rows = _unscored(samples, run)
    journal = folder / "scores.jsonl"
    pool.loc[rows, "score"] = score_by_function(function, pool[rows], journal, name)
    pool.to_parquet(folder / "pool.parquet")
    journal.unlink(missing_ok=True)


def pool_by_saved(place: Path, samples: str, folder: Path, run: Run) -> None:
    """Likewise with the scores of a reward that a run saved in the folder `place`."""
    pool, rows = _unscored(samples, run)
    pool.loc[rows, "score"] = load_saved(place).score(*(pool.loc[rows, name].tolist() for name in ("prompt", "text")))
    pool.to_parquet(folder / "pool.parquet")


def pool_by_judge(judge: Baseline, ask: str, profile: Profile, samples: str, folder: Path, run: Run) -> None:
    """Likewise with the numbers that a language model behind a URL answers."""
    from ddpo_lib.sampling.engines import open_engine
    from ddpo_lib.sampling.journal import remove_journal

    pool, rows = _unscored(samples, run)
    engine, journal = open_engine(judge, profile.model), folder / "journal.jsonl"
    pool.loc[rows, "score"] = score_by_judge(engine, pool[rows], ask, profile.seed, journal)
    pool.to_parquet(folder / "pool.parquet")
    remove_journal(journal)


def _unscored(samples: str, run: Run) -> tuple[pd.DataFrame, pd.Series]:
    """A pool without scores, and which of its rows are to be scored: not those that are blank or cut."""
    pool = run.table(samples, "samples.parquet")[["prompt_id", "prompt", "sample", "text", "tokens", "finished"]]
    ids = pool["prompt_id"] + "-" + pool["sample"].astype(str).str.zfill(4)
    pool = pool.drop(columns="sample").assign(response_id=ids, score=float("nan"))
    rows = pool["finished"] & (pool["text"].str.strip() != "")
    if not rows.any():
        raise InputError(f"{samples}: none of {len(pool)} samples is finished and not blank; raise --tokens")
    return pool, rows
