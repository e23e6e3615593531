"""What the step of an artifact writes."""

import numpy as np

from ddpo_lib.deviation import mean_distance, weights
from ddpo_lib.measures.from_profile import space
from ddpo_lib.profiles.profile import load_profile
from ddpo_lib.runs.pipeline import open_run
from ddpo_lib.spaces.embed import count_overlong, embed


def test_one_artifact_holds_the_vectors_of_every_space_and_what_follows_from_them(tmp_path):
    profile, run = load_profile("smoke"), open_run("smoke", folder=tmp_path)
    folder, spaces = run.path("vectors"), profile.spaces.choices()
    corpus, table = run.table("corpus", "corpus.parquet"), run.table("vectors", "deviation.parquet")
    assert {file.stem for file in folder.glob("*.npy")} == set(spaces)
    assert table["response_id"].tolist() == corpus["response_id"].tolist()
    texts, groups = corpus["text"].tolist(), corpus["prompt_id"].astype("category").cat.codes.to_numpy()
    for name in spaces:
        vectors = embed(texts, space(profile, name))
        np.testing.assert_array_equal(np.load(folder / f"{name}.npy"), vectors)
        np.testing.assert_array_equal(table[name], mean_distance(vectors, groups))
        assert run.json("vectors", "overlong.json")[name] == count_overlong(texts, space(profile, name))
    both = [table["semantic"].to_numpy(), table["style"].to_numpy()]
    np.testing.assert_array_equal(table["weight_both"], weights(both, groups))
    np.testing.assert_array_equal(table["weight_style"], weights(both[1], groups))
