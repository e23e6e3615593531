"""Samples of every arm -> quality and diversity by prompt, and their differences with intervals (paper, evaluation).

Every arm is measured three times: on its whole samples ("whole"), on samples cut to one length ("matched"), and on
only the samples that the model ended itself ("finished"), since the token limit changes the measures of a text it cuts.
"""

import logging
from collections.abc import Mapping

import numpy as np
import pandas as pd

from ddpo_lib.base.errors import InputError
from ddpo_lib.base.files import plain
from ddpo_lib.data.corpus import EMPTY, is_blank
from ddpo_lib.data.words import choose_tokenizer
from ddpo_lib.evaluation.fronts import compare_fronts, matched
from ddpo_lib.measures.diversity import pairwise_distance
from ddpo_lib.measures.lengths import matched_length, truncate
from ddpo_lib.measures.quality import Reward
from ddpo_lib.measures.table import MEASURES, N, measure
from ddpo_lib.measures.word_measures import count_vocabulary
from ddpo_lib.sampling.completions import answered, count_unanswered
from ddpo_lib.spaces.embed import Space, count_overlong, embed
from ddpo_lib.statistics.intervals import compare, holm

log = logging.getLogger(__name__)

HEADLINE = ("quality", "semantic", "style")  # the paper's three axes
GOLD = "gold"  # the corpus's own responses to the held-out prompts
LENGTHS = ("whole", "matched", "finished")
NO_SEED = -1  # the seed of samples that come from no training; they are paired with every seed of an arm
SET = ["prompt_id", "seed", "draw"]  # the columns that identify a set of samples
CUT_APART = 0.10  # two arms are not comparable if their shares of cut samples differ by more


def score_by_prompt(
    tables: dict[str, pd.DataFrame], reward: Reward, spaces: dict[str, Space], *, baseline: str, to_match: list[str]
) -> tuple[pd.DataFrame, dict]:
    """Every measure of every arm, by prompt: of whole samples, of samples cut to one length, and of finished samples.

    Several measures favour short texts, or long ones. At matched length, each sample is cut to the median number of
    words of the shortest arm; shorter samples are unchanged. Quality is always that of the whole sample. Samples at
    matched length are those of the first seed.

    Args:
        tables: by arm, one row per sample: `prompt_id prompt text`; also `draw` or `seed` if a prompt has several sets
            of samples, and `finished` if the limit may have cut some. Sets with fewer than two samples are left out.
        reward: scores responses, see `quality`.
        spaces: by name; "semantic" and "style" are required.
        baseline: the arm whose median score is the bar of the measures that count only good samples.
        to_match: the arms among which the shortest sets the matched length.

    Returns:
        One row per arm, prompt, seed and length ("whole", "matched" or "finished"), with one column per measure, the
        mean over draws; "finished" has only the `HEADLINE` measures. Also the values that all arms share: `bar`,
        `vocabulary` (distinct bigrams), `words` (the matched length), `tokenizer` (of the word measures),
        `overlong` (by space, the number of texts that are longer than it reads).

    Raises:
        InputError: no prompt of the baseline has two samples.
    """
    tables = {arm: _whole_sets(table, arm) for arm, table in tables.items()}
    tables = {arm: table for arm, table in tables.items() if len(table)}
    if baseline not in tables:
        raise InputError(f"{baseline}: no prompt has two samples; the other arms are compared with it, so draw more")
    tables = {arm: table.assign(score=_score(table, reward)) for arm, table in tables.items()}
    texts = {arm: table["text"].tolist() for arm, table in tables.items()}
    every = [text for of in texts.values() for text in of]
    tokenizer = choose_tokenizer(every)
    shared = {
        "bar": float(np.median(tables[baseline]["score"])),
        "vocabulary": count_vocabulary(every, N),
        "words": matched_length({arm: of for arm, of in texts.items() if arm in to_match}, tokenizer),
        "tokenizer": tokenizer,
        "overlong": {name: count_overlong(list(filter(str.strip, every)), space) for name, space in spaces.items()},
    }
    settings = {"vocabulary": shared["vocabulary"], "bar": shared["bar"], "tokenizer": tokenizer}
    parts = []
    for arm, table in tables.items():
        first = table[table["seed"] == table["seed"].min()]
        cut = first.assign(text=truncate(first["text"].tolist(), shared["words"], tokenizer))
        vectors = {name: _embed_distinct(texts[arm], space) for name, space in spaces.items()}
        of_cut = {name: _embed_distinct(cut["text"].tolist(), space) for name, space in spaces.items()}
        parts.append(_measure(table, vectors, **settings).assign(arm=arm, length="whole"))
        parts.append(_measure(cut, of_cut, **settings).assign(arm=arm, length="matched"))
        parts.append(_measure_finished(table, vectors).assign(arm=arm, length="finished"))
    return pd.concat(parts, ignore_index=True), shared


def _measure(table: pd.DataFrame, vectors: dict[str, np.ndarray], **settings) -> pd.DataFrame:
    """Every measure by prompt and seed, averaged over draws."""
    groups = table.groupby(SET, sort=True).ngroup().to_numpy()
    named = table[SET].assign(group=groups).drop_duplicates("group")
    measured = measure(table["text"].tolist(), groups, vectors, table["score"].to_numpy(), **settings)
    measured = measured.merge(named, on="group")
    return measured.groupby(["prompt_id", "seed"], sort=True)[list(MEASURES)].mean().reset_index()


def _measure_finished(table: pd.DataFrame, vectors: dict[str, np.ndarray]) -> pd.DataFrame:
    """The headline measures by prompt and seed over finished samples; sets with fewer than two are left out."""
    rows = np.flatnonzero(table["finished"])
    left = table.iloc[rows].reset_index(drop=True)
    several = (left.groupby(SET)["text"].transform("size") >= 2).to_numpy()
    rows, left = rows[several], left[several].reset_index(drop=True)
    if left.empty:
        return pd.DataFrame(columns=["prompt_id", "seed", *HEADLINE])
    groups = left.groupby(SET, sort=True).ngroup().to_numpy()
    found = left.groupby(SET, sort=True)["score"].mean().rename("quality").reset_index()
    for name, of in vectors.items():
        found[name] = pairwise_distance(of[rows], groups)[1]
    return found.groupby(["prompt_id", "seed"], sort=True)[["quality", *vectors]].mean().reset_index()


def why_not_comparable(samples: dict[str, dict], arm: str, against: str) -> str | None:
    """Why two arms cannot be compared: the token limit cut far more samples of one than of the other. Else None.

    Args:
        samples: by arm, of `describe_samples`; a missing arm, such as the responses of people, counts as not cut.
    """
    shares = [cut_share(samples[name]) if name in samples else 0.0 for name in (arm, against)]
    if None in shares or abs(shares[0] - shares[1]) <= CUT_APART:
        return None
    return f"the token limit cut {shares[0]:.0%} of the samples of {arm} and {shares[1]:.0%} of those of {against}"


def cut_share(about: dict) -> float | None:
    """The share of samples that the token limit cut, among those where it is known; None if it is known for none."""
    return about["cut"] / about["finished_known"] if about["finished_known"] else None


def score_sets(samples: pd.DataFrame, keys: list[str], reward: Reward, spaces: dict[str, Space]) -> pd.DataFrame:
    """Quality and mean pairwise distance of each set of samples.

    Args:
        samples: one row per sample: `prompt text` and the keys.
        keys: the columns that identify a set, such as `arm`, `temperature`, `prompt_id`.
        reward, spaces: as in `score_by_prompt`.

    Returns:
        One row per set: the keys, `quality`, and a column for each space.
    """
    samples = samples.assign(quality=_score(samples, reward))
    groups = samples.groupby(keys, sort=True).ngroup().to_numpy()
    found = samples.groupby(keys, sort=True)["quality"].mean().reset_index()
    for name, space in spaces.items():
        found[name] = pairwise_distance(_embed_distinct(samples["text"].tolist(), space), groups)[1]
    return found


def summarise(by_prompt: pd.DataFrame, *, against: Mapping[str, str | None], confidence: float) -> dict:
    """Means with intervals for every arm, and paired differences of each arm to its twin.

    Args:
        by_prompt: of `score_by_prompt`, of one length.
        against: by arm, the twin that it is compared with, over the prompts and seeds that both have; None for no
            twin. An arm or twin that the table lacks is left out.
        confidence: of the intervals, over prompts and, if there are several, seeds (`intervals.compare`).

    Returns:
        Under "arms", by arm and measure, a mapping with the fields of `intervals.Interval`. Under "differences", for
        every arm with a twin, likewise the fields of `intervals.Difference`. Under "against", the twin of each arm. A
        measure is left out if some arm has no value for it.
    """
    arms = list(dict.fromkeys(by_prompt["arm"]))
    known = by_prompt.groupby("arm")[[name for name in MEASURES if name in by_prompt]].count().min()
    names = [name for name, least in known.items() if least]
    twins = {arm: against.get(arm) for arm in arms if against.get(arm) in arms}
    numbers = [arms.index(twins[arm]) if arm in twins else None for arm in arms]
    found = compare(_cube(by_prompt, arms, names), against=numbers, confidence=confidence)
    result = {
        "arms": {arm: dict(zip(names, means, strict=True)) for arm, means in zip(arms, found.means, strict=True)},
        "differences": {arms[a]: dict(zip(names, row, strict=True)) for a, row in found.differences.items()},
        "against": twins,
    }
    return plain(result)


def correct_over_arms(differences: dict) -> None:
    """Add `p_corrected` to each difference, by Holm over the arms for each measure; for arms that no claim names."""
    for column in {name for row in differences.values() for name in row}:
        cells = [row[column] for row in differences.values() if column in row]
        raw = np.array([np.nan if cell["p"] is None else cell["p"] for cell in cells])
        for cell, p in zip(cells, holm(raw).tolist(), strict=True):
            cell["p_corrected"] = None if np.isnan(p) else p


def summarise_sweep(
    by_prompt: pd.DataFrame, *, baseline: str, temperature: float, draws: int, confidence: float, seed: int
) -> dict:
    """Quality-diversity fronts of arms sampled at several temperatures, and arms at the baseline's diversity.

    Args:
        by_prompt: of `score_sets`, by arm, temperature and prompt.
        baseline: the arm that the others are compared with.
        temperature: the one at which an arm is compared with the baseline's curve.
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
    """The number of samples, their mean length, and how many are blank, repeated or cut at the token limit.

    Samples that are refused or only thoughts are counted as such and as nothing else; no measure counts them.

    `finished_known` is the number of samples for which it is known whether the limit cut them; the column `finished`
    may be None.
    """
    unanswered, samples = count_unanswered(samples), answered(samples)
    texts = samples["text"]
    known = samples["finished"].dropna()
    return {
        "samples": len(samples),
        "prompts": int(samples["prompt_id"].nunique()),
        "words": float(np.mean([len(text.split()) for text in texts])) if len(texts) else 0.0,
        "blank": sum(map(is_blank, texts)),
        "repeated": int(samples.duplicated(["prompt_id", "text"]).sum()),
        "cut": int((~known.astype(bool)).sum()),
        "finished_known": len(known),
        **unanswered,
    }


def _whole_sets(table: pd.DataFrame, arm: str) -> pd.DataFrame:
    """Only sets of at least two samples, each with its seed and draw; a warning gives the number left out."""
    table = answered(table)
    table = table.assign(**{name: of for name, of in (("seed", NO_SEED), ("draw", 0)) if name not in table})
    # responses of people have no such column; they, and samples for which it is unknown, count as finished
    table["finished"] = table["finished"].map(lambda f: f is not False and f != 0) if "finished" in table else True
    size = table.groupby(SET)["text"].transform("size")
    alone = table[size < 2]["prompt_id"].nunique()
    if alone:
        log.warning("%s: %d prompts have fewer than two samples and are left out of its measures", arm, alone)
    return table[size >= 2].reset_index(drop=True)


def _score(table: pd.DataFrame, reward: Reward) -> np.ndarray:
    """(n,) scores; a text that occurs in several draws is scored once."""
    distinct = table[["prompt", "text"]].drop_duplicates()
    scores = distinct.assign(predicted=reward.score(distinct["prompt"].tolist(), distinct["text"].tolist()))
    return table.merge(scores, on=["prompt", "text"], how="left")["predicted"].to_numpy()


def _embed_distinct(texts: list[str], space: Space) -> np.ndarray:
    codes, distinct = pd.factorize(pd.Series([text if text.strip() else EMPTY for text in texts]))
    return embed(distinct.tolist(), space)[codes]


def _cube(by_prompt: pd.DataFrame, arms: list[str], names: list[str]) -> np.ndarray:
    """(arms, measures, prompts, seeds), NaN where an arm lacks a prompt or a seed. The values of an arm without
    training are repeated for every seed. With one seed the last axis is dropped."""
    prompts = sorted(by_prompt["prompt_id"].unique())
    seeds = sorted(set(by_prompt["seed"]) - {NO_SEED}) or [NO_SEED]
    cube = np.full((len(arms), len(names), len(prompts), len(seeds)), np.nan)
    for a, arm in enumerate(arms):
        rows = by_prompt[by_prompt["arm"] == arm]
        untrained = (rows["seed"] == NO_SEED).all()
        for m, name in enumerate(names):
            wide = rows.pivot(index="prompt_id", columns="seed", values=name).reindex(index=prompts)
            cube[a, m] = wide[[NO_SEED]].to_numpy() if untrained else wide.reindex(columns=seeds).to_numpy()
    return cube[..., 0] if len(seeds) == 1 else cube
