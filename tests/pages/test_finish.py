"""Pages as Sphinx writes them become pages with few files; what no page names is not shipped."""

import base64
import re

import pytest

from ddpo_lib.pages.finish import finish, index, sweep

HEAD = """<html><head><title>{title} — The &amp; book</title>
<link href="_static/styles/theme.css?digest=1" rel="stylesheet" />
<link rel="stylesheet" type="text/css" href="_static/own.css?v=2" />
<script defer src="_static/scripts/fontawesome.js?digest=1"></script>
<link rel="preload" as="script" href="_static/scripts/boot.js?digest=1" />
<script src="_static/options.js?v=1"></script>
<script>let setting = 1;</script>
<script data-prefix="tab" src="_static/tabs.js"></script>
<script>OPTIONS.page = '{title}';</script>
<script defer="defer" src="_static/mathjax/tex-chtml.js"></script>
<script src="_static/searchtools.js"></script>
<script src="searchindex.js"></script>
</head><body>{body}
<script defer src="_static/scripts/boot.js?digest=1"></script>
<script defer src="_static/scripts/theme.js?digest=1"></script></body></html>"""
FILES = {
    "styles/theme.css": '@import "../basic.css"; .shown{top:0} .hidden-here{top:1px}',
    "basic.css": "p{top:2px}",
    "own.css": ".added{background:url(dot.png)}",
    "dot.png": "",
    "options.js": "const OPTIONS = {};",
    "tabs.js": '"use strict"; const name = "added";\n//# sourceMappingURL=tabs.js.map',
    "scripts/boot.js": "boot()",
    "scripts/theme.js": "theme()",
    "scripts/boot.js.LICENSE.txt": "MIT",
    "scripts/fontawesome.js": "",
    "searchtools.js": "",
    "mathjax/tex-chtml.js": "",
    "parts.js": "",
    "samples.zip": "",
    "two words & one.csv": "",
    "unused.png": "",
}


@pytest.fixture
def book(tmp_path):
    for name, content in FILES.items():
        place = tmp_path / "_static" / name
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(content)
    svg = base64.b64encode(b'<svg><path d="M 1.23456 2"/></svg>').decode()
    bodies = {
        "first": f'<p class="shown"><img src="data:image/svg+xml;base64,{svg}"></p><div class="ddpo-scroll"></div>',
        "second": '<span class="math">\\(x\\)</span><a href="_static/samples.zip">all</a>'
        '<a href="_static/two%20words%20&amp;%20one.csv">one</a>'
        '<script>load("parts.js")</script>',
        "search": '<div id="search-results"></div>',
    }
    for name, body in bodies.items():
        (tmp_path / f"{name}.html").write_text(HEAD.format(title=name.title(), body=body))
    (tmp_path / "index.html").write_text('<meta http-equiv="Refresh" content="0; url=first.html" />')
    finish(tmp_path)
    return tmp_path


def loaded(page) -> list[str]:
    return re.findall(r'(?:src|href)="((?:_static/|searchindex)[^"]+)"', page.read_text())


def test_a_page_loads_one_sheet_and_two_scripts(book):
    first = loaded(book / "first.html")
    assert [re.sub(r"-\w{8}", "", name) for name in first] == [
        "_static/pages.css",
        "_static/start.js",
        "_static/end.js",
    ]
    assert set(first) <= set(loaded(book / "second.html"))  # the same files, which a browser keeps
    assert (book / first[0]).read_text().split("\n") == [
        "p{top:2px}",
        ".shown{top:0}",
        ".added{background:url(dot.png)}",
    ]
    start = (book / first[1]).read_text()
    assert start.index("OPTIONS") < start.index("use strict") and "sourceMapping" not in start
    assert (book / first[2]).read_text().split() == [";", "boot()", ";", "theme()"]
    text = (book / "first.html").read_text()
    assert text.index("let setting") < text.index("start-") < text.index("OPTIONS.page") and 'data-prefix="tab"' in text


def test_equations_and_search_load_where_they_are_used(book):
    assert "_static/mathjax/tex-chtml.js" in loaded(book / "second.html")
    assert "_static/mathjax/tex-chtml.js" not in loaded(book / "first.html")
    assert "tabIndex" in (book / "second.html").read_text() and "tabIndex" not in (book / "first.html").read_text()
    assert {"_static/searchtools.js", "searchindex.js"} <= set(loaded(book / "search.html"))
    assert not {"_static/searchtools.js", "searchindex.js"} & set(loaded(book / "first.html"))
    assert "SHOW_SEARCH_SUMMARY" in (book / "search.html").read_text()


def test_what_no_page_names_is_deleted(book):
    left = {path.relative_to(book / "_static").as_posix() for path in (book / "_static").rglob("*") if path.is_file()}
    assert {re.sub(r"-\w{8}", "", name) for name in left} == {
        *("pages.css", "start.js", "end.js", "dot.png", "searchtools.js", "parts.js", "samples.zip"),
        "two words & one.csv",
        *("mathjax/tex-chtml.js", "scripts/boot.js.LICENSE.txt"),
    }
    sweep(book)
    assert all((book / "_static" / name).is_file() for name in left)


def test_figures_are_short_and_tables_can_be_scrolled_by_keys(book):
    text = (book / "first.html").read_text()
    assert "data:image/svg+xml,%3Csvg%3E%3Cpath d='M1.23 2'/%3E%3C/svg%3E" in text
    assert '<div class="ddpo-scroll" tabindex="0">' in text


def test_the_index_has_a_title_a_language_and_a_link(book):
    text = (book / "index.html").read_text()
    assert text == index("first.html", "The & book")
    assert '<html lang="en">' in text and "<title>The &amp; book</title>" in text
    assert '<a href="first.html">' in text and 'content="0; url=first.html"' in text
