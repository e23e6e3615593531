"""Errors of a full disk, or of one that cannot be written, are told in one line, whichever library raises them."""

import errno
import os
import subprocess
import sys

import pytest

from ddpo_lib.base.disk_errors import describe_disk_error
from ddpo_lib.base.unfinished import write_whole

LIMITED = """
import resource, signal, sys
import numpy as np, pandas as pd, safetensors.numpy, tokenizers, torch
from ddpo_lib.base.disk_errors import describe_disk_error

signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))  # a larger file fails as on a full disk
numbers = np.random.default_rng(0).random(100_000)
writers = {
    "open": lambda: open("text", "w").write("x" * 100_000),
    "pyarrow": lambda: pd.DataFrame({"a": numbers}).to_parquet("table.parquet"),
    "numpy": lambda: np.save("numbers.npy", numbers),
    "safetensors": lambda: safetensors.numpy.save_file({"a": numbers}, "numbers.safetensors"),
    "torch": lambda: torch.save(torch.tensor(numbers), "numbers.pt"),
}
for name, write in writers.items():
    try:
        write()
    except Exception as error:
        print(name, describe_disk_error(error))
"""


def test_whichever_library_writes_to_a_full_disk_the_line_says_so(tmp_path):
    done = subprocess.run([sys.executable, "-c", LIMITED], cwd=tmp_path, capture_output=True, text=True, check=True)
    said = done.stdout.splitlines()
    assert [line.split()[0] for line in said] == ["open", "pyarrow", "numpy", "safetensors", "torch"]
    assert all(": no space left to write it; " in line and "Free some space" in line for line in said), said


@pytest.mark.parametrize("number", [errno.EROFS, errno.EACCES, errno.EPERM])
def test_a_place_that_cannot_be_written_is_named(number):
    error = OSError(number, os.strerror(number), "/data/out")
    said = describe_disk_error(error)
    assert said.startswith(f"/data/out: {os.strerror(number)}; change its permissions, or name another place")
    of_rust = ValueError(f'Os {{ code: {number}, message: "x" }}: {os.strerror(number)} (os error {number})')
    assert f"a file: {os.strerror(number)}" in describe_disk_error(of_rust)


def test_the_cause_of_an_error_counts():
    try:
        try:
            raise OSError(errno.ENOSPC, "No space left on device", "/data/out")
        except OSError as error:
            raise RuntimeError("the library failed") from error
    except RuntimeError as error:
        assert describe_disk_error(error).startswith("/data/out: no space left")


@pytest.mark.parametrize("error", [ValueError("no"), OSError(errno.ENOENT, "none", "x"), KeyError("a"), OSError("x")])
def test_other_errors_are_not_of_the_disk(error):
    assert describe_disk_error(error) is None


def test_what_cannot_be_written_whole_leaves_what_was_there(tmp_path):
    out = tmp_path / "out"
    out.write_text("before")

    def half(aside):
        aside.write_text("half")
        raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(OSError, match="out"):
        write_whole(out, half)
    assert out.read_text() == "before"
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
    assert write_whole(tmp_path / "new" / "out", lambda aside: aside.write_text("whole")) == 5
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["out"]
