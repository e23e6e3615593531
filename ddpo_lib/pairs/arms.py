"""A corpus, its vectors and an arm -> the pairs that the arm trains on, each with its weight."""

import math
from collections.abc import Callable, Mapping

import numpy as np
import pandas as pd

from ddpo_lib.base.errors import InputError
from ddpo_lib.deviation.distances import mean_distance
from ddpo_lib.deviation.weighting import weights
from ddpo_lib.pairs.divpo import diversity_by_words, weights_within
from ddpo_lib.pairs.redipo import make_redipo_pairs
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
    """The pairs that an arm learns from, among the responses that it keeps (paper, ablation on responses per prompt).

    Deviations and weights are those among the kept responses to a prompt, both winners and losers, so a prompt's
    weights sum to the number of its kept responses. A pair has the weight of its winner, so the pairs need not weigh 1
    on average (`sum_weights`). With `arm.rescale`, the weights of all pairs are divided by their mean.

    With `arm.weight_of` "difference", a pair weighs the sum over spaces of how much more its winner deviates than its
    loser, as mean cosine distances, and 0 where it deviates less. This is the weight of CrPO (Creative Preference
    Optimization, 2025) with deviation as the measure and coefficients of 1.

    Args:
        corpus: the table of `corpus.read_corpus`, only its training prompts.
        vectors: name of a space -> (n, d), one row per row of the corpus; at least the arm's spaces.
        arm: which responses are kept, how they make pairs, and which spaces weight the pairs.
        gap: as in `pairs.make_pairs`, in upvotes.
        seed: seed of every draw.
        surprisal: (n,) from `surprisal.mean_surprisal`, for an arm that picks by probability.

    Returns:
        One row per pair, as in `pairs.make_pairs`; for a weighted arm also `weight`, the deviation weight of the
        winner, or CrPO's difference. For DivPO's rule `attrs["dropped"]` counts as in `pairs.make_divpo_pairs`.

    Raises:
        InputError: no pair can be made, or every winner has weight 0 and the arm rescales.
        ValueError: an arm that picks by probability gets no `surprisal`, or a wrong number of values.
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
    elif arm.redipo is not None:
        distance = np.mean([_distances(kept, spaces[name]) for name in arm.redipo.spaces], axis=0)
        pairs = make_redipo_pairs(kept, distance, arm.redipo.band, arm.redipo.max_pairs, seed)
    elif pairs is None:
        pairs = make_pairs(kept, gap, seed)
    if arm.weights:
        pairs["weight"] = _pair_weights(kept, pairs, [spaces[name] for name in arm.weights], arm)
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

    Over all responses that the arm keeps, weights sum to their number by construction (paper, normalised deviation).
    Over the winners they need not sum to the number of winners. They do so on average if winners deviate as much as
    other responses.

    Args:
        corpus, vectors, arm, gap, seed: as in `training_pairs`.

    Returns:
        One row per prompt, by `prompt_id`: `responses`, the number that is kept, and their `weight`; `winners`, their
        number, and their `winner_weight`, both 0 for a prompt without a pair.

    Raises:
        InputError: as in `training_pairs`.
    """
    rows, _ = _keep(corpus, arm, gap, seed)
    kept = corpus.iloc[rows].reset_index(drop=True)
    kept["weight"] = _weights(kept, [vectors[name][rows] for name in arm.weights], arm)
    pairs = training_pairs(corpus, vectors, arm, gap, seed)
    sums = kept.groupby("prompt_id")["weight"].agg(responses="size", weight="sum")
    of_winners = pairs.groupby("prompt_id")["weight"].agg(winners="size", winner_weight="sum")
    return sums.join(of_winners).fillna({"winners": 0, "winner_weight": 0.0}).astype({"winners": int})


def with_equal_steps(arm: Arm, pairs: int, every: int, optimiser: Optimiser) -> Arm:
    """For an arm with `equal_steps`, set the epochs that give as many steps as training on all pairs of the gap rule.

    Args:
        arm: an arm of the profile.
        pairs: number of pairs that it trains on.
        every: number of pairs that the gap rule makes if nothing is cut.
        optimiser: its epochs are those of an arm that keeps all pairs.

    Returns:
        The arm with its `epochs` set and `equal_steps` off; any other arm as it is.
    """
    if not arm.equal_steps:
        return arm
    batch = optimiser.batch_size * optimiser.accumulation * optimiser.devices
    epochs = optimiser.epochs * math.ceil(every / batch) / math.ceil(pairs / batch)
    # the trainer rounds epochs times batches up; a rounding error in the product must not add a step
    return arm.model_copy(update={"epochs": math.nextafter(epochs, 0), "equal_steps": False})


def _keep(corpus: pd.DataFrame, arm: Arm, gap: float, seed: int) -> tuple[np.ndarray, pd.DataFrame | None]:
    """Rows of the corpus that the arm sees, in order; and its pairs, if they decide which rows it sees."""
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
    """The diversity that `pairs.make_divpo_pairs` ranks responses by."""
    if rule.criterion == "distance":
        return weights_within([spaces[name] for name in rule.spaces])
    if rule.criterion == "words":
        return diversity_by_words(kept["text"].tolist(), kept["prompt_id"].astype("category").cat.codes.to_numpy())
    return surprisal


def _divpo_number(kept: pd.DataFrame, seed: int) -> int:
    """How many pairs DivPO's default rule makes from the same responses; this number does not depend on diversity."""
    rule = DivPO()
    return len(make_divpo_pairs(kept, np.zeros(len(kept)), rule.rho, rule.max_pairs, seed, threshold=rule.threshold))


def _with_mean_one(weight: pd.Series) -> pd.Series:
    if not weight.any():
        raise InputError("arm, field `rescale`: every winner has weight 0; set a `floor`, or keep more responses")
    return weight / weight.mean()


def _pair_weights(kept: pd.DataFrame, pairs: pd.DataFrame, spaces: list[np.ndarray], arm: Arm) -> np.ndarray:
    """The weight of each pair, >= 0: its winner's, or a sum of differences."""

    def of(values: np.ndarray, side: str) -> np.ndarray:
        return pd.Series(values, index=kept["response_id"]).loc[pairs[side]].to_numpy()

    if arm.weight_of == "winner":
        return of(_weights(kept, spaces, arm), "chosen_id")
    distances = [_distances(kept, space) for space in spaces]
    return np.sum([np.maximum(of(d, "chosen_id") - of(d, "rejected_id"), 0) for d in distances], axis=0)


def _distances(kept: pd.DataFrame, space: np.ndarray) -> np.ndarray:
    """(n,) mean distances to the other kept responses of the prompt."""
    return mean_distance(space, kept["prompt_id"].astype("category").cat.codes.to_numpy())


def _weights(kept: pd.DataFrame, spaces: list[np.ndarray], arm: Arm) -> np.ndarray:
    """(n,) weights >= 0 that sum within a prompt to the number of its responses."""
    groups = kept["prompt_id"].astype("category").cat.codes.to_numpy()
    weight = weights([_distances(kept, space) for space in spaces], groups, scale=arm.scale, floor=arm.floor)
    if arm.power == 1:
        return weight
    raised = pd.Series(weight**arm.power)
    sizes = raised.groupby(groups)
    return (raised * sizes.transform("size") / sizes.transform("sum")).to_numpy()
