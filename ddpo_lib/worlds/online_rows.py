"""A small model that learns from its own stories in rounds, in the main world: sample, score, weigh, train, measure.

A story that can be read, is faithful to its prompt and has no flaw scores `GOOD`, any other `BAD`, and noise is added.
These scores pick the pairs, so the picker errs. The parser grades the model after each round; it picks no pair.

A story that the grammar cannot write stays in the pool with the score of a flawed one. So it is a loser, unless noise
makes it a winner, and other stories deviate from it. Stories that are blank or cut are left out (`rounds.whole`).
"""

import json
import shutil
import time
from pathlib import Path

import numpy as np
import pandas as pd

from ddpo_lib.base.errors import InputError
from ddpo_lib.base.run_folder import Run
from ddpo_lib.deviation.distances import mean_distance
from ddpo_lib.pairs.rounds import draw_prompts, whole
from ddpo_lib.profiles.online_settings import OnlineRow, OnlineWorld
from ddpo_lib.profiles.profile import Profile
from ddpo_lib.profiles.world_settings import MAIN_WORLD
from ddpo_lib.worlds import modes
from ddpo_lib.worlds.modeworld import BAD, GOOD
from ddpo_lib.worlds.small_models import (
    LONGEST,
    _measure,
    _model,
    _sampling,
    _spare_the_collector,
    sample,
    world_of,
    world_vectors,
)

SPACES = ("semantic", "style")  # in which the deviation of stories is measured after each round


def make_row(profile: Profile, row: OnlineRow, seed: int, start: str, folder: Path, run: Run) -> None:
    """Train an arm in rounds and write `rounds.parquet`, one row per round; no trained model is kept.

    Round 0 is the model after SFT. A row that is trained on all stories at once has only the last round after it.
    `modes.measure` and `describe_pool` say what is measured. `steps`, `sampling_seconds` and `training_seconds` count
    what the round took, in seconds of processor time, which hardly depend on what else the machine does.

    Args:
        row: the arm, whose stories it learns from, and its reference.
        seed: of the world, and of every draw.
        start: the artifact of the world, with the model after SFT.
    """
    from ddpo_lib.sampling.engines import open_trained  # noqa: F401, imports take seconds that no round should count
    from ddpo_lib.training.train import train_preferences  # noqa: F401, likewise

    _spare_the_collector()
    plan, sft = profile.online_world, run.path(start) / "trained"
    for left in folder.glob("round-*"):  # of a row that was killed
        shutil.rmtree(left)
    numbers = range(1, plan.rounds + 1)
    first = run.table(start, "samples.parquet")  # those of its model after SFT
    policy, found = sft, [{"round": 0, **_describe_stories(profile, first, seed)}]
    for part in [[*numbers]] if row.together else [[number] for number in numbers]:
        here = folder / f"round-{part[-1]}"
        here.mkdir()
        sampled = {"current": policy, "start": sft, "corpus": None}[row.source]
        began = time.process_time()
        pool = pd.concat([make_pool(profile, sampled, number, seed, run.path(start)) for number in part])
        pool = score(pool.reset_index(drop=True), plan.noise, [seed, part[-1]])
        seconds = {"sampling_seconds": time.process_time() - began}
        began = time.process_time()
        learned = whole(pool)
        pairs, vectors, steps = _train(profile, row, learned, policy, sft, seed + part[-1], here)
        seconds |= {"training_seconds": time.process_time() - began}
        vectors |= {name: world_vectors(learned, name) for name in SPACES if name not in vectors}
        about = describe_pool(pool, learned, pairs, vectors) | {"steps": steps}
        if policy != sft:
            shutil.rmtree(policy.parent)
        policy = here / "trained"
        texts = _sample(profile, policy, seed, run.path(start), whole=part[-1] == plan.rounds)
        found.append({"round": part[-1], **_describe_stories(profile, texts, seed), **about, **seconds})
    pd.DataFrame(found).to_parquet(folder / "rounds.parquet")
    shutil.rmtree(policy.parent)


def make_pool(profile: Profile, sampled: Path | None, number: int, seed: int, place: Path) -> pd.DataFrame:
    """The stories of a round without scores: `prompt_id prompt response_id text finished`.

    Args:
        sampled: folder of the model that writes them; None: they are responses of the corpus, and no round reads a
            response again that an earlier one has read.
        number: of the round, from 1.
        place: of the world's corpus.

    Raises:
        InputError: the corpus has too few responses.
    """
    from ddpo_lib.sampling.engines import open_trained
    from ddpo_lib.sampling.generate import generate

    plan, corpus = profile.online_world, pd.read_parquet(place / "corpus.parquet")
    prompts = draw_prompts(corpus, plan.prompts, number, seed)
    if sampled is None:
        return _read_responses(corpus, plan, number, seed).assign(finished=True)
    engine = open_trained(_model(sampled), sampled)
    texts = generate(engine, prompts, _sampling(plan.samples), seed + 1000 * number)  # other seeds than of measuring
    ids = texts["prompt_id"] + f"-r{number}-" + texts["sample"].astype(str).str.zfill(4)
    return texts[["prompt_id", "prompt", "text", "finished"]].assign(response_id=ids)


def _read_responses(corpus: pd.DataFrame, plan: OnlineWorld, number: int, seed: int) -> pd.DataFrame:
    earlier = [draw_prompts(corpus, plan.prompts, one, seed) for one in range(1, number + 1)]
    times = pd.concat(earlier)["prompt_id"].value_counts()  # how often each has been asked, with this round
    place = corpus.groupby("prompt_id").cumcount()
    asked = corpus["prompt_id"].map(times).fillna(0)
    now = corpus["prompt_id"].isin(earlier[-1]["prompt_id"])
    read = corpus[now & (place >= (asked - 1) * plan.samples) & (place < asked * plan.samples)]
    if len(read) < plan.prompts * plan.samples:
        raise InputError(
            f"online_world: round {number} of a row with `source: corpus` finds {len(read)} responses that were not "
            f"read before, and needs {plan.prompts * plan.samples}; lower rounds, prompts or samples"
        )
    return read[["prompt_id", "prompt", "text", "response_id"]]


def score(pool: pd.DataFrame, noise: float, seed: list[int]) -> pd.DataFrame:
    """The pool with the parser's view, `readable good`, and `score`: that of a good or a bad story, plus noise.

    Args:
        pool: rows with `prompt` and `text`.
        noise: its standard deviation.
        seed: of the noise.
    """
    told = modes.read_modes(pool)
    good = told["faithful"] & ~told["flawed"].astype(bool)
    error = np.random.default_rng([*seed, 2]).normal(0, noise, len(pool))
    return pool.assign(readable=told["plot"] >= 0, good=good, score=np.where(good, GOOD, BAD) + error)


def _train(
    profile: Profile, row: OnlineRow, learned: pd.DataFrame, policy: Path, sft: Path, seed: int, folder: Path
) -> tuple[pd.DataFrame, dict[str, np.ndarray], int]:
    """Train on the pairs of whole stories; returns the pairs, the vectors that decided them, and the steps."""
    from ddpo_lib.measures.surprisal import mean_surprisal
    from ddpo_lib.pairs.arms import training_pairs, with_equal_steps
    from ddpo_lib.pairs.rules import make_pairs
    from ddpo_lib.training.train import train_preferences

    arm, preference = row.arm, profile.worlds.preference
    vectors = {name: world_vectors(learned, name) for name in arm.spaces()}
    surprisal = mean_surprisal(learned, _model(policy), policy) if arm.picks_by_probability() else None
    pairs = training_pairs(learned, vectors, arm, profile.data.gap, seed, surprisal)
    optimiser = preference.dpo if arm.loss == "dpo" else preference.orpo
    arm = with_equal_steps(arm, len(pairs), len(make_pairs(learned, profile.data.gap, seed)), optimiser)
    reference = sft if row.reference == "fixed" and policy != sft else None
    train_preferences(pairs, arm, policy, _model(policy), preference, LONGEST, seed, folder, reference=reference)
    log = json.loads((folder / "log.json").read_text(encoding="utf-8"))
    return pairs, vectors, max(entry["step"] for entry in log)


def describe_pool(
    pool: pd.DataFrame, learned: pd.DataFrame, pairs: pd.DataFrame, vectors: dict[str, np.ndarray]
) -> dict:
    """What a round learned from.

    Args:
        pool: of `score`.
        learned: those of its rows that pairs are made of.
        pairs: of `arms.training_pairs`.
        vectors: name of a space -> (n, d), one row per row of `learned`; at least `SPACES`.

    Returns:
        Counts: `samples` of the pool, `left_out` (blank or cut), `pairs`. Shares of the pool: `pool_readable` and
        `pool_good`. `pool_semantic` and `pool_style`: the mean distance of a story to the others of its prompt.
        `pressure`: the mean weight of a pair. `winners_share`: the weight of all pairs over the number of stories, the
        sum of all weights; 0.5 if each story is in a pair and winners deviate as much as losers. `bad_winners`: the
        share of the weight on winners that are not good. `zero_winners`: the share of pairs with weight 0.
    """
    weight = pairs.get("weight", pd.Series(1.0, pairs.index)).to_numpy()
    good = learned.set_index("response_id")["good"].loc[pairs["chosen_id"]].to_numpy()
    return {
        "samples": len(pool),
        "left_out": len(pool) - len(learned),
        "pairs": len(pairs),
        "pool_readable": float(pool["readable"].mean()),
        "pool_good": float(pool["good"].mean()),
        **{f"pool_{name}": _deviation(learned, vectors[name]) for name in SPACES},
        "pressure": float(weight.mean()),
        "winners_share": float(weight.sum() / len(learned)),
        "bad_winners": float(np.average(~good, weights=weight)) if weight.any() else float("nan"),
        "zero_winners": float((weight == 0).mean()),
    }


def _sample(profile: Profile, trained: Path, seed: int, place: Path, *, whole: bool) -> pd.DataFrame:
    """Stories of a model for held-out prompts; half as many before the last round, to save time."""
    settings = profile.worlds
    if not whole:
        settings = settings.model_copy(update={"samples": max(2, settings.samples // 2)})
    return sample(trained, pd.read_parquet(place / "corpus.parquet"), settings, seed)


def _describe_stories(profile: Profile, texts: pd.DataFrame, seed: int) -> dict:
    """`modes.measure` of a model's stories for held-out prompts, and their mean deviation in each of `SPACES`."""
    world = world_of(profile.worlds, MAIN_WORLD, seed)
    measured = _measure(texts, world, f"a row of `online_world`, seed {seed}")
    full = texts[texts["text"].str.strip() != ""].reset_index(drop=True)  # a blank text has no vector
    return measured | {name: _deviation(full, world_vectors(full, name)) for name in SPACES}


def _deviation(stories: pd.DataFrame, vectors: np.ndarray) -> float:
    """The mean distance of a story to the others of its prompt."""
    distance = mean_distance(vectors, stories["prompt_id"].astype("category").cat.codes.to_numpy())
    return float(np.nanmean(distance))  # a story that is alone has no distance
