"""Weights from vectors: `mean_distance` and `weights` against a loop over prompts with full distance matrices.

Every contender gets float32 vectors whose rows are not of unit length, and gives distances and weights. The loops
are float32 in numpy, with as many BLAS threads as the machine gives them, and fetch rows as ours does: sorted once.
"""

import statistics
from collections.abc import Callable
from functools import partial

import numpy as np

from benchmarks.measure import Row, Sample, median_and_spread, table, take_turns, timed
from ddpo_lib.deviation.distances import mean_distance
from ddpo_lib.deviation.weighting import weights

EXACT = 3e-7  # most by which our mean distances may differ from those in float64
# most for a loop in float32, which adds the rounding of a response's product with itself: 7e-7 in groups of two
LOOPS = 3e-6
SIZES = [2**k for k in range(1, 13)]


def rows(
    total: int = 421_330, prompts: int = 20_000, dims: int = 1_024, flat_total: int = 131_072, repeats: int = 3
) -> list[Row]:
    """The table: `total` responses to `prompts` prompts, and `flat_total` responses in groups of each of `SIZES`."""
    return [
        row
        for shuffled in (False, True)
        for row in [
            *against_loops(total, prompts, dims, shuffled, repeats),
            flatness(flat_total, dims, shuffled, repeats),
        ]
    ]


def against_loops(total: int, prompts: int, dims: int, shuffled: bool, repeats: int) -> list[Row]:
    """Time against each loop, memory against that of the vectors, and time against one plain read of them."""
    sizes = uneven_sizes(total, prompts)
    methods = {"ours": ours, "in turn": in_turn, "by np.delete": in_turn_by_delete, "at once": at_once, "read": read}
    samples = take_turns({name: partial(contender, f, sizes, dims, shuffled) for name, f in methods.items()}, repeats)
    groups = group_ids(sizes, shuffled)
    exact = exact_distances(random_vectors(len(groups), dims), groups)
    for name, most in {"ours": EXACT, "in turn": LOOPS, "by np.delete": LOOPS, "at once": LOOPS}.items():
        check_distances(name, samples[name][0].result, exact, most)

    seconds = {name: [sample.seconds for sample in runs] for name, runs in samples.items()}
    middle = {name: statistics.median(values) for name, values in seconds.items()}

    def faster(name: str, against: str, asked: float | None) -> Row:
        ratios = [theirs / our for theirs, our in zip(seconds[name], seconds["ours"], strict=True)]
        measured, spread = median_and_spread(ratios, "{:.1f}x")
        measured += f" ({middle['ours']:.2f} s against {middle[name]:.2f} s)"
        met = None if asked is None else statistics.median(ratios) >= asked
        return Row(what, against, f"{asked:g}x faster" if asked else "", measured, spread, met)

    what = f"weights of {total:,} responses, {dims:,} dims, {prompts:,} prompts of 2 to {sizes.max():,}, " + (
        "rows shuffled" if shuffled else "rows sorted by prompt"
    )
    memory = [1 + sample.grown / (total * dims * 4) for sample in samples["ours"]]
    limit, limit_spread = median_and_spread(
        [s / r for s, r in zip(seconds["ours"], seconds["read"], strict=True)], "{:.1f}x"
    )
    loop = "one prompt at a time: full distance matrix, "
    reads = statistics.median(s / r for s, r in zip(seconds["ours"], seconds["read"], strict=True))
    return [
        faster("in turn", loop + "each response's mean read out in turn, a Python loop over the others", 20),
        faster("by np.delete", loop + "each response's mean read out in turn, the others by np.delete", None),
        faster("at once", loop + "reduced at once", 3),
        Row(what, "memory of the vectors", "under 1.2x", *median_and_spread(memory, "{:.3f}x"), max(memory) < 1.2),
        Row(what, "the clock", "under 5 s", *median_and_spread(seconds["ours"], "{:.2f} s"), middle["ours"] < 5),
        Row(what, f"one read of the vectors ({middle['read']:.3f} s)", "under 3x", limit, limit_spread, reads < 3),
    ]


def flatness(total: int, dims: int, shuffled: bool, repeats: int) -> Row:
    """Time per response by group size: the slowest size against the fastest."""
    samples = take_turns({"ours": partial(time_by_size, total, dims, shuffled)}, repeats)["ours"]
    ratios = [max(sample.result.values()) / min(sample.result.values()) for sample in samples]
    middle = {size: statistics.median(sample.result[size] for sample in samples) for size in SIZES}
    slow, fast = max(middle, key=middle.get), min(middle, key=middle.get)
    ratio = middle[slow] / middle[fast]
    return Row(
        f"mean distances of {total:,} responses, {dims:,} dims, in groups of 2, 4, ... {SIZES[-1]:,}, "
        + ("rows shuffled" if shuffled else "rows sorted by prompt"),
        "itself: the slowest size against the fastest",
        "time per response within 2x",
        f"{ratio:.2f}x ({middle[slow] * 1e6:.2f} µs at {slow:,}, {middle[fast] * 1e6:.2f} µs at {fast:,})",
        median_and_spread(ratios, "{:.2f}x")[1],
        ratio <= 2,
    )


def contender(
    method: Callable[[np.ndarray, np.ndarray], np.ndarray], sizes: np.ndarray, dims: int, shuffled: bool
) -> Sample:
    groups = group_ids(sizes, shuffled)
    vectors = random_vectors(len(groups), dims)
    return timed(lambda: method(vectors, groups))


def time_by_size(total: int, dims: int, shuffled: bool) -> Sample:
    """Its result: seconds per response by group size, all sizes in one process."""
    vectors = random_vectors(total, dims)
    groups = {size: group_ids(np.full(total // size, size), shuffled) for size in SIZES}
    mean_distance(vectors, groups[SIZES[0]])  # the first call also pays for memory that the others find at hand

    def by_size() -> dict[int, float]:
        return {size: timed(partial(mean_distance, vectors, groups[size])).seconds / total for size in SIZES}

    return timed(by_size)


def ours(vectors: np.ndarray, groups: np.ndarray) -> np.ndarray:
    distance = mean_distance(vectors, groups)
    weights(distance, groups)
    return distance


def in_turn(vectors: np.ndarray, groups: np.ndarray) -> np.ndarray:
    def means(matrix: np.ndarray) -> list:
        n = len(matrix)
        return [np.mean([matrix[i, j] for j in range(n) if j != i]) for i in range(n)]

    return one_prompt_at_a_time(means, vectors, groups)


def in_turn_by_delete(vectors: np.ndarray, groups: np.ndarray) -> np.ndarray:
    return one_prompt_at_a_time(lambda m: [np.delete(row, i).mean() for i, row in enumerate(m)], vectors, groups)


def at_once(vectors: np.ndarray, groups: np.ndarray) -> np.ndarray:
    return one_prompt_at_a_time(lambda matrix: matrix.sum(axis=1) / (len(matrix) - 1), vectors, groups)


def one_prompt_at_a_time(
    means: Callable[[np.ndarray], np.ndarray | list], vectors: np.ndarray, groups: np.ndarray
) -> np.ndarray:
    distance, weight = np.empty(len(vectors)), np.empty(len(vectors))
    order = np.argsort(groups, kind="stable")
    _, first = np.unique(groups[order], return_index=True)
    for prompt in np.split(order, first[1:]):
        unit = vectors[prompt]
        unit /= np.linalg.norm(unit, axis=1, keepdims=True)
        mean = np.asarray(means(1 - unit @ unit.T))
        above = mean - mean.min()
        scaled = above / above.max() if above.max() > 0 else np.full(len(mean), 0.5)
        distance[prompt] = mean
        weight[prompt] = len(mean) * scaled / scaled.sum()
    return distance


def read(vectors: np.ndarray, groups: np.ndarray) -> None:
    """One pass over the memory of the vectors, on every core: BLAS's product of all their numbers with themselves."""
    flat = vectors.ravel()
    np.dot(flat, flat)


def exact_distances(vectors: np.ndarray, groups: np.ndarray) -> np.ndarray:
    """(n,) mean distances with float64 throughout, by the full matrix of each group."""
    distance = np.empty(len(vectors))
    order = np.argsort(groups, kind="stable")
    _, first = np.unique(groups[order], return_index=True)
    for prompt in np.split(order, first[1:]):
        unit = vectors[prompt].astype(np.float64)
        unit /= np.linalg.norm(unit, axis=1, keepdims=True)
        matrix = 1 - unit @ unit.T
        np.fill_diagonal(matrix, 0)
        distance[prompt] = matrix.sum(axis=1) / (len(prompt) - 1)
    return distance


def check_distances(name: str, found: np.ndarray, exact: np.ndarray, most: float) -> None:
    """Raise ValueError if a contender's mean distances differ from the exact ones by more than `most`."""
    apart = np.abs(found - exact).max()
    if not apart <= most:
        raise ValueError(f"{name}: mean distances differ from float64's by up to {apart:.1g}, more than {most:g}")


def uneven_sizes(total: int, prompts: int) -> np.ndarray:
    """Sizes of prompts, 2 or more each, log-normal (sigma 1.5) beyond that; they sum to `total`."""
    rng = np.random.default_rng(0)
    share = rng.lognormal(sigma=1.5, size=prompts)
    return 2 + rng.multinomial(total - 2 * prompts, share / share.sum())


def group_ids(sizes: np.ndarray, shuffled: bool) -> np.ndarray:
    groups = np.repeat(np.arange(len(sizes)), sizes)
    return np.random.default_rng(1).permutation(groups) if shuffled else groups


def random_vectors(n: int, dims: int) -> np.ndarray:
    """Numbers in [0, 1), so that all vectors lean to one side, as embeddings do; float32 from the start, so that the
    process's peak memory before the work is that of the vectors."""
    return np.random.default_rng(2).random((n, dims), dtype=np.float32)


if __name__ == "__main__":
    print(table(rows()))
