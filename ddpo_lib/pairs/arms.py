"""A corpus, its vectors and an arm -> the pairs that the arm trains on, each with its weight."""

import math
from collections.abc import Callable, Mapping

import numpy as np
import pandas as pd

from ddpo_lib.base.errors import InputError
from ddpo_lib.deviation.distances import mean_distance
from ddpo_lib.deviation.weighting import weights
from ddpo_lib.pairs.divpo import diversity_by_words, weights_within
from ddpo_lib.pairs.rules import make_divpo_pairs, make_pairs
from ddpo_lib.profiles.settings import Arm, DivPO, Optimiser


def training_pairs(
    corpus: pd.DataFrame,
    vectors: Mapping[str, np.ndarray],
    arm: Arm,
    gap: float = 5,
    seed: int = 0,
    surprisal: np.ndarray | None = None,
) -> pd.DataFrame:
    """What an arm learns from, of the responses that it keeps (paper, ablation on responses per prompt).

    Deviations and weights are those among the responses to a prompt that are kept, winners and losers alike, so they
    sum to that number. A pair has the weight of its winner, and so need not weigh 1 on average (`sum_weights`); with
    `arm.rescale` the weights of the pairs, of all prompts together, are divided by their mean.

    Args:
        corpus: the table of `corpus.read_corpus`, its training prompts alone.
        vectors: a name a space -> (n, d), a row a row of the corpus; the arm's spaces at least.
        arm: which responses are kept, which make pairs, and what weighs them.
        gap: of `pairs.make_pairs`.
        seed: of every draw.
        surprisal: (n,) of `surprisal.mean_surprisal`, for an arm that picks by probability.

    Returns:
        A row a pair, as `pairs.make_pairs`, and `weight`, the deviation weight of the winner, for a weighted arm. For
        DivPO's rule `attrs["dropped"]` counts as in `pairs.make_divpo_pairs`.

    Raises:
        InputError: no pair can be made, or every winner has weight 0 and the arm rescales.
        ValueError: an arm that picks by probability comes without `surprisal`, or with a wrong number of values.
    """
    rows, pairs = _keep(corpus, arm, gap, seed)
    kept = corpus.iloc[rows].reset_index(drop=True)
    spaces = {name: vectors[name][rows] for name in arm.spaces()}
    if arm.divpo is not None:
        rule = arm.divpo
        if rule.criterion == "probability" and np.shape(surprisal) != (len(corpus),):
            raise ValueError(
                f"surprisal: picking by probability needs {len(corpus)} numbers, got {np.shape(surprisal)}"
            )
        diversity = _diversity(kept, spaces, rule, None if surprisal is None else surprisal[rows])
        pairs = make_divpo_pairs(kept, diversity, rule.rho, rule.max_pairs, seed, threshold=rule.threshold)
    elif pairs is None:
        pairs = make_pairs(kept, gap, seed)
    if arm.weights:
        weight = _weights(kept, [spaces[name] for name in arm.weights], arm)
        pairs["weight"] = pd.Series(weight, index=kept["response_id"]).loc[pairs["chosen_id"]].to_numpy()
    most = _divpo_number(kept, seed) if arm.pairs == "divpo" else arm.pairs
    if most is not None and most < len(pairs):
        drawn = np.random.default_rng(seed).choice(len(pairs), most, replace=False)
        pairs = pairs.iloc[np.sort(drawn)].reset_index(drop=True)
    if arm.rescale:
        pairs["weight"] = _with_mean_one(pairs["weight"])
    return pairs


def sum_weights(
    corpus: pd.DataFrame, vectors: Mapping[str, np.ndarray], arm: Arm, gap: float = 5, seed: int = 0
) -> pd.DataFrame:
    """Two sums of weights for each prompt of a weighted arm, with pairs by the gap rule.

    Over all responses that the arm keeps, weights sum to their number, by construction (paper, normalised deviation).
    Over the winners alone they need not sum to the number of winners: they do on average where a winner deviates as
    much as any other response.

    Args:
        corpus, vectors, arm, gap, seed: as in `training_pairs`.

    Returns:
        A row a prompt, by `prompt_id`: `responses` that are kept and their `weight`; `winners` and their
        `winner_weight`, both 0 for a prompt without a pair.

    Raises:
        InputError: as `training_pairs`.
    """
    rows, _ = _keep(corpus, arm, gap, seed)
    kept = corpus.iloc[rows].reset_index(drop=True)
    kept["weight"] = _weights(kept, [vectors[name][rows] for name in arm.weights], arm)
    pairs = training_pairs(corpus, vectors, arm, gap, seed)
    sums = kept.groupby("prompt_id")["weight"].agg(responses="size", weight="sum")
    of_winners = pairs.groupby("prompt_id")["weight"].agg(winners="size", winner_weight="sum")
    return sums.join(of_winners).fillna({"winners": 0, "winner_weight": 0.0}).astype({"winners": int})


def with_equal_steps(arm: Arm, pairs: int, every: int, optimiser: Optimiser) -> Arm:
    """An arm that asks for equal steps, with the epochs that give as many as all pairs take; any other as it is.

    Args:
        arm: of the profile.
        pairs: that it trains on.
        every: pairs that the gap rule makes where nothing is cut.
        optimiser: its epochs are those of an arm that keeps all; on one device.
    """
    if not arm.equal_steps:
        return arm
    batch = optimiser.batch_size * optimiser.accumulation
    epochs = optimiser.epochs * math.ceil(every / batch) / math.ceil(pairs / batch)
    # the trainer rounds epochs times batches up: rounding in the product must not add a step
    return arm.model_copy(update={"epochs": math.nextafter(epochs, 0), "equal_steps": False})


def _keep(corpus: pd.DataFrame, arm: Arm, gap: float, seed: int) -> tuple[np.ndarray, pd.DataFrame | None]:
    """Rows of the corpus that the arm sees, in order; and its pairs, where those decide which."""
    if arm.responses is None:
        return np.arange(len(corpus)), None
    if arm.best_first:
        pairs = make_pairs(corpus, gap, seed).sort_values("chosen_score", ascending=False, kind="stable")
        pairs = pairs.groupby("prompt_id").head(arm.responses // 2).sort_index().reset_index(drop=True)
        used = {*pairs["chosen_id"], *pairs["rejected_id"]}
        return np.flatnonzero(corpus["response_id"].isin(used)), pairs
    drawn = [
        np.random.default_rng([seed, *prompt_id.encode()]).permutation(rows)[: arm.responses]
        for prompt_id, rows in corpus.groupby("prompt_id").indices.items()
    ]
    return np.sort(np.concatenate(drawn)), None


def _diversity(
    kept: pd.DataFrame, spaces: Mapping[str, np.ndarray], rule: DivPO, surprisal: np.ndarray | None
) -> np.ndarray | Callable[[np.ndarray], np.ndarray]:
    """What `pairs.make_divpo_pairs` ranks by."""
    if rule.criterion == "distance":
        return weights_within([spaces[name] for name in rule.spaces])
    if rule.criterion == "words":
        return diversity_by_words(kept["text"].tolist(), kept["prompt_id"].astype("category").cat.codes.to_numpy())
    return surprisal


def _divpo_number(kept: pd.DataFrame, seed: int) -> int:
    """How many pairs DivPO's default rule makes of the same responses; what is diverse does not matter to that."""
    rule = DivPO()
    return len(make_divpo_pairs(kept, np.zeros(len(kept)), rule.rho, rule.max_pairs, seed, threshold=rule.threshold))


def _with_mean_one(weight: pd.Series) -> pd.Series:
    if not weight.any():
        raise InputError("arm, field `rescale`: every winner has weight 0; set a `floor`, or keep more responses")
    return weight / weight.mean()


def _weights(kept: pd.DataFrame, spaces: list[np.ndarray], arm: Arm) -> np.ndarray:
    """(n,) weights >= 0 that sum within a prompt to the number of its responses."""
    groups = kept["prompt_id"].astype("category").cat.codes.to_numpy()
    weight = weights([mean_distance(space, groups) for space in spaces], groups, scale=arm.scale, floor=arm.floor)
    if arm.power == 1:
        return weight
    raised = pd.Series(weight**arm.power)
    sizes = raised.groupby(groups)
    return (raised * sizes.transform("size") / sizes.transform("sum")).to_numpy()
