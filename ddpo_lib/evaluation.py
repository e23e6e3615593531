"""Samples of every arm -> quality and diversity by prompt, whole and at one length, with intervals (the evaluation)."""

import logging

import numpy as np
import pandas as pd

from ddpo_lib.corpus import EMPTY, is_blank
from ddpo_lib.diversity import count_vocabulary, matched_length, pairwise_distance, truncate
from ddpo_lib.embed import Space, embed
from ddpo_lib.errors import InputError
from ddpo_lib.fronts import compare_fronts, matched
from ddpo_lib.measures import MEASURES, N, measure
from ddpo_lib.quality import Reward
from ddpo_lib.stats import compare, plain

log = logging.getLogger(__name__)

HEADLINE = ("quality", "semantic", "style")  # the paper's three axes
GOLD = "gold"  # the corpus's own responses to the held-out prompts
LENGTHS = ("whole", "matched")


def score_by_prompt(
    tables: dict[str, pd.DataFrame], reward: Reward, spaces: dict[str, Space], *, baseline: str, to_match: list[str]
) -> tuple[pd.DataFrame, dict]:
    """Every measure of every arm, by prompt: of the samples as they are, and cut to one length.

    Several measures reward short texts, or long ones. At matched length each sample is cut to the shortest arm's
    median of words; samples that are shorter stay as they are. Quality is always that of the whole sample.

    Args:
        tables: by arm, a row a sample: `prompt_id prompt text`, and `draw` or `seed` where a prompt has several sets of
            samples. A prompt needs two samples in a set; sets with fewer are left out.
        reward: scores a prompt's responses, see `quality`.
        spaces: by name, "semantic" and "style" among them.
        baseline: the arm whose median score is the bar of the measures that count good samples alone.
        to_match: the arms whose shortest sets the matched length.

    Returns:
        A row an arm, prompt, seed and length ("whole" or "matched"), with a column a measure, the mean over draws;
        and what all arms share: `bar`, `vocabulary` (distinct bigrams), `words` (the matched length).

    Raises:
        InputError: no arm has a prompt with two samples, or the baseline has none.
    """
    tables = {arm: _whole_sets(table, arm) for arm, table in tables.items()}
    tables = {arm: table for arm, table in tables.items() if len(table)}
    if baseline not in tables:
        raise InputError(f"{baseline}: no prompt has two samples, and the other arms are compared with it")
    scores = {arm: _score(table, reward) for arm, table in tables.items()}
    texts = {arm: table["text"].tolist() for arm, table in tables.items()}
    shared = {
        "bar": float(np.median(scores[baseline])),
        "vocabulary": count_vocabulary([text for of in texts.values() for text in of], N),
        "words": matched_length({arm: of for arm, of in texts.items() if arm in to_match}),
    }
    settings = {"vocabulary": shared["vocabulary"], "bar": shared["bar"]}
    parts = []
    for arm, table in tables.items():
        keys = table[["prompt_id", "seed", "draw"]]
        groups = keys.groupby(["prompt_id", "seed", "draw"], sort=True).ngroup().to_numpy()
        named = keys.assign(group=groups).drop_duplicates("group")
        for length in LENGTHS:
            of = texts[arm] if length == "whole" else truncate(texts[arm], shared["words"])
            vectors = {name: _embed_distinct(of, space) for name, space in spaces.items()}
            measured = measure(of, groups, vectors, scores[arm], **settings).merge(named, on="group")
            by_prompt = measured.groupby(["prompt_id", "seed"], sort=True)[list(MEASURES)].mean().reset_index()
            parts.append(by_prompt.assign(arm=arm, length=length))
    return pd.concat(parts, ignore_index=True), shared


def score_sweep(samples: pd.DataFrame, reward: Reward, spaces: dict[str, Space]) -> pd.DataFrame:
    """Quality and mean pairwise distance of each prompt's samples, by arm and temperature.

    Args:
        samples: a row a sample: `arm temperature prompt_id prompt text`.
        reward, spaces: as in `score_by_prompt`.

    Returns:
        `arm temperature prompt_id quality` and a column a space.
    """
    keys = ["arm", "temperature", "prompt_id"]
    samples = samples.assign(quality=_score(samples, reward))
    groups = samples.groupby(keys, sort=True).ngroup().to_numpy()
    found = samples.groupby(keys, sort=True)["quality"].mean().reset_index()
    for name, space in spaces.items():
        found[name] = pairwise_distance(_embed_distinct(samples["text"].tolist(), space), groups)[1]
    return found


def draw_sets(table: pd.DataFrame, size: int, draws: int, seed: int) -> pd.DataFrame:
    """Random sets of a prompt's responses, so that people are measured on as many as a model is.

    Args:
        table: a row a response, with `prompt_id`.
        size: responses a set; a prompt with fewer gives all it has.
        draws: sets a prompt; each is drawn without replacement, one set independently of the next.
        seed: of the draws.

    Returns:
        The rows of all sets, with a column `draw`.
    """
    rng = np.random.default_rng(seed)
    places = list(table.reset_index(drop=True).groupby("prompt_id", sort=True).indices.values())
    chosen = [(rng.permutation(rows)[:size], draw) for draw in range(draws) for rows in places]
    parts = [table.iloc[rows].assign(draw=draw) for rows, draw in chosen]
    return pd.concat(parts, ignore_index=True)


def summarise(
    by_prompt: pd.DataFrame, *, draws: int, confidence: float, seed: int, baseline: str, family: list[str]
) -> dict:
    """Means with intervals for every arm, and paired differences to the baseline arm.

    Args:
        by_prompt: of `score_by_prompt`, of one length.
        draws, confidence, seed: of the bootstrap over prompts, and over seeds where there are several.
        baseline: the arm that the others are compared with, over the prompts that both have.
        family: the arms whose p is corrected for their number (Holm).

    Returns:
        Under "arms", by arm and measure, a mapping with the fields of `stats.Interval`; under "differences" likewise
        those of `stats.Difference`. A measure of which some arm has no value is left out.
    """
    arms = list(dict.fromkeys(by_prompt["arm"]))
    known = by_prompt.groupby("arm")[[name for name in MEASURES if name in by_prompt]].count().min()
    names = [name for name, least in known.items() if least]
    chosen = [arms.index(arm) for arm in family if arm in arms and arm != baseline]
    found = compare(
        _cube(by_prompt, arms, names),
        baseline=arms.index(baseline),
        draws=draws,
        confidence=confidence,
        seed=seed,
        family=chosen,
    )
    result = {
        "arms": {arm: dict(zip(names, means, strict=True)) for arm, means in zip(arms, found.means, strict=True)},
        "differences": {arms[a]: dict(zip(names, row, strict=True)) for a, row in found.differences.items()},
    }
    return plain(result)


def summarise_sweep(
    by_prompt: pd.DataFrame, *, baseline: str, temperature: float, draws: int, confidence: float, seed: int
) -> dict:
    """Quality-diversity fronts of arms sampled at several temperatures, and arms at the baseline's diversity.

    Args:
        by_prompt: of `score_sweep`.
        baseline: the arm that the others are compared with.
        temperature: the one at which an arm is held against the baseline's curve.
        draws, confidence, seed: of the bootstrap over prompts.

    Returns:
        A mapping for JSON: `temperature`, `temperatures`, `prompts`, and under `spaces` for each space: `reference`,
        by arm `curves` (temperature, diversity and quality of each point), `hypervolume`, `differences` of
        hypervolumes to the baseline's, and `matched`, of `fronts.Matched`.
    """
    arms = list(dict.fromkeys(by_prompt["arm"]))
    temperatures = sorted(by_prompt["temperature"].unique().tolist())
    prompts = sorted(by_prompt["prompt_id"].unique())

    def cube(name: str) -> np.ndarray:  # (arms, prompts, temperatures)
        wide = by_prompt.pivot(index=["arm", "prompt_id"], columns="temperature", values=name)
        wide = wide.reindex(index=pd.MultiIndex.from_product([arms, prompts]), columns=temperatures)
        return wide.to_numpy().reshape(len(arms), len(prompts), len(temperatures))

    quality, of = cube("quality"), arms.index(baseline)
    options = {"baseline": of, "draws": draws, "confidence": confidence, "seed": seed}
    place, spaces = temperatures.index(temperature), {}
    for space in [column for column in by_prompt if column not in ("arm", "temperature", "prompt_id", "quality")]:
        diversity = cube(space)
        found = compare_fronts(quality, diversity, **options)
        curves = [
            [{"temperature": t, "diversity": x, "quality": y} for t, (x, y) in zip(temperatures, points, strict=True)]
            for points in found.points.tolist()
        ]
        spaces[space] = {
            "reference": dict(zip(("diversity", "quality"), found.reference, strict=True)),
            "curves": dict(zip(arms, curves, strict=True)),
            "hypervolume": dict(zip(arms, found.hypervolumes, strict=True)),
            "differences": {arms[a]: difference for a, difference in found.differences.items()},
            "matched": {
                arm: matched(quality, diversity, arm=a, temperature=place, **options)
                for a, arm in enumerate(arms)
                if arm != baseline
            },
        }
    return plain({"temperature": temperature, "temperatures": temperatures, "prompts": len(prompts), "spaces": spaces})


def describe_samples(samples: pd.DataFrame) -> dict:
    """How many samples, how long, how many blank, repeated or cut at the token limit."""
    texts = samples["text"]
    return {
        "samples": len(samples),
        "prompts": int(samples["prompt_id"].nunique()),
        "words": float(np.mean([len(text.split()) for text in texts])) if len(texts) else 0.0,
        "blank": sum(map(is_blank, texts)),
        "repeated": int(samples.duplicated(["prompt_id", "text"]).sum()),
        "cut": int((~samples["finished"]).sum()),
    }


def _whole_sets(table: pd.DataFrame, arm: str) -> pd.DataFrame:
    """Only sets of two samples or more, each with its seed and draw; says how many were left out."""
    table = table.assign(**{name: 0 for name in ("seed", "draw") if name not in table})
    size = table.groupby(["prompt_id", "seed", "draw"])["text"].transform("size")
    alone = table[size < 2]["prompt_id"].nunique()
    if alone:
        log.warning("%s: %d prompts have fewer than two samples and are left out of its measures", arm, alone)
    return table[size >= 2].reset_index(drop=True)


def _score(table: pd.DataFrame, reward: Reward) -> np.ndarray:
    """(n,) scores; a text that stands in several draws is scored once."""
    distinct = table[["prompt", "text"]].drop_duplicates()
    scores = distinct.assign(judged=reward.score(distinct["prompt"].tolist(), distinct["text"].tolist()))
    return table.merge(scores, on=["prompt", "text"], how="left")["judged"].to_numpy()


def _embed_distinct(texts: list[str], space: Space) -> np.ndarray:
    codes, distinct = pd.factorize(pd.Series([text if text.strip() else EMPTY for text in texts]))
    return embed(distinct.tolist(), space)[codes]


def _cube(by_prompt: pd.DataFrame, arms: list[str], names: list[str]) -> np.ndarray:
    """(arms, measures, prompts, seeds), NaN where an arm lacks a prompt; an arm of one seed stands for all of them."""
    prompts, seeds = (sorted(by_prompt[column].unique()) for column in ("prompt_id", "seed"))
    cube = np.full((len(arms), len(names), len(prompts), len(seeds)), np.nan)
    for a, arm in enumerate(arms):
        rows = by_prompt[by_prompt["arm"] == arm]
        own = sorted(rows["seed"].unique())
        for m, name in enumerate(names):
            wide = rows.pivot(index="prompt_id", columns="seed", values=name).reindex(index=prompts)
            cube[a, m] = wide[own[0]].to_numpy()[:, None] if len(own) == 1 else wide.reindex(columns=seeds).to_numpy()
    return cube[..., 0] if len(seeds) == 1 else cube
