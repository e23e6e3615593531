"""Distances -> weights that sum within each group to the group's size. numpy alone."""

from collections.abc import Sequence

import numpy as np

from ddpo_lib.deviation.groups import index_groups

TIE = 1e-6  # distances (range 0 to 2) closer than this are one value: vectors are float32, good to about 1e-7


def weights(
    distances: np.ndarray | Sequence[np.ndarray],
    groups: np.ndarray,
    *,
    scale: str = "minmax",
    floor: float = 0.0,
) -> np.ndarray:
    """Weight of each response: >= 0, summing within each group to the group's size (paper, normalised deviation).

    Args:
        distances: one (n,) array, or several, one a space; several are combined by their geometric mean.
        groups: (n,) integers.
        scale: "minmax" as released, distances to [0, 1] within the group, so that the least deviating response
            has weight 0; "ratio", distance over the group's mean, which leaves no distinct response at zero.
        floor: the least weight that a response keeps, in [0, 1]. Weights below it are lifted to it and the rest
            scaled down, so that a group still sums to n.

    Returns:
        (n,) float64. A group whose distances are all equal has weights of 1; so has a group of one.

    Raises:
        ValueError: unknown scale, floor outside [0, 1], wrong shapes, or a distance that is negative or infinite,
            or NaN in a group of two or more (names the first such row).
    """
    if scale not in ("minmax", "ratio"):
        raise ValueError(f'scale: expected "minmax" or "ratio", got {scale!r}')
    if not 0.0 <= floor <= 1.0:
        raise ValueError(f"floor: expected a number in [0, 1], got {floor}")
    one = isinstance(distances, np.ndarray) and distances.ndim == 1
    spaces = {"distances": distances} if one else {f"distances[{i}]": space for i, space in enumerate(distances)}
    if not spaces:
        raise ValueError("distances: expected at least one array")
    groups = np.asarray(groups)
    inverse, sizes = index_groups(groups, len(groups))

    combined = np.ones(len(groups))
    for name, space in spaces.items():
        combined *= _scaled(name, np.asarray(space, dtype=np.float64), inverse, sizes, scale)
    combined **= 1.0 / len(spaces)

    weight = _sum_to_size(combined, inverse, sizes)
    return _lift(weight, inverse, sizes, floor) if floor > 0 else weight


def _scaled(name: str, distance: np.ndarray, inverse: np.ndarray, sizes: np.ndarray, scale: str) -> np.ndarray:
    """One space's distances on a common scale within each group; groups of equal distances become constant."""
    if distance.shape != inverse.shape:
        raise ValueError(f"{name}: expected shape {inverse.shape}, got {distance.shape}")
    distance = np.where(sizes[inverse] == 1, 1.0, distance)
    bad = ~np.isfinite(distance) | (distance < 0)
    if bad.any():
        row = int(np.flatnonzero(bad)[0])
        raise ValueError(f"{name}: row {row} is {distance[row]}; expected a finite number >= 0")
    low = np.full(len(sizes), np.inf)
    high = np.full(len(sizes), -np.inf)
    np.minimum.at(low, inverse, distance)
    np.maximum.at(high, inverse, distance)
    tied = (high - low <= TIE)[inverse]
    if scale == "minmax":
        span = np.where(tied, 1.0, (high - low)[inverse])
        above = distance - low[inverse]
        scaled = np.where(above <= TIE, 0.0, above / span)
    else:
        scaled = distance
    return np.where(tied, 0.5, scaled)


def _sum_to_size(value: np.ndarray, inverse: np.ndarray, sizes: np.ndarray) -> np.ndarray:
    """n * value / (sum of the group's values); ones where that sum is zero (each is lowest in one of the spaces)."""
    total = np.bincount(inverse, value, len(sizes))
    share = np.where(total > 0, sizes / np.where(total > 0, total, 1.0), 0.0)
    return np.where((total > 0)[inverse], value * share[inverse], 1.0)


def _lift(weight: np.ndarray, inverse: np.ndarray, sizes: np.ndarray, floor: float) -> np.ndarray:
    """Lift weights below `floor` to it and scale the others down, again until none falls below."""
    lifted = np.zeros(len(weight), dtype=bool)
    value = weight
    for _ in range(int(sizes.max(initial=1))):
        below = ~lifted & (value < floor)
        if not below.any():
            break
        lifted |= below
        room = sizes - floor * np.bincount(inverse, lifted, len(sizes))
        free = np.bincount(inverse, np.where(lifted, 0.0, weight), len(sizes))
        factor = np.where(free > 0, room / np.where(free > 0, free, 1.0), 0.0)
        value = np.where(lifted, floor, weight * factor[inverse])
    return value
