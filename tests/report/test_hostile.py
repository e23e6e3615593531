"""Names and stories that are markup, through every writer of pages: nothing of them is loaded, run or lost."""

import base64
import gzip
import html
import io
import json
import re
from html.parser import HTMLParser

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from docutils.core import publish_doctree
from docutils.utils import Reporter
from IPython.core.interactiveshell import InteractiveShell
from IPython.utils.capture import capture_output
from myst_parser.parsers.docutils_ import Parser

from ddpo_lib.base.run_folder import Run
from ddpo_lib.interactive import deviation_map
from ddpo_lib.people import potato
from ddpo_lib.report import figures

HOSTILE = {
    "script": "<script>window.mark = 1</script>",
    "closed": "</script></figure></td><script>window.mark = 1</script>",
    "event": '"><img src=x onerror="window.mark = 1">',
    "entity": "&lt;b&gt; &amp; &#60;i&#62;",
    "image": "![seen](https://example.org/pixel.png)",
    "link": "[press](javascript:window.mark=1)",
    "reference": "[press][1]\n\n[1]: https://example.org",
    "autolink": "<https://example.org>",
    "table": "a | b\n--- | ---\n1 | 2",
    "math": "costs $5$ and \\(x\\) and $$y$$ and \\begin{equation}x\\end{equation}",
    "bad math": "$\\nosuch{$",
    "backticks": "`code` and ``more``",
    "role": "{download}`/etc/passwd` {eval-rst}`x` {raw}`<b>`",
    "directive": "```{include} /etc/passwd\n```",
    "tildes": "~~~{raw} html\n<b>x</b>\n~~~",
    "colons": ":::{figure} https://example.org/pixel.png\n:::",
    "target": "(mark)=\n# A heading\n%comment\n+++",
    "python": "{{ 7 * 7 }} {% raw %} %s {0} {name}",
}
FORBIDDEN = {"raw", "image", "reference", "target", "math", "math_block", "pending", "comment", "figure"}


class Tags(HTMLParser):
    """The tags of a page, and the text between them."""

    def __init__(self, page: str):
        super().__init__()
        self.tags, self.text = [], ""
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data):
        self.text += data

    def names(self) -> list[str]:
        return [tag for tag, _ in self.tags]


def shown(display, *content, **options) -> dict:
    """What a function of `figures` displays, by type."""
    InteractiveShell.instance()
    with capture_output() as captured:
        display(*content, **options)
    return captured.outputs[0].data


def words(text: str) -> list[str]:
    return re.findall(r"\w+", text)


@pytest.mark.parametrize("text", HOSTILE.values(), ids=HOSTILE)
@pytest.mark.parametrize("sentence", ["The source {} is the rarest.", "{}", "- A list: {}\n- and more"])
def test_prose_shows_markup_as_it_is_written(text, sentence):
    said = shown(figures.say, sentence.replace("{}", text))["text/markdown"]
    settings = {
        "myst_enable_extensions": ["amsmath", "colon_fence", "deflist", "dollarmath", "html_image"],  # as _config.yml
        "report_level": Reporter.SEVERE_LEVEL,
    }
    tree = publish_doctree(said, parser=Parser(), settings_overrides=settings)
    found = {node.tagname for node in tree.findall() if hasattr(node, "tagname")}
    assert not found & FORBIDDEN, tree.pformat()
    if text != HOSTILE["table"]:
        assert [word for word in words(text) if word not in words(tree.astext())] == []


def test_prose_keeps_its_own_markup():
    said = "**Bold**, `{loss: dpo, divpo: {}}`, {doc}`02-training`: 0.1 [0.0, 0.2] (p < 0.001).\n\n## More\n\n- one"
    assert figures.inert(said) == said.replace("<", "&lt;")


@pytest.mark.parametrize("text", HOSTILE.values(), ids=HOSTILE)
def test_tables_stories_and_captions_show_markup_as_it_is_written(text, tmp_path):
    figures.chapter(Run(tmp_path / text.replace("/", ""), {}), "01-name", on=text)
    frame = pd.DataFrame({text: [text], "b": ["1"]})
    page = Tags(shown(figures.table, frame, name="one", caption=text)["text/html"])
    fold = ["b", "details", "summary", "p", "a", "a"]
    assert set(page.names()) <= {"figure", "div", "table", "thead", "tbody", "tr", "th", "td", "figcaption", *fold}
    assert page.text.count(text) == 4
    (link,) = [attrs["href"] for tag, attrs in page.tags if "download" in attrs]
    data = pd.read_csv(io.BytesIO(base64.b64decode(link.partition("base64,")[2])), dtype=str)
    assert data.iloc[0].tolist() == [text, "1"]
    page = Tags(shown(figures.stories, [(text, text)], caption=text)["text/html"])
    assert set(page.names()) <= {"figure", "div", "p", "figcaption"}
    assert page.text.count(text) >= 2
    figure, axes = plt.subplots(figsize=(2, 2))
    figures.use_style()
    axes.plot([0, 1], label=text)
    axes.set_xlabel(text)
    axes.set_title(text)
    axes.legend()
    page = Tags(shown(figures.show, figure, name="one", alt=text, caption=text, data=frame, fold=text)["text/html"])
    assert page.names() == ["details", "summary", "figure", "div", "img", "figcaption", *fold]
    ((_, image),) = [tag for tag in page.tags if tag[0] == "img"]
    assert image["alt"] == text
    assert set(image) == {"class", "alt", "src"}
    picture = base64.b64decode(image["src"].partition("base64,")[2]).decode()
    assert "<script" not in picture


def test_the_map_holds_markup_as_data():
    texts = list(HOSTILE.values())
    points = pd.DataFrame(
        {
            "prompt_id": ["p0"] * len(texts),
            "prompt": ["\n".join(texts)] * len(texts),
            "text": texts,
            "who": texts,  # arms are named by users
            "score": np.arange(len(texts), dtype=float),
        }
    )
    for column in ("deviation semantic", "x semantic", "y semantic", "prompt x semantic", "prompt y semantic"):
        points[column] = np.linspace(0, 1, len(texts))
    page = deviation_map.page(points, caption="\n".join(texts))
    assert "window.mark" not in page.partition("<figcaption>")[0]
    tags = Tags(page)
    assert sorted(tags.names()) == ["div", "div", "figcaption", "figure", "script", "script"]  # its data and its start
    data = re.search(r'base64">([^<]*)</script>', page)[1]
    assert sorted(json.loads(gzip.decompress(base64.b64decode(data)))["text"]) == sorted(texts)


@pytest.mark.parametrize("text", HOSTILE.values(), ids=HOSTILE)
def test_the_page_of_a_study_shows_markup_as_it_is_written(text):
    page = potato.render(text, [text] * 4, [text] * 4)
    tags = Tags(page)
    assert set(tags.names()) <= {"div", "h2", "h3", "p"}
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    assert all(tags.text.count(line) >= 9 for line in lines)
    for forbidden in ("javascript:", "data:", "expression(", "{{", "{%"):
        assert forbidden not in html.escape(page, quote=False) or forbidden in ("{{", "{%")
