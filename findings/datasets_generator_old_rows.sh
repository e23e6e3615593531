#!/usr/bin/env bash
# datasets 5.2.0: `Dataset.from_generator` answers with the rows of a file as it was, after the file has changed.
#
# Guess: a generator that reads a file is run again if the file is another one now, as `load_dataset("json", ...)` sees
#   that its file has changed.
# Truth: the cache is keyed by the generator's code and its arguments, here the file's name. A second process, too, gets
#   the old rows. Nothing warns. With `load_dataset` on the same file there are new rows.
# Seen: two rows are read; the file gets three others; from_generator gives the two old ones, load_dataset the three.
# Matters for: preference pairs made anew under the same name: training goes on with the old pairs.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"${PYTHON:-python3}" -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip install --quiet datasets==5.2.0 numpy==2.4.6 pandas==3.1.1 pyarrow==26.0.1
cd "$folder"
export HF_HUB_OFFLINE=1 HF_HUB_DISABLE_TELEMETRY=1 HF_DATASETS_DISABLE_PROGRESS_BARS=1 HF_HOME="$folder/hf"
cat >pairs.py <<'PY'
import json
import sys

from datasets import Dataset, load_dataset


def rows(path):
    with open(path) as lines:
        for line in lines:
            yield json.loads(line)


made = Dataset.from_generator(rows, gen_kwargs={"path": "pairs.jsonl"})["chosen"][:]
loaded = load_dataset("json", data_files="pairs.jsonl", split="train")["chosen"][:]
print(json.dumps([made, loaded]))
PY
printf '{"chosen": "%s"}\n' "old one" "old two" >pairs.jsonl
before=$("$folder/venv/bin/python" pairs.py 2>messages)
printf '{"chosen": "%s"}\n' "new one" "new two" "new three" >pairs.jsonl
after=$("$folder/venv/bin/python" pairs.py 2>>messages)
"$folder/venv/bin/python" -I - "$before" "$after" <<'PY'
import json
import sys

before, after = (json.loads(text) for text in sys.argv[1:])
old, new = ["old one", "old two"], ["new one", "new two", "new three"]
assert before == [old, old], before
assert after == [old, new], after
said = open("messages").read().lower()
assert not any(word in said for word in ("cache", "reus", "stale", "warn")), said
print("from_generator and load_dataset, before:", before)
print("from_generator and load_dataset, after the file changed:", after)
print("PASS: datasets 5.2.0 from_generator gives the rows of the old file")
PY
