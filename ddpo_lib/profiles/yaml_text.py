"""YAML text of a user -> values that are finite, plain and said once."""

import math

import yaml

MOST_VALUES = 10_000  # of a file; the largest profile of the package has about 300


class PlainYaml(yaml.SafeLoader):
    """Reads YAML, and refuses two things that PyYAML takes without a word.

    A key that one mapping has twice, of which PyYAML keeps the last one; and aliases (`*name`) with which a value
    contains itself, or which make a small file a huge value. Both raise a `yaml.YAMLError`.
    """

    def get_single_node(self):
        node = super().get_single_node()
        if _count_values(node, {}) > MOST_VALUES:
            problem = f"with its aliases (`*name`) it has more than {MOST_VALUES:,} values, or a value contains itself"
            raise yaml.constructor.ConstructorError(None, None, problem, node.start_mark)
        return node

    def construct_mapping(self, node, deep=False):
        keys = [key.value for key, _ in node.value if isinstance(key, yaml.ScalarNode) and key.value != "<<"]
        twice = next((key for key in keys if keys.count(key) > 1), None)
        if twice is not None:
            raise yaml.constructor.ConstructorError(None, None, f"the key `{twice}` occurs twice", node.start_mark)
        return super().construct_mapping(node, deep)


def _count_values(node, known: dict[int, float]) -> float:
    """A node of YAML and the nodes below it, those of an alias wherever it stands; infinite if it contains itself."""
    if id(node) not in known:
        known[id(node)] = math.inf  # until it is counted
        inner = node.value if isinstance(node, yaml.CollectionNode) else ()
        below = [part for entry in inner for part in (entry if isinstance(entry, tuple) else (entry,))]
        known[id(node)] = 1 + sum(_count_values(part, known) for part in below)
    return known[id(node)]
