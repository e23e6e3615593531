#!/usr/bin/env bash
# datasets 5.2.0: `Dataset.from_list` drops every field that the first row does not have.
#
# Guess: a field that only some rows have is a column, with None in the others. That is so for the same rows in a JSON
#   Lines file read by `load_dataset`, and for fields within a nested record.
# Truth: the columns are the first row's; all values of other fields are gone. There is no error or warning. A note in
#   the function's documentation says so.
# Seen: of two rows, the second with a score, only the prompt is left; with the rows in the other order both columns
#   are. Within a nested record the late field is kept.
# Matters for: preference pairs with optional fields; whether weights or scores reach the trainer depends on the order.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"${PYTHON:-python3}" -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip install --quiet datasets==5.2.0 numpy==2.4.6 pandas==3.1.1 pyarrow==26.0.1
cd "$folder"
export HF_HUB_OFFLINE=1 HF_HUB_DISABLE_TELEMETRY=1 HF_DATASETS_DISABLE_PROGRESS_BARS=1 HF_HOME="$folder/hf"
"$folder/venv/bin/python" -I -W error - <<'PY'
import json

from datasets import Dataset, load_dataset

rows = [{"prompt": "a"}, {"prompt": "b", "score": 3}]
with open("rows.jsonl", "w") as file:
    file.writelines(json.dumps(row) + "\n" for row in rows)
from_list, turned = Dataset.from_list(rows), Dataset.from_list(rows[::-1])
nested = Dataset.from_list([{"record": row} for row in rows])
loaded = load_dataset("json", data_files="rows.jsonl", split="train")
assert from_list.to_list() == [{"prompt": "a"}, {"prompt": "b"}], from_list.to_list()
assert turned.column_names == loaded.column_names == ["prompt", "score"]
assert nested[1]["record"] == {"prompt": "b", "score": 3} and loaded[1] == {"prompt": "b", "score": 3}

print("from_list:", from_list.column_names, "; rows in the other order:", turned.column_names)
print("load_dataset:", loaded.column_names, "; nested:", nested[1]["record"])
print("PASS: datasets 5.2.0 from_list drops what the first row does not have")
PY
