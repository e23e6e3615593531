"""What is shipped with the built pages."""

from ddpo_lib.report.book import trim


def test_what_no_page_loads_is_not_shipped(tmp_path):
    kept = [
        "book.css",
        "plotly.js",
        "scripts/theme.js",
        "mathjax/tex-chtml.js",
        "mathjax/output/chtml/fonts/woff-v2/MathJax_Main-Regular.woff",
        "mathjax/input/tex/extensions/cancel.js",
        "mathjax/sre/mathmaps/en.json",
    ]
    dropped = [
        "scripts/theme.js.map",
        "locales/de/messages.po",
        "mathjax/tex-svg-full.js",
        "mathjax/output/svg/fonts/tex.js",
        "mathjax/sre/mathmaps/hi.json",
    ]
    for name in kept + dropped:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(name)
    trim(tmp_path)
    left = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert sorted(path.relative_to(tmp_path).as_posix() for path in left) == sorted(kept)
