"""The built pages -> the whole book as one PDF, through the browser.

All pages become one, in the order of the contents, so that links between chapters lead to their place in the PDF and
the browser writes the outline. Parts that readers change show their still form. Folded code is left out.
"""

import os
import re
import shutil
import subprocess
import tempfile
from pathlib import Path

import yaml

from ddpo_lib.base.errors import InputError

NAME = "book.pdf"
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
SECONDS = 300  # for the browser, on a slow machine
LINK = '<p class="ddpo-paper noprint"><a href="{name}">The whole book as one PDF</a> ({size:.1f} MB)</p>\n'
SHOWN = re.compile(r'<p class="ddpo-paper.*?</p>\n', re.DOTALL)
FOLDED = "hide"  # code that only plots
CLASS = ".//*[contains(concat(' ', @class, ' '), ' {} ')]"
LEFT_OUT = " | ".join(
    [".//script", ".//style", ".//button", *map(CLASS.format, ("headerlink", "ddpo-part", "ddpo-paper", FOLDED))]
)
LOOK = Path(__file__).with_name("paper.css")


def write_pdf(folder: Path, contents: Path) -> Path:
    """Print a built book to `book.pdf` beside its pages, and link it on the first page.

    Args:
        folder: the pages, as `finish` left them.
        contents: the book's `_toc.yml`.

    Returns:
        The PDF, on paper of size A4. Its outline has the parts, in them the pages, and in these their sections.

    Raises:
        InputError: there are no pages, there is no Chromium on the PATH, or the browser could not print.
    """
    order = yaml.safe_load(contents.read_text(encoding="utf-8"))
    first = folder / f"{order['root']}.html"
    if not first.is_file():
        raise InputError(f"{first}: is not there, so there is no built book; make it by `make read` or `make book`")
    program = next(filter(None, map(shutil.which, BROWSERS)), None)
    if program is None:
        raise InputError(
            f"no browser prints the PDF: none of {', '.join(BROWSERS)} is on the PATH; install Chromium, "
            "for example by `apt-get install chromium`"
        )
    whole, pdf = folder / ".whole-book.html", folder / NAME
    try:
        whole.write_text(one_page(folder, order), encoding="utf-8")
        _print(program, whole, pdf)
        _mend_outline(pdf, whole)
    finally:
        whole.unlink(missing_ok=True)
    before, article, text = SHOWN.sub("", first.read_text(encoding="utf-8")).partition("<article")
    link = LINK.format(name=NAME, size=pdf.stat().st_size / 1e6)
    first.write_text(before + article + text.replace("</h1>\n", f"</h1>\n{link}", 1), encoding="utf-8")
    return pdf


def one_page(folder: Path, order: dict) -> str:
    """All pages of a book as one page, in the order of its contents, without scripts but that for equations.

    Args:
        folder: the built pages.
        order: the content of `_toc.yml`.
    """
    from lxml import html

    stems = [order["root"], *(chapter["file"] for part in order["parts"] for chapter in part["chapters"])]
    documents = {stem: html.parse(str(folder / f"{stem}.html"), html.HTMLParser(encoding="utf-8")) for stem in stems}
    loaded = [document.getroot().head for document in documents.values()]
    title = documents[order["root"]].findtext(".//title").split(" — ")[-1].strip()
    body = html.Element("main", {"class": "bd-main bd-content bd-article"})
    body.append(_article(documents[order["root"]], order["root"], set(stems)))
    for part in order["parts"]:
        heading = html.Element("h1")
        heading.text = part["caption"]
        body.append(heading)
        for chapter in part["chapters"]:
            body.append(_article(documents[chapter["file"]], chapter["file"], set(stems)))
    sheets = "".join(f'<link rel="stylesheet" href="{sheet}">' for sheet in _sheets(loaded))
    head = (
        f'<!DOCTYPE html>\n<html lang="en" data-theme="light" data-mode="light"><head><meta charset="utf-8">'
        f"<title>{_escaped(title)}</title>{sheets}<style>{LOOK.read_text(encoding='utf-8')}</style>{_equations(loaded)}</head>"
    )
    return f"{head}\n<body>{html.tostring(body, encoding='unicode')}</body></html>\n"


def _article(document, stem: str, stems: set[str]):
    """A page's text as a section whose headings are one level lower and whose ids begin with the page's name."""
    from lxml import html

    article = document.xpath("//article")[0]
    article.tail = None
    for element in article.xpath(LEFT_OUT):
        if element.getparent() is not None:
            element.drop_tree()
    for details in article.iter("details"):
        details.set("open", "")
    for element in article.iter():
        if not isinstance(element.tag, str):
            continue
        if re.fullmatch("h[1-6]", element.tag):
            element.tag = f"h{min(6, int(element.tag[1]) + 1)}"
        if element.get("id"):
            element.set("id", f"{stem}--{element.get('id')}")
        target = element.get("href") if element.tag == "a" else None
        if target is not None:
            _point(element, target, stem, stems)
    section = html.Element("section", {"id": f"{stem}--"})
    section.append(article)
    return section


def _point(link, target: str, stem: str, stems: set[str]) -> None:
    """Turn a link to a page of the book into one within the PDF; one to a file beside the pages loses its target."""
    page, _, part = target.partition("#")
    if page in ("", *(f"{other}.html" for other in stems)):
        link.set("href", f"#{page.removesuffix('.html') or stem}--{part}")
    elif not re.match("https?:|mailto:", target):
        del link.attrib["href"]


def _sheets(heads) -> list[str]:
    found = (sheet for head in heads for sheet in head.xpath('.//link[@rel="stylesheet"]/@href'))
    return list(dict.fromkeys(found))


def _equations(heads) -> str:
    """The scripts that draw equations, of the first page that has any."""
    from lxml import html

    for head in heads:
        if loaded := head.xpath('.//script[contains(@src, "_static/mathjax/")]'):
            settings = head.xpath('.//script[starts-with(text(), "window.MathJax")]')
            return "".join(html.tostring(script, encoding="unicode", with_tail=False) for script in settings + loaded)
    return ""


def _print(program: str, page: Path, pdf: Path) -> None:
    options = ["--headless", "--disable-gpu", "--no-pdf-header-footer", "--generate-pdf-document-outline"]
    options += ["--virtual-time-budget=60000"]  # ms for equations; the browser's clock does not wait for them
    options += ["--no-sandbox"] if os.geteuid() == 0 else []  # which Chromium refuses to have as root
    with tempfile.TemporaryDirectory() as profile:
        command = [
            program,
            *options,
            f"--user-data-dir={profile}",
            f"--print-to-pdf={pdf.resolve()}",
            page.resolve().as_uri(),
        ]
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS, check=False)
        except subprocess.TimeoutExpired as error:
            raise InputError(f"{program}: printed no PDF in {SECONDS} s") from error
    if done.returncode or not pdf.is_file():
        raise InputError(f"{program}: could not print {pdf}:\n{done.stderr[-2000:]}")


def _mend_outline(pdf: Path, page: Path) -> None:
    """Write the headings of the page to the outline, in order: Chromium repeats words of a heading that it moved."""
    from lxml import html
    from pypdf import PdfWriter
    from pypdf.generic import NameObject, TextStringObject

    document = html.parse(str(page), html.HTMLParser(encoding="utf-8"))
    headings = [" ".join(h.text_content().split()) for h in document.iter("h1", "h2", "h3", "h4", "h5", "h6")]
    writer, entries = PdfWriter(clone_from=pdf), []
    todo = [writer.root_object["/Outlines"]]
    while todo:
        entry = todo.pop().get_object()
        entries += [entry] if "/Title" in entry else []
        todo += [entry[name] for name in ("/Next", "/First") if name in entry]
    if len(entries) == len(headings):
        for entry, words in zip(entries, headings, strict=True):
            entry[NameObject("/Title")] = TextStringObject(words)
        writer.write(pdf)


def _escaped(text: str) -> str:
    return text.replace("&", "&amp;").replace("<", "&lt;")
