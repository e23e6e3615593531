"""The book as one PDF: its order, its outline, its links, and what a reader without a browser is told."""

import pytest
import yaml
from pypdf import PdfReader
from readers import beyond_paper, outline

from ddpo_lib.base.errors import InputError
from ddpo_lib.pages.paper import write_pdf

ORDER = {
    "format": "jb-book",
    "root": "first",
    "parts": [
        {"caption": "Read", "chapters": [{"file": "wide"}, {"file": "last"}]},
        {"caption": "Use <it>", "chapters": [{"file": "use"}]},
    ],
}
PAGES = {
    "first": '<h1>Start<a class="headerlink" href="#start">#</a></h1>\n<p>See <a href="last.html#far">there</a>, '
    '<a href="_static/all.zip">files</a> and <a href="https://example.org/x">more</a>.</p><button>press</button>',
    "wide": f'<h1>Wide</h1>\n<h2 id="far">One</h2><figure><div class="ddpo-scroll"><table class="ddpo-table">'
    f"<tr>{'<td>a longer cell</td>' * 12}</tr></table></div></figure><pre>{'verylongname' * 30}</pre>",
    "last": '<h1>Last</h1>\n<details class="hide above-input"><summary>Show</summary>plot()</details><details>'
    '<summary>More</summary><p>Unfolded.</p></details><h2 id="far">Far</h2><div class="ddpo-still">Still form.</div>'
    '<div class="ddpo-part">Needs a mouse.</div>',
    "use": "<h1>Use</h1>\n<p>The end.</p>",
}


@pytest.fixture
def book(tmp_path):
    for stem, body in PAGES.items():
        head = f"<head><title>{stem.title()} — A book</title><script>throw 1</script></head>"
        (tmp_path / f"{stem}.html").write_text(
            f"<!DOCTYPE html><html>{head}<body><h1>Contents</h1>\n<article>{body}</article></body></html>"
        )
    (tmp_path / "_toc.yml").write_text(yaml.safe_dump(ORDER))
    return tmp_path


def test_the_pdf_has_the_order_the_outline_and_the_links_of_the_book(launch, book):
    pdf = write_pdf(book, book / "_toc.yml")
    assert pdf == book / "book.pdf" and not list(book.glob(".*"))
    reader = PdfReader(pdf)
    entries = outline(reader)
    assert [entry[:2] for entry in entries] == [
        *((0, "Start"), (0, "Read"), (1, "Wide"), (2, "One"), (1, "Last"), (2, "Far")),
        *((0, "Use <it>"), (1, "Use")),
    ]
    places = {title: page for _, title, page in entries}
    assert places["Start"] == 0 and places["Far"] == places["Last"] and places["Wide"] < places["Last"] < places["Use"]
    assert reader.metadata.title == "A book"
    texts = [page.extract_text() for page in reader.pages]
    assert "Unfolded." in texts[places["Last"]] and "Still form." in texts[places["Last"]]
    assert "The end." in texts[-1]
    for word in ("plot()", "press", "Needs a mouse", "Contents"):
        assert word not in "".join(texts)
    assert beyond_paper(reader) == []
    for page in reader.pages:
        assert (round(page.mediabox.width), round(page.mediabox.height)) == (595, 842)  # A4, in points
    links = [link.get_object() for link in reader.pages[0]["/Annots"]]
    assert [link["/A"]["/URI"] for link in links if "/A" in link and "/URI" in link["/A"]] == ["https://example.org/x"]
    assert len(links) == 2  # the other leads to a place in the book
    target = next(link["/Dest"] for link in links if "/Dest" in link)
    assert reader.get_destination_page_number(reader.named_destinations[target]) == places["Far"]


def test_the_first_page_links_the_pdf_once(launch, book):
    for _ in range(2):
        write_pdf(book, book / "_toc.yml")
    text = (book / "first.html").read_text()
    assert text.count('href="book.pdf"') == 1
    assert "The whole book as one PDF" in text[text.index("Start<a") : text.index("See")]


def test_without_a_browser_or_a_book_a_reader_learns_what_to_do(book, monkeypatch):
    monkeypatch.setenv("PATH", str(book))
    with pytest.raises(InputError, match="apt-get install chromium"):
        write_pdf(book, book / "_toc.yml")
    assert not (book / "book.pdf").exists() and "book.pdf" not in (book / "first.html").read_text()
    (book / "first.html").unlink()
    with pytest.raises(InputError, match="make read"):
        write_pdf(book, book / "_toc.yml")
