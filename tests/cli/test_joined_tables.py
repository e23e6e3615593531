"""Tables of weights that a user joined, numbered or damaged: which are read, and what is said of the others."""

import numpy as np
import pandas as pd
import pytest

from ddpo_lib.base.errors import InputError
from ddpo_lib.deviation.weights_table import read_weights
from ddpo_lib.pairs.rules import make_pairs


def weights_table(*prompts: str) -> pd.DataFrame:
    """A table as `ddpo weights` writes, with three responses per prompt."""
    rows = [
        (f"p{i:05d}", prompt, f"p{i:05d}-{j:04d}", f"{prompt} {j}", float(j), "train", float(j))
        for i, prompt in enumerate(prompts)
        for j in range(3)
    ]
    return pd.DataFrame(rows, columns=["prompt_id", "prompt", "response_id", "text", "score", "split", "weight_both"])


SEA, LAND = weights_table("Sea", "Sky"), weights_table("Land")


def changed(**columns) -> pd.DataFrame:
    return SEA.assign(**{name: [*values, *SEA[name][len(values) :]] for name, values in columns.items()})


TABLES = {
    "a column is missing": (SEA.drop(columns="split"), "no column `split`; `ddpo weights IN"),
    "weights of another arm": (SEA.drop(columns="weight_both"), "no column `weight_both`"),
    "a prompt is missing": (changed(prompt=[None]), "row 1: no `prompt`"),
    "a text is missing": (changed(text=["a", None]), "row 2: no `text`"),
    "an id is missing": (changed(prompt_id=["p00000", "p00000", None]), "row 3: no `prompt_id`"),
    "texts are numbers": (SEA.assign(text=range(6)), "row 1, column `text`: expected text, got"),
    "scores are texts": (SEA.assign(score=SEA["score"].astype(str)), "column `score`: expected numbers, got str"),
    "a score is infinite": (changed(score=[0, np.inf]), "row 2, column `score`: expected a finite number or none, got"),
    "a weight is missing": (
        changed(weight_both=[0, 1, np.nan]),
        "row 3, column `weight_both`: expected a finite number",
    ),
    "a weight is negative": (changed(weight_both=[-1]), "row 1, column `weight_both`: expected a finite number >= 0"),
    "a side is missing": (changed(split=["train", None]), "row 2, column `split`: expected train or test"),
    "a side is unknown": (changed(split=["dev"]), "row 1, column `split`: expected train or test, got 'dev'"),
    "one prompt weighed in two tables": (
        pd.concat([SEA, weights_table("Sky", "Sea").iloc[3:5].assign(text="other")]),
        "the responses to 'Sea' were weighed in two tables (1 prompts in all), so their weights cannot be compared",
    ),
}


@pytest.mark.parametrize(("table", "message"), TABLES.values(), ids=TABLES)
def test_bad_tables_of_weights(tmp_path, table, message):
    path = tmp_path / "weights.parquet"
    table.to_parquet(path)
    with pytest.raises(InputError) as error:
        read_weights(path, "weight_both")
    assert str(error.value).startswith(str(path))
    assert message in str(error.value)


def test_a_table_of_weights_that_is_no_table(tmp_path):
    path = tmp_path / "weights.parquet"
    with pytest.raises(InputError, match="no such file; `ddpo weights IN"):
        read_weights(path, None)
    path.write_text("[1]")
    with pytest.raises(InputError, match="not a Parquet file that can be read"):
        read_weights(path, None)


# Tables that were joined or numbered, and are read


JOINED = {
    "end to end": pd.concat([SEA, LAND], ignore_index=True),
    "one of them twice": pd.concat([SEA, LAND, SEA], ignore_index=True),
    "with numbers as ids": pd.concat([SEA, LAND]).assign(prompt_id=np.repeat([0, 1, 2], 3)),
    "with numbers that became floats": pd.concat([SEA, LAND]).assign(prompt_id=np.repeat([0.0, 1.0, 2.0], 3)),
    "with an id as the index": pd.concat([SEA, LAND]).set_index("prompt_id"),
    "with categories": pd.concat([SEA, LAND]).astype({"prompt": "category", "split": "category"}),
}


@pytest.mark.parametrize("table", JOINED.values(), ids=JOINED)
def test_joined_tables_keep_their_prompts_apart(tmp_path, table):
    path = tmp_path / "both"
    table.to_parquet(path)
    read = read_weights(path, "weight_both")
    assert read["response_id"].is_unique
    assert read.groupby("prompt_id")["prompt"].agg(["nunique", "size"]).values.tolist() == [[1, 3]] * 3
    assert read["weight_both"].tolist() == [0, 1, 2] * 3
    pairs = make_pairs(read, gap=0)
    assert len(pairs) == 3
    assert all(row.chosen[:3] == row.rejected[:3] == row.prompt[:3] for row in pairs.itertuples())


def test_pairs_are_not_made_across_prompts_of_joined_tables():
    with pytest.raises(InputError, match="prompt_id p00000 stands for 2 prompts, such as 'Sea' and 'Land'"):
        make_pairs(JOINED["end to end"])
    with pytest.raises(InputError, match="response_id p00000-0000 stands for 2 responses"):
        make_pairs(JOINED["with numbers as ids"])
    with pytest.raises(InputError, match="row 2: no prompt_id"):
        make_pairs(changed(prompt_id=["p00000", None]))
    assert len(make_pairs(SEA.assign(prompt_id=np.repeat([7, 0], 3)), gap=0)) == 2


def test_a_table_without_scores_is_read(tmp_path):
    path = tmp_path / "weights.parquet"
    SEA.assign(score=None).to_parquet(path)
    assert read_weights(path, "weight_both")["score"].isna().all()
