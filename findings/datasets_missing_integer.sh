#!/usr/bin/env bash
# datasets 5.2.0: one missing value makes the integers of a column other integers, in the formats numpy and torch.
#
# Guess: with `with_format("numpy")` a column of 64-bit integers with a missing value is float64 with nan, as in pandas;
#   integers up to 2**53 keep their value.
# Truth: it is float32, which holds integers exactly up to 2**24 only. All large integers of the batch change, not only
#   the missing one. The same in lists and with `with_format("torch")`. Without a missing value they stay int64. Nothing
#   warns.
# Seen: the id 16777217 becomes 16777216, and two ids of a person's answers become one.
# Matters for: ids, seeds and times beside optional answers; rows are joined to the wrong ones.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"${PYTHON:-python3}" -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip install --quiet datasets==5.2.0 numpy==2.4.6 pandas==3.1.1 pyarrow==26.0.1
cd "$folder"
export HF_HUB_OFFLINE=1 HF_HUB_DISABLE_TELEMETRY=1 HF_HOME="$folder/hf"
"$folder/venv/bin/python" -I -W error - <<'PY'
import numpy as np
from datasets import Dataset

ids = [16777216, 16777217]
whole = Dataset.from_dict({"id": ids}).with_format("numpy")[:]["id"]
assert whole.dtype == np.int64 and whole.tolist() == ids, whole

table = Dataset.from_dict({"id": [*ids, None]})
column = table.with_format("numpy")[:]["id"]
by_pandas = table.to_pandas()["id"]
nested = Dataset.from_dict({"ids": [[*ids, None]]}).with_format("numpy")[0]["ids"]
assert str(table.features["id"].dtype) == "int64" and table[:]["id"] == [*ids, None]
assert by_pandas.dtype == np.float64 and by_pandas[:2].tolist() == ids, by_pandas
for found in (column, nested):
    assert found.dtype == np.float32 and found[:2].tolist() == [16777216.0, 16777216.0] and np.isnan(found[2]), found

print("without a missing value:", whole.tolist(), whole.dtype)
print("with one:", [f"{number:.0f}" for number in column], column.dtype, "in a list:", nested.dtype)
print("by pandas:", [f"{number:.0f}" for number in by_pandas], by_pandas.dtype)
print("PASS: datasets 5.2.0 makes integers beside a missing value float32, and two ids become one")
PY
