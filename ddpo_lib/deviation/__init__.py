"""In: unit vectors and the prompt of each row.
Out: each response's mean distance to the other responses of its prompt, and the weights made from the distances."""

from ddpo_lib.deviation.distances import mean_distance
from ddpo_lib.deviation.weighting import weights

__all__ = ["mean_distance", "weights"]
