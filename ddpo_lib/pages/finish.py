"""Pages as Sphinx wrote them -> the book that readers get: few requests, no rule, script or file that no page uses.

Sphinx and its theme load some thirty files on every page, most of them for other books. Here they become one style
sheet, one script in the head and one at the end. What stays works from a file:// URL.
"""

import base64
import hashlib
import html
import re
from pathlib import Path
from urllib.parse import unquote

from ddpo_lib.pages.pictures import shrink, source
from ddpo_lib.pages.styles import shrink_icons, used_rules, with_urls

SHEET = re.compile(r'<link\b[^>]*?href="(_static/[^"?]+\.css)[^"]*"[^>]*>\s*')
SCRIPT = re.compile(r'<script\b([^>]*?)\ssrc="([^"?]+)[^"]*"([^>]*)>\s*</script>\s*')
PRELOAD = re.compile(r'<link\b[^>]*rel="preload"[^>]*>\s*')
IMPORT = re.compile(r'@import\s+(?:url\()?["\']?([^"\')]+)["\']?\)?\s*;')
SOURCE_MAP = re.compile(r"^//# sourceMappingURL=.*$", re.MULTILINE)
PICTURE = re.compile(r'(?<=src=")data:image/svg\+xml;base64,([A-Za-z0-9+/=]+)')
SCROLLED = '<div class="ddpo-scroll">'
ENTRY = 'role="doc-biblioentry"'  # of a bibliography, by docutils; its list must have list items
NAMES = re.compile(r'\b(?:class|id)="([^"]*)"')
WORD = re.compile(r"[A-Za-z_][\w-]*")
ICON_SCRIPT = "_static/scripts/fontawesome.js"  # 1.5 MB; the style sheet draws the same icons by a font
SEARCH = ("_static/searchtools.js", "_static/language_data.js", "searchindex.js")
SEARCH_PAGE = "search.html"
# a browser lets no page fetch another from a file, so the search shows titles alone there
NO_SUMMARY = '<script>DOCUMENTATION_OPTIONS.SHOW_SEARCH_SUMMARY &&= location.protocol !== "file:";</script>\n'
LARGE = ("plotly.min.js",)  # scripts that bring their own styles
MATHJAX = "_static/mathjax/"
# an equation that is too wide scrolls, so that readers without a mouse must reach it by keys
FOCUSED = """<script>MathJax.startup = { pageReady: () => MathJax.startup.defaultPageReady().then(() => document
  .querySelectorAll('mjx-container[display="true"]').forEach((equation) => { equation.tabIndex = 0; })) };</script>
"""
FIRST = re.compile(r"url=([^\"]+)")


def finish(folder: Path) -> None:
    """Make the pages of a built book small; the folder is changed in place.

    Args:
        folder: `_build/html` of the book, with everything that its pages load.
    """
    static = folder / "_static"
    pages = {path: path.read_text(encoding="utf-8") for path in sorted(folder.glob("*.html"))}
    for path, text in pages.items():
        text = text.replace(ENTRY, 'role="listitem"')
        text = text.replace(SCROLLED, f'{SCROLLED[:-1]} tabindex="0">')  # for readers who scroll by keys
        text = PRELOAD.sub("", PICTURE.sub(lambda found: _picture(found[1]), text))
        pages[path] = SCRIPT.sub(lambda found, path=path, text=text: _wanted(found, path, text), text)
    words = _words(static, pages.values())
    for path, text in pages.items():
        if path.name == SEARCH_PAGE:
            text = text.replace("</head>", f"{NO_SUMMARY}</head>")
        text = _one_sheet(folder, text, words)
        pages[path] = _one_script(folder, _one_script(folder, text, deferred=False), deferred=True)
    first = FIRST.search(pages.get(folder / "index.html", ""))
    if first:
        pages[folder / "index.html"] = index(first[1], _title(pages[folder / first[1]]))
    for path, text in pages.items():
        path.write_text(text, encoding="utf-8")
    sweep(folder)


def index(first: str, title: str) -> str:
    """The page that leads to the first one."""
    title, first = html.escape(title), html.escape(first)
    return (
        f'<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n<title>{title}</title>\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f'<meta http-equiv="refresh" content="0; url={first}">\n</head>\n<body>\n<main>\n<h1>{title}</h1>\n'
        f'<p><a href="{first}">Go to the first page</a></p>\n</main>\n</body>\n</html>\n'
    )


def sweep(folder: Path) -> None:
    """Delete the files of `_static` that no page, style sheet or script names; licences stay."""
    static, named = folder / "_static", set()
    for page in folder.glob("*.html"):
        text = page.read_text(encoding="utf-8")
        named |= {unquote(html.unescape(name)) for name in re.findall(r"_static/([^\"'?#)\s]+)", text)}
        named |= set(re.findall(r'"([\w.-]+\.(?:js|css))"', text))  # scripts of the parts of a page
    for sheet in [static / name for name in named if name.endswith(".css")]:
        named |= set(re.findall(r"url\(['\"]?([^'\")?#]+)", sheet.read_text(encoding="utf-8")))
    with_equations = any(name.startswith("mathjax/") for name in named)
    for file in [path for path in static.rglob("*") if path.is_file()]:
        name = file.relative_to(static).as_posix()
        if not (name in named or "LICENSE" in name or (with_equations and name.startswith("mathjax/"))):
            file.unlink()
    for place in sorted((path for path in static.rglob("*") if path.is_dir()), reverse=True):
        if not any(place.iterdir()):
            place.rmdir()


def _picture(coded: str) -> str:
    return source(shrink(base64.b64decode(coded).decode()))


def _wanted(found: re.Match, page: Path, text: str) -> str:
    """A script's element if the page uses it, else nothing."""
    name = found[2]
    if name == ICON_SCRIPT or (name in SEARCH and page.name != SEARCH_PAGE):
        return ""
    if name.startswith(MATHJAX):
        return f"{FOCUSED}{found[0]}" if 'class="math' in text else ""
    return found[0]


def _words(static: Path, pages) -> set[str]:
    """Every class and id of the pages, and every word of the scripts, which may add some."""
    words: set[str] = set()
    for text in pages:
        for names in NAMES.findall(text):
            words.update(names.split())
        for script in re.findall(r"<script[^>]*>([^<]+)</script>", text):
            words.update(WORD.findall(script[:20_000]))
    for script in static.rglob("*.js"):
        if script.name not in (*LARGE, Path(ICON_SCRIPT).name) and not script.is_relative_to(static / "mathjax"):
            words.update(WORD.findall(script.read_text(encoding="utf-8")))
    return words


def _one_sheet(folder: Path, text: str, words: set[str]) -> str:
    """A page that loads one style sheet for all it had; the sheet is written if it is not there."""
    names = SHEET.findall(text)
    if not names:
        return text
    file = folder / "_static" / f"pages-{_digest(*names)}.css"
    if not file.exists():
        css = "\n".join(_sheet(folder / name, folder / "_static") for name in names)
        file.write_text(shrink_icons(used_rules(css, words), file.parent), encoding="utf-8")
    link = f'<link rel="stylesheet" href="_static/{file.name}" />\n'
    places = iter([link] + [""] * (len(names) - 1))
    return SHEET.sub(lambda _: next(places), text)


def _sheet(file: Path, root: Path) -> str:
    """A style sheet with those that it imports."""
    css = with_urls(file.read_text(encoding="utf-8"), file.parent, root)
    return IMPORT.sub(lambda found: _sheet((file.parent / found[1]).resolve(), root.resolve()), css)


def _one_script(folder: Path, text: str, *, deferred: bool) -> str:
    """A page that loads one script for those that it had, in their order; of either kind, deferred or not."""

    def belongs(found: re.Match) -> bool:
        own = found[2].startswith("_static/") and not found[2].startswith(MATHJAX) and found[2] not in SEARCH
        return own and ("defer" in found[1] + found[3]) == deferred

    members = [found for found in SCRIPT.finditer(text) if belongs(found)]
    names = list(dict.fromkeys(found[2] for found in members))
    if len(names) < 2:
        return text
    file = folder / "_static" / f"{'end' if deferred else 'start'}-{_digest(*names)}.js"
    if not file.exists():
        parts = [SOURCE_MAP.sub("", (folder / name).read_text(encoding="utf-8")) for name in names]
        file.write_text(";\n" + "\n;\n".join(parts), encoding="utf-8")  # no "use strict" of one part rules all
    data = "".join(f" {part}" for part in re.findall(r'data-[\w-]+="[^"]*"', "".join(m[1] + m[3] for m in members)))
    element = f'<script{" defer" * deferred}{data} src="_static/{file.name}"></script>\n'
    places = iter([""] * (len(members) - 1) + [element])  # settings in the page, which some parts read, come before
    return SCRIPT.sub(lambda found: next(places) if belongs(found) else found[0], text)


def _digest(*names: str) -> str:
    return hashlib.sha256("\n".join(names).encode()).hexdigest()[:8]


def _title(page: str) -> str:
    """The title of the book, which follows that of the page."""
    return html.unescape(re.search(r"<title>(.*?)</title>", page, re.DOTALL)[1]).split(" — ")[-1].strip()
