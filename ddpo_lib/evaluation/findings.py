"""Vectors and scores -> what deviation is in a corpus: its correlations, zeros, dependence on the space, and noise.

Tables have one row per response and a column `prompt_id`; `groups` is as in `deviation`. Prompts are the units of
every interval (`stats`). Random draws are made per prompt, from the seed, the group's id and the responses, so they
depend neither on the order of the rows nor on the other prompts.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from itertools import combinations

import numpy as np
import pandas as pd

from ddpo_lib.base.stats import Interval, bootstrap_ratio, mean_interval, plain
from ddpo_lib.deviation.distances import mean_distance
from ddpo_lib.deviation.weighting import TIE, weights
from ddpo_lib.pairs.rules import draw_rows

ZERO = 1e-9  # a weight up to this counts as zero
SOURCES = 12  # more sources than this are taken for names of persons, not kinds of writers
FLOOR = 0.1  # the paper's, in its ablation on the number of responses per prompt
ENDS = ("", "_low", "_high")  # of the columns of an estimate and its interval


def correlate_within(
    table: pd.DataFrame, x: str, y: str, *, given: str | None = None, confidence: float
) -> Interval | None:
    """Spearman's rho of two columns within a prompt, mean over prompts.

    Args:
        table: `prompt_id` and the columns; rows with NaN in one of them are left out.
        x, y: names of numeric columns.
        given: a column to hold fixed. Rho is then the partial rank correlation: the correlation that remains after the
            ranks in this column are regressed out.
        confidence: of the t interval over prompts.

    Returns:
        None if no prompt qualifies. A prompt qualifies if it has 3 complete rows (4 with `given`, since 3 always give
        1 or -1), both columns vary, and neither ranks the responses exactly as `given` does.
    """
    rhos = _rhos(table, x, y, given)
    return mean_interval(rhos, confidence=confidence) if len(rhos) else None


def _rhos(table: pd.DataFrame, x: str, y: str, given: str | None) -> np.ndarray:
    """Rho of each prompt that qualifies."""
    columns = list(filter(None, (x, y, given)))
    table = table.dropna(subset=columns)
    prompt = table["prompt_id"]
    ranks = table.groupby(prompt)[columns].rank()
    centred = ranks - ranks.groupby(prompt).transform("mean")

    def product(a: str, b: str) -> pd.Series:
        return (centred[a] * centred[b]).groupby(prompt).sum()

    def rho(a: str, b: str) -> pd.Series:
        return product(a, b) / np.sqrt(product(a, a) * product(b, b))  # 0 / 0 = NaN where one does not vary

    value = rho(x, y)
    if given:
        with_x, with_y = rho(x, given), rho(y, given)
        left = (1 - with_x**2) * (1 - with_y**2)
        value = (value - with_x * with_y) / np.sqrt(left.where(left > 0))
    enough = prompt.groupby(prompt).size() >= (4 if given else 3)
    return value[enough].dropna().to_numpy()


def rank_by_source(table: pd.DataFrame, column: str, *, confidence: float) -> list[tuple[str, Interval]]:
    """The relative rank of each source's responses among those to the same prompt, from 0 (lowest) to 1 (highest).

    Args:
        table: `prompt_id source` and the column; rows where it is NaN are left out.
        column: of numbers, such as deviations. Equal numbers share their rank.
        confidence: of the t interval over prompts.

    Returns:
        Each source and its mean relative rank, the highest first. Only prompts with a response of this source and one
        of another count. Chance gives 0.5.
    """
    table = table.dropna(subset=[column])
    prompts = table.groupby("prompt_id")[column]
    place = (prompts.rank() - 1) / (prompts.transform("size") - 1)
    several = table.groupby("prompt_id")["source"].transform("nunique") > 1
    by_prompt = place[several].groupby([table["source"], table["prompt_id"]]).mean().dropna()
    places = [(source, mean_interval(of, confidence=confidence)) for source, of in by_prompt.groupby(level=0)]
    return sorted(places, key=lambda found: -found[1].mean)


def zero_share(
    vectors: Sequence[np.ndarray],
    groups: np.ndarray,
    sizes: Sequence[int],
    *,
    scores: np.ndarray | None = None,
    gap: float = 5,
    scale: str = "minmax",
    cuts: int = 5,
    draws: int,
    confidence: float,
    seed: int,
) -> pd.DataFrame:
    """Share of responses, and of winners, with weight zero when prompts have n responses (paper, few responses).

    Prompts with at least n responses are cut to n at random, several times. Distances and weights are computed among
    the n, and winners come from the pairs that `pairs.make_pairs` draws from the n.

    Args:
        vectors: one (responses, d) array per space; the weights combine the spaces.
        groups: (responses,) integers.
        sizes: the values of n; one that no prompt reaches gives no row.
        scores: (responses,) floats, NaN where there is none.
        gap: as in `pairs.make_pairs`.
        scale: as in `deviation.weights`.
        cuts: how often each prompt is cut to n.
        draws, confidence, seed: of the bootstrap over prompts; the seed also determines the cuts and pairs.

    Returns:
        One row per size: `n prompts share formula winners winners_share`, the shares with `_low` and `_high`. `formula`
        is 1 - (1 - 1/n)^spaces: the share if each space has one lowest response, independently of the other spaces. It
        does not hold at n = 2, where both responses have the same distance and none has weight zero. `winners` counts
        winners over all cuts; if it is 0, their share is NaN.
    """
    scores = np.full(len(groups), np.nan) if scores is None else np.asarray(scores, dtype=np.float64)
    settings = {"draws": draws, "confidence": confidence, "seed": seed}
    counts = {n: [] for n in sizes}  # per prompt: responses, those at zero, winners, those at zero
    for group, rows in _prompts(groups, scores, *vectors):  # scores first, so that the cuts are the same in every space
        for n in (n for n in sizes if n <= len(rows)):
            rng = _generator(seed, group, n)
            kept = [rng.choice(rows, n, replace=False) for _ in range(cuts)]
            zero = _at_zero(vectors, kept, scale)
            chosen = [draw_rows(scores[cut], gap, rng)[0] for cut in kept]
            won = np.concatenate([at_zero[winners] for at_zero, winners in zip(zero, chosen, strict=True)])
            counts[n].append((zero.size, zero.sum(), len(won), won.sum()))
    rows = []
    for n, prompts in counts.items():
        if prompts:
            responses, at_zero, winners, won = np.array(prompts).T
            share = bootstrap_ratio(at_zero, responses, **settings)
            of_winners = bootstrap_ratio(won, winners, **settings) if winners.any() else None
            row = {"n": n, "prompts": share.prompts, **_columns("share", share)}
            row |= {"formula": 1 - (1 - 1 / n) ** len(vectors), "winners": int(winners.sum())}
            rows.append(row | _columns("winners_share", of_winners))
    return pd.DataFrame(rows)


def _at_zero(vectors: Sequence[np.ndarray], cuts: list[np.ndarray], scale: str) -> np.ndarray:
    """(cuts, n) booleans: which rows of each cut of a prompt have weight zero. Distances are those within the cut."""
    ids = np.arange(len(cuts)).repeat(len(cuts[0]))
    distances = [mean_distance(space[np.concatenate(cuts)], ids) for space in vectors]
    return (weights(distances, ids, scale=scale) <= ZERO).reshape(len(cuts), -1)


def scaled_weights(distances: np.ndarray | Sequence[np.ndarray], groups: np.ndarray) -> pd.DataFrame:
    """Weights of each response by "minmax", by "ratio", and by "minmax" with the paper's floor of 0.1: `floor`."""
    return pd.DataFrame(
        {
            "minmax": weights(distances, groups),
            "ratio": weights(distances, groups, scale="ratio"),
            "floor": weights(distances, groups, floor=FLOOR),
        }
    )


def effective_share(weight: np.ndarray) -> float:
    """(sum w)^2 / (n sum w^2), Kish's effective sample size as a share of n; equal weights give 1."""
    if not len(weight):
        return math.nan
    return float(np.sum(weight) ** 2 / (len(weight) * np.sum(np.square(weight))))


def agreement(
    distances: Mapping[str, np.ndarray],
    groups: np.ndarray,
    winners: np.ndarray,
    *,
    draws: int,
    confidence: float,
    seed: int,
) -> pd.DataFrame:
    """How far each pair of spaces agrees on which responses deviate.

    Args:
        distances: (n,) for each space.
        groups: (n,) integers.
        winners: row numbers of the pairs' winners; may be empty.
        draws, confidence, seed: of the bootstrap over prompts.

    Returns:
        One row per pair of spaces, `first second`, in the order given. Every number is symmetric in the two spaces. All
        but the counts and chances also have `_low` and `_high`.

        - `prompts rho`: Spearman's rho within a prompt; NaN if no prompt qualifies.
        - `top chance`: of the ceil(n/10) responses of a prompt that deviate most in one space, the share that is also
          among those of the other space, mean over prompts with 3 or more responses; chance gives ceil(n/10)/n.
        - `winners apart apart_chance`: the share of winners whose weight (minmax, from one space) in one space is below
          half of that in the other, where two zeros are equal; and this share if the other weight were that of a random
          response to the prompt. NaN without winners.
    """
    settings = {"draws": draws, "confidence": confidence, "seed": seed}
    distances = {name: np.asarray(space) for name, space in distances.items()}
    table = pd.DataFrame({"prompt_id": groups, **distances})
    weight = {name: weights(space, groups) for name, space in distances.items()}
    tenth = {name: _share_of_top(table, name) for name in distances}
    size = table.groupby("prompt_id").size()
    top = np.ceil(size / 10)
    rows = []
    for first, second in combinations(distances, 2):
        rho = correlate_within(table, first, second, confidence=confidence)
        common = ((tenth[first] * tenth[second]).groupby(table["prompt_id"]).sum() / top)[size >= 3]
        overlap = mean_interval(common, confidence=confidence) if len(common) else None
        one, other = weight[first], weight[second]
        by_prompt = pd.Series(_far(one[winners], other[winners])).groupby(groups[winners]).agg(["sum", "size"])
        apart = bootstrap_ratio(by_prompt["sum"], by_prompt["size"], **settings) if len(winners) else None
        row = {"first": first, "second": second, "prompts": rho.prompts if rho else 0, **_columns("rho", rho)}
        row |= _columns("top", overlap) | {"chance": float((top / size)[size >= 3].mean())}
        rows.append(row | {"winners": len(winners)} | _columns("apart", apart))
        rows[-1]["apart_chance"] = _far_by_chance(one, other, groups, winners)
    return pd.DataFrame(rows)


def _far(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Whether the smaller of two weights is below half of the larger."""
    return np.minimum(one, other) < np.maximum(one, other) / 2


def _far_by_chance(one: np.ndarray, other: np.ndarray, groups: np.ndarray, winners: np.ndarray) -> float:
    """The exact expected share of winners with weights apart if one weight were drawn from all of the prompt's."""
    far = []
    rows_of = pd.Series(groups).groupby(groups).indices
    for group, won in pd.Series(winners).groupby(groups[winners]):
        rows, won = rows_of[group], won.to_numpy()
        there, back = (
            _far(mine[won, None], its[None, rows]).mean(axis=1) for mine, its in ((one, other), (other, one))
        )
        far.append(there + back)
    return float(np.concatenate(far).mean() / 2) if far else math.nan


def _share_of_top(table: pd.DataFrame, column: str) -> pd.Series:
    """Membership of each row in its prompt's top tenth: 1 or 0, or a fraction for rows that tie for the last places."""
    prompts = table.groupby("prompt_id")[column]
    above = prompts.rank(method="min", ascending=False) - 1
    tied = prompts.rank(method="max", ascending=False) - above
    return ((np.ceil(prompts.transform("size") / 10) - above) / tied).clip(0, 1)


def split_half(
    vectors: np.ndarray,
    groups: np.ndarray,
    sizes: Sequence[int],
    *,
    splits: int = 20,
    draws: int,
    confidence: float,
    seed: int,
) -> pd.DataFrame:
    """The reliability of deviation: the same responses are compared with two panels without a common response.

    The responses of a prompt are cut to n at random. Two disjoint panels of h = max(1, (n - 1) // 3) responses are
    drawn; the rest are judged. r is the correlation, within prompts, between the judged responses' mean distances to
    the first and to the second panel. It is the sum of the covariances over prompts and splits, over the sum of the
    mean variances of the two panels. So a prompt counts by its variance, and one with an outlier counts more.

    r is the reliability with a panel of h. The deviation in a prompt of n uses n - 1 other responses. Spearman and
    Brown's formula gives its reliability: k r / (1 + (k - 1) r) with k = (n - 1) / h, where a negative r counts as 0.

    The judged responses are in neither panel. If instead each half of the responses were the panel of the other, the
    n^2/4 distances between the halves would count in both deviations. Each has a share of 2/n^2 in the mean over the n
    responses against either half. With pure noise of variance s these means would have a covariance of s/n^2. The
    centred deviations would then have a covariance of -s/n^2 per response and a variance of about 2s/n, so a
    correlation near -1/(2n).

    For responses drawn independently around a mean direction m with covariance C, r is m'Cm / (m'Cm + trace(C^2)/h).
    It is 0 if the responses have no common direction, and large if they have a strong one.

    Args:
        vectors: (responses, d) floats of any length but zero.
        groups: (responses,) integers.
        sizes: the values of n, 4 or more; one that no prompt reaches gives no row.
        splits: how often each prompt is cut and split.
        draws, confidence, seed: of the bootstrap over prompts; the seed also determines the splits.

    Returns:
        One row per size: `n prompts r r_low r_high reliability reliability_low reliability_high`. `prompts` counts
        those whose deviations differ; if there is none, r is NaN.

    Raises:
        ValueError: a size is below 4: two responses are judged, by two panels of at least one.
    """
    if any(n < 4 for n in sizes):
        raise ValueError(f"sizes: expected 4 or more, got {min(sizes)}; two panels need a response each, and two more")
    sums = {n: [] for n in sizes}  # per prompt: covariance and variance
    for group, rows in _prompts(groups, vectors):
        unit = vectors[rows].astype(np.float64)
        unit /= np.linalg.norm(unit, axis=1, keepdims=True)
        distance = 1 - unit @ unit.T
        order = _generator(seed, group).permuted(np.tile(np.arange(len(rows)), (splits, 1)), axis=1)
        for n in (n for n in sizes if n <= len(rows)):
            sums[n].append(_halves(distance, order[:, :n]))
    rows = []
    for n, prompts in sums.items():
        if prompts:
            covariance, variance = np.transpose(prompts)
            r = None
            if variance.any():
                r = bootstrap_ratio(covariance, variance, draws=draws, confidence=confidence, seed=seed)
            row = {"n": n, "prompts": r.prompts if r else 0, **_columns("r", r)}
            rows.append(row | {f"reliability{end}": _lengthened(row[f"r{end}"], n) for end in ENDS})
    return pd.DataFrame(rows)


def needed(row: Mapping[str, float], target: float = 0.7) -> dict[str, float]:
    """Responses per prompt at which deviation reaches a reliability, by Spearman and Brown's formula.

    Args:
        row: of `split_half`.
        target: the reliability, above 0 and below 1.

    Returns:
        `needed needed_low needed_high`: whole numbers of 3 or more, since two responses deviate equally; infinity if r
        is not above zero. `needed_low` comes from the high end of r.
    """
    values = [_size_for(row[f"r{end}"], row["n"], target) for end in ("", "_high", "_low")]
    return {f"needed{end}": value for end, value in zip(ENDS, values, strict=True)}


def _halves(distance: np.ndarray, order: np.ndarray) -> tuple[float, float]:
    """Sums over splits of the covariance of two panels' deviations and of their mean variance, for one prompt.

    Args:
        distance: (m, m), between all responses of the prompt.
        order: (splits, n) row numbers of it; the first h are one panel, the next h the other, the rest are judged.
    """
    h = _panel(order.shape[1])
    judged = order[:, 2 * h :, None]
    one, other = (distance[judged, panel[:, None, :]].mean(axis=2) for panel in (order[:, :h], order[:, h : 2 * h]))
    one, other = (deviation - deviation.mean(axis=1, keepdims=True) for deviation in (one, other))
    variance = np.square([one, other]).sum() / 2
    if variance <= one.size * TIE**2:
        return 0.0, 0.0  # all distances are equal up to rounding
    return float((one * other).sum()), float(variance)


def _panel(n: int) -> int:
    return max(1, (n - 1) // 3)


def _lengthened(r: float, n: int) -> float:
    """Spearman and Brown's formula: from the panel of a prompt of n to the n - 1 other responses."""
    k, r = (n - 1) / _panel(n), float(np.maximum(r, 0.0))
    return k * r / (1 + (k - 1) * r)


def _size_for(r: float, n: int, target: float) -> float:
    if not r > 0:
        return math.inf
    others = _panel(n) * target * (1 - r) / (r * (1 - target))
    return max(3, math.ceil(1 + others - 1e-9))


def collect_findings(
    table: pd.DataFrame,
    vectors: Mapping[str, np.ndarray],
    *,
    gap: float = 5,
    draws: int = 10_000,
    confidence: float = 0.95,
    seed: int = 0,
) -> dict:
    """All of the above for one corpus, as JSON values: numbers, names and None.

    Args:
        table: of `corpus.read_corpus`; a prompt with a single response is left out.
        vectors: (n, d) for each space, one row per row of `table`.
        gap: as in `pairs.make_pairs`.
        draws, confidence, seed: of the bootstrap over prompts; the seed also determines the other draws.

    Returns:
        - `prompts responses scored words`: three counts and the median length in words.
        - `correlations`: rows `x y given prompts rho rho_low rho_high`, within prompts: of words with score; of
          deviation in each space with words and with score; and, with words held fixed, with score and between spaces.
        - `agreement`: the rows of `agreement`, over winners drawn by the rule of training pairs.
        - `effective_share`: for each space, by scale of the weights.
        - `zero_share`: the rows of `zero_share` for each space and each pair of spaces, with `spaces`.
        - `reliability`: the rows of `split_half` for each `space`, with `needed` for 0.7.
        - `sources`: for each `space` and `source` its `prompts place` and interval by deviation; empty if the corpus
          has one source, or more than 12.

        A value is None if the corpus does not determine it, or if no number of responses is enough.
    """
    settings = {"draws": draws, "confidence": confidence, "seed": seed}
    several = (table.groupby("prompt_id")["prompt_id"].transform("size") >= 2).to_numpy()
    table, vectors = table[several], {name: space[several] for name, space in vectors.items()}
    groups = np.unique(table["prompt_id"], return_inverse=True)[1]
    scores = table["score"].to_numpy(dtype=np.float64)
    words = np.array([len(text.split()) for text in table["text"]])
    distances = {name: mean_distance(space, groups) for name, space in vectors.items()}
    sizes = _sizes_to_look_at(groups)

    source = table["source"].to_numpy()
    measured = pd.DataFrame({"prompt_id": groups, "score": scores, "words": words, "source": source, **distances})
    sources = list(distances) if 2 <= measured["source"].nunique() <= SOURCES else []
    pairs = [("words", "score"), *((space, y) for space in vectors for y in ("words", "score"))]
    correlations = [(x, y, None) for x, y in pairs]
    correlations += [(x, y, "words") for x, y in [*pairs[2::2], *combinations(vectors, 2)]]
    prompts = list(_prompts(groups, scores, *vectors.values()))
    winners = [rows[draw_rows(scores[rows], gap, _generator(seed, group))[0]] for group, rows in prompts]
    result = {
        "prompts": len(prompts),
        "responses": len(table),
        "scored": int(np.isfinite(scores).sum()),
        "words": np.median(words) if len(words) else None,
        "correlations": [
            {"x": x, "y": y, "given": given, "prompts": rho.prompts if rho else 0} | _columns("rho", rho)
            for x, y, given in correlations
            for rho in [correlate_within(measured, x, y, given=given, confidence=confidence)]
        ],
        "agreement": _rows(agreement(distances, groups, np.concatenate([[], *winners]).astype(int), **settings)),
        "effective_share": {
            space: {scale: effective_share(weight) for scale, weight in scaled_weights(distance, groups).items()}
            for space, distance in distances.items()
        },
        "zero_share": [
            {"spaces": list(spaces)} | row
            for spaces in [*combinations(vectors, 1), *combinations(vectors, 2)]
            for row in _rows(
                zero_share([vectors[s] for s in spaces], groups, sizes, scores=scores, gap=gap, **settings)
            )
        ],
        "reliability": [
            {"space": name} | row | needed(row)
            for name, space in vectors.items()
            for row in _rows(split_half(space, groups, [n for n in sizes if n >= 4], **settings))
        ],
        "sources": [
            {"space": space, "source": source, "prompts": place.prompts, **_columns("place", place)}
            for space in sources
            for source, place in rank_by_source(measured, space, confidence=confidence)
        ],
    }
    return plain(result)


def _sizes_to_look_at(groups: np.ndarray) -> list[int]:
    """2, 4, 8 and so on up to the size of the largest prompt, and the median size."""
    if not len(groups):
        return []
    sizes = np.unique(groups, return_counts=True)[1]
    return sorted({2**k for k in range(1, int(sizes.max()).bit_length())} | {int(np.median(sizes))})


def _prompts(groups: np.ndarray, *columns: np.ndarray) -> Iterator[tuple[int, np.ndarray]]:
    """Each group's id and rows, in an order that depends on the columns' values and not on the order of the rows."""
    for group, rows in pd.Series(groups).groupby(groups).indices.items():
        yield int(group), np.array(sorted(rows, key=lambda row: [column[row].tobytes() for column in columns]))


def _generator(seed: int, group: int, *more: int) -> np.random.Generator:
    return np.random.default_rng([seed, group % 2**64, *more])


def _columns(name: str, interval: Interval | None) -> dict[str, float]:
    """An estimate and the ends of its interval, as columns; NaN if there is none."""
    values = (interval.mean, interval.low, interval.high) if interval else (math.nan,) * 3
    return {f"{name}{end}": value for end, value in zip(ENDS, values, strict=True)}


def _rows(frame: pd.DataFrame) -> list[dict]:
    return frame.to_dict("records")
