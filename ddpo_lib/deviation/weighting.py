"""Distances -> weights that sum to the group's size within each group. Needs only numpy."""

from collections.abc import Sequence

import numpy as np

from ddpo_lib.deviation.groups import index_groups

TIE = 1e-6  # closer distances (range 0 to 2) count as equal: vectors are float32, accurate to about 1e-7


def weights(
    distances: np.ndarray | Sequence[np.ndarray],
    groups: np.ndarray,
    *,
    scale: str = "minmax",
    floor: float = 0.0,
) -> np.ndarray:
    """Weight of each response: >= 0, with a sum of the group's size in each group (paper, normalised deviation).

    Args:
        distances: one (n,) array, or several arrays, one per space; several are combined by their geometric mean.
        groups: (n,) integers, the group of each row.
        scale: "minmax", as released, scales distances to [0, 1] within the group, so the least deviating response has
            weight 0. "ratio" divides distances by the group's mean, so no distinct response has weight 0.
        floor: the least weight of a response, in [0, 1]. Weights below it are raised to it and the others are scaled
            down, so that a group of n still sums to n.

    Returns:
        (n,) float64. The weights are 1 in a group whose distances are all equal, and in a group of one.

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
    """One space's distances on a common scale within each group; 0.5 in groups whose distances are all equal."""
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
    """n * value / (sum of the group's values); 1 if that sum is 0, where each response is lowest in some space."""
    total = np.bincount(inverse, value, len(sizes))
    share = np.where(total > 0, sizes / np.where(total > 0, total, 1.0), 0.0)
    return np.where((total > 0)[inverse], value * share[inverse], 1.0)


def _lift(weight: np.ndarray, inverse: np.ndarray, sizes: np.ndarray, floor: float) -> np.ndarray:
    """Raise weights below `floor` to it and scale the others down; repeat until no weight is below `floor`."""
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
