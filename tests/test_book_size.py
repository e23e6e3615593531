"""The size of a built book, of one written by hand."""

from benchmarks.book_size import by_kind, first_page, rows


def test_every_file_counts_once_and_the_first_page_with_what_it_loads(tmp_path):
    assert rows(tmp_path) == []
    files = {
        "00a-welcome.html": '<link rel="stylesheet" href="_static/a.css" /><script defer src="_static/b.js"></script>'
        '<script src="_static/mathjax/c.js"></script><img src="data:image/png;base64,AA"><a href="use.html">use</a>',
        "use.html": "use",
        "_static/a.css": "p{}",
        "_static/b.js": "b();",
        "_static/mathjax/c.js": "c()",
        "_static/samples.zip": "zip",
        "_sources/use.md": "source",
        "searchindex.js": "index",
        "book.pdf": "paper" * 100,
    }
    for name, content in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(content)
    welcome = len(files["00a-welcome.html"])
    assert by_kind(tmp_path) == {
        "pages with their figures": welcome + 3,
        "the script that draws maps": 0,
        "the script and the fonts of equations": 3,
        "samples and logs to download": 3,
        "sources to download": 6,
        "the index of the search": 5,
        "all else": 7,
    }
    assert first_page(tmp_path) == {"00a-welcome.html": welcome, "_static/a.css": 3, "_static/b.js": 4}
    assert [row.met for row in rows(tmp_path) if row.asked] == [True, True, True]
    (tmp_path / "_static" / "b.js").write_text(" " * 400_001)
    assert [row.met for row in rows(tmp_path) if row.asked] == [True, False, True]
