"""An earlier build of this project beside today's: a training step, and sampling.

The earlier build is a commit of this repository, unpacked into a temporary folder and run with the same packages. Where
there is no repository with that commit, there is nothing to measure and the rows are left out.
"""

import io
import json
import os
import statistics
import subprocess
import sys
import tarfile
import tempfile
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import pandas as pd

from benchmarks.measure import Row, Sample, median_and_spread, take_turns
from ddpo_lib.base.store import cache_folder

EARLIER = "9895243"
BATCH = 4  # pairs, the profile's
PROJECT = Path(__file__).parents[1]

# Both run in either build: its folder comes first on the path. The last line that they print is a JSON list: amount of
# work, seconds, peak memory.
SAMPLING = """
import json
from benchmarks.sampling import ours
sample = ours({prompts}, {new_tokens})
print(json.dumps([sample.result, sample.seconds, sample.peak]))
"""
TRAINING = """
import json, tempfile, time
from pathlib import Path
import pandas as pd
from transformers import TrainerCallback
from benchmarks.measure import timed
try:
    from ddpo_lib.models.models import load_tokenizer
    from ddpo_lib.profiles.profile import load_profile
    from ddpo_lib.training.train import train_preferences
except ImportError:  # before the rooms
    from ddpo_lib.models import load_tokenizer
    from ddpo_lib.profiles import load_profile
    from ddpo_lib.training import train_preferences

class Clock(TrainerCallback):
    seconds = 0.0
    def on_step_begin(self, args, state, control, **kwargs):
        self.begun = time.perf_counter()
    def on_step_end(self, args, state, control, **kwargs):
        if state.global_step > {steps}:  # the first epoch computes what is stored
            self.seconds += time.perf_counter() - self.begun

profile, clock = load_profile("embedded"), Clock()
pairs = pd.read_parquet({pairs!r})
texts = [profile.model.template.replace("{{prompt}}", prompt) for prompt in pairs["prompt"]]
tokenizer = load_tokenizer(profile.model.name)
tokens = sum(len(tokenizer(text + answer).input_ids) + 1 for side in ("chosen", "rejected")
             for text, answer in zip(texts, pairs[side]))
model = profile.model.model_copy(update={{"last_layers": {last_layers}, **{changed}}})
with tempfile.TemporaryDirectory() as folder:
    train_preferences(pairs, profile.arms["ddpo-both"], None, model, profile.preference, profile.data.max_tokens, 0,
                      Path(folder), callbacks=[clock])
print(json.dumps([tokens, clock.seconds, timed(lambda: None).peak]))
"""


@contextmanager
def earlier_build():
    """The folder of the earlier build; None if this is no clone with that commit."""
    command = ["git", "-C", str(PROJECT), "archive", EARLIER, "ddpo_lib", "benchmarks"]
    archive = subprocess.run(command, capture_output=True, check=False)
    if archive.returncode:
        yield None
        return
    with tempfile.TemporaryDirectory() as folder:
        with tarfile.open(fileobj=io.BytesIO(archive.stdout)) as files:
            files.extractall(folder, filter="data")
        yield Path(folder)


def run_in(build: Path, script: str) -> Sample:
    """Run a script with a build of the project; its result is the amount of work."""
    with tempfile.TemporaryDirectory() as cache:
        models = cache_folder() / "models"
        if models.is_dir():  # else the first run alone would convert the model
            (Path(cache) / "ddpo").mkdir()
            (Path(cache) / "ddpo" / "models").symlink_to(models)
        environment = {**os.environ, "PYTHONPATH": str(build), "XDG_CACHE_HOME": cache}
        done = subprocess.run(
            [sys.executable, "-c", script], cwd=build, env=environment, capture_output=True, text=True, check=False
        )
    if done.returncode:
        raise RuntimeError(f"{build}: {done.stderr[-2000:]}")
    amount, seconds, peak = json.loads(done.stdout.splitlines()[-1])
    return Sample(seconds, peak, 0, amount)


def step_against_earlier(pairs: pd.DataFrame, last_layers: int | None, asked: float, repeats: int) -> list[Row]:
    """Rows of DDPO steps of the embedded profile, with LoRA on the last layers or on all, None.

    Args:
        pairs: `prompt chosen rejected weight`; the second of two epochs over them is timed.
    """
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "pairs.parquet"
        script = training_script(pairs, file, last_layers)
        return against_earlier(name_of_step(last_layers), script, asked, repeats)


def step_in_bfloat16(pairs: pd.DataFrame, last_layers: int | None, repeats: int) -> list[Row]:
    """Rows of the same steps, products with frozen weights in bfloat16 against float32, both of today's build."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "pairs.parquet"
        scripts = {
            name: training_script(pairs, file, last_layers, bfloat16_products=name == "bfloat16")
            for name in ("bfloat16", "float32")
        }
        samples = take_turns({name: partial(run_in, PROJECT, script) for name, script in scripts.items()}, repeats)
    return compared(f"{name_of_step(last_layers)}, products in bfloat16", "float32 of the same build", samples)


def name_of_step(last_layers: int | None) -> str:
    layers = f"the last {last_layers} layers" if last_layers else "all layers"
    return f"a DDPO step of {BATCH} pairs, LoRA on {layers}, what is stored computed before"


def training_script(pairs: pd.DataFrame, file: Path, last_layers: int | None, **changed) -> str:
    """TRAINING for these pairs, written to the file; `changed` are settings of the profile's model."""
    pairs.to_parquet(file)
    return TRAINING.format(pairs=str(file), steps=-(-len(pairs) // BATCH), last_layers=last_layers, changed=changed)


def against_earlier(what: str, script: str, asked: float, repeats: int, unit: str = "tokens/s") -> list[Row]:
    """Rows: how many times as fast as the earlier build, and the peak memory of both."""
    with earlier_build() as earlier:
        if earlier is None:
            return []
        samples = take_turns(
            {"now": partial(run_in, PROJECT, script), "then": partial(run_in, earlier, script)}, repeats
        )
    return compared(what, f"the build of commit {EARLIER}", samples, asked, unit)


def compared(
    what: str, against: str, samples: dict[str, list[Sample]], asked: float | None = None, unit: str = "tokens/s"
) -> list[Row]:
    """Rows: how many times as fast as the second contender the first is, and the peak memory of both."""
    rates = [[sample.result / sample.seconds for sample in runs] for runs in samples.values()]
    ratios = [ours / theirs for ours, theirs in zip(*rates, strict=True)]
    measured, spread = median_and_spread(ratios, "{:.2f}x")
    measured += " ({:.0f} against {:.0f} {})".format(*map(statistics.median, rates), unit)
    peaks = [max(sample.peak for sample in runs) / 2**30 for runs in samples.values()]
    met = None if asked is None else statistics.median(ratios) >= asked
    return [
        Row(what, against, "" if asked is None else f"{asked:g}x {unit}", measured, spread, met),
        Row(what, against, "", "peak memory {:.2f} against {:.2f} GiB".format(*peaks), "", None),
    ]
