"""Kinds of bad profiles, and what the message says."""

import pytest

from ddpo_lib.base.errors import InputError
from ddpo_lib.profiles.profile import load_profile

PROFILES = {
    "nothing": (b"", "expected a mapping of knobs, got NoneType"),
    "a list": (b"- extends: smoke\n", "expected a mapping of knobs, got list"),
    "a tab": (b"extends: smoke\nsampling:\n\tsamples: 3\n", "not YAML"),
    "a knob twice": (b"extends: smoke\nseeds: 1\nseeds: 3\n", "the key `seeds` occurs twice"),
    "a knob twice, inside": (b"extends: smoke\nsampling: {samples: 2, samples: 3}\n", "the key `samples` occurs twice"),
    "not UTF-8": (b"extends: smoke\nwhat: caf\xe9\n", "not YAML"),
    "UTF-16": ("extends: smoke\n".encode("utf-16"), "not YAML"),
    "a day that is none": (b"extends: smoke\nwhat: 2026-02-31\n", "not YAML (day is out of range"),
    "an object of Python": (b"extends: smoke\nwhat: !!python/object/apply:os.getcwd []\n", "not YAML"),
    "a mapping in itself": (b"extends: smoke\ndata: &a {gap: *a}\n", "or a value contains itself"),
    "a list in itself": (b"extends: smoke\nname: &a [*a]\n", "or a value contains itself"),
    "aliases of aliases": (
        b"a0: &a0 {k: 1}\n" + b"".join(b"a%d: &a%d {k: *a%d, l: *a%d}\n" % (n, n, n - 1, n - 1) for n in range(1, 60)),
        "more than 10,000 values",
    ),
    "nested lists": (b"what: " + b"[" * 2000, "nested too deeply"),
    "a knob misspelt": (b"extends: smoke\nsampling: {sample: 3}\n", "field `sampling.sample`: unknown knob"),
    "a text for a number": (b"extends: smoke\nseeds: many\n", "field `seeds`: "),
    "a share above 1": (b"extends: smoke\ndata: {held_out: 1.5}\n", "field `data.held_out`: "),
    "zero samples": (b"extends: smoke\nsampling: {samples: 0}\n", "field `sampling.samples`: "),
    "an unknown loss": (b"extends: smoke\narms: {a: {loss: ppo, start: sft}}\n", "field `arms.a.loss`: "),
    "a missing knob": (b"name: mine\n", "Field required"),
    "an unknown base": (b"extends: smallest\n", "field `extends` smallest: no such profile; there are"),
    "a name that climbs": (b"extends: smoke\nname: ../../up\n", "field `name`: '../../up' cannot name a folder"),
    "windows that are no truth value": (
        b"extends: smoke\nspaces: {semantic: {model: minilm, windows: often}}\n",
        "field `spaces.semantic.windows`: ",
    ),
}


@pytest.mark.parametrize(("content", "message"), PROFILES.values(), ids=PROFILES)
def test_bad_profiles(tmp_path, content, message):
    path = tmp_path / "mine.yaml"
    path.write_bytes(content)
    with pytest.raises(InputError) as error:
        load_profile(path)
    assert str(path) in str(error.value)
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_a_profile_that_is_a_folder(tmp_path):
    (tmp_path / "mine.yaml").mkdir()
    with pytest.raises(InputError, match="no such profile"):
        load_profile(tmp_path / "mine.yaml")
