"""What is shipped with the built pages."""

import io
import json
from zipfile import ZipFile

import pandas as pd

from ddpo_lib.report.book import trim, write_downloads


def test_what_no_equation_needs_is_not_shipped(tmp_path):
    kept = [
        "book.css",
        "plotly.js",
        "scripts/theme.js",
        "mathjax/tex-chtml.js",
        "mathjax/output/chtml/fonts/woff-v2/MathJax_Main-Regular.woff",
        "mathjax/input/tex/extensions/cancel.js",
        "mathjax/a11y/assistive-mml.js",
    ]
    dropped = [
        "mathjax/tex-svg-full.js",
        "mathjax/output/svg/fonts/tex.js",
        "mathjax/sre/mathmaps/en.json",
        "mathjax/input/tex/extensions/all-packages.js",
    ]
    for name in kept + dropped:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(name)
    trim(tmp_path)
    left = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert sorted(path.relative_to(tmp_path).as_posix() for path in left) == sorted(kept)


def test_samples_and_logs_can_be_downloaded(tmp_path):
    run, samples = tmp_path / "run", {}
    for number, arm in enumerate(("dpo", "ddpo-both-seed1")):
        texts = ["A \u201cstory\u201d,\nover two lines", f"of {arm}"]
        samples[arm] = pd.DataFrame({"prompt_id": ["p0", "p1"], "text": texts, "tokens": [3, number]})
        (run / f"samples-{arm}").mkdir(parents=True)
        samples[arm].to_parquet(run / f"samples-{arm}" / "samples.parquet")
    (run / "arm-dpo").mkdir()
    log = [{"step": 1, "loss": 0.7}, {"step": 2, "loss": 0.5, "weight/mean": 1.0}]
    (run / "arm-dpo" / "log.json").write_text(json.dumps(log))
    write_downloads(run, tmp_path)
    with ZipFile(tmp_path / "samples.zip") as archive:
        assert archive.namelist() == ["ddpo-both-seed1.jsonl", "dpo.jsonl"]
        for arm, table in samples.items():
            lines = archive.read(f"{arm}.jsonl").decode().splitlines()
            assert [json.loads(line) for line in lines] == table.to_dict("records")
    with ZipFile(tmp_path / "logs.zip") as archive:
        read = pd.read_csv(io.BytesIO(archive.read("arm-dpo.csv")))
    assert read["loss"].tolist() == [0.7, 0.5] and read["weight/mean"].isna().tolist() == [True, False]
    once = (tmp_path / "samples.zip").read_bytes()
    write_downloads(run, tmp_path)
    assert (tmp_path / "samples.zip").read_bytes() == once
