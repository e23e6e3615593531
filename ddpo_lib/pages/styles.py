"""The style sheets of pages -> one sheet with the rules that the pages can use, and one small font for its icons.

A rule is kept if the classes and ids of one of its selectors occur in a page or in a script. What is inside `:not()`,
`:is()` and their like, and attributes, are not looked at: rules that only differ there are kept.
"""

import re
from collections.abc import Iterable
from itertools import pairwise
from pathlib import Path

import tinycss2
from tinycss2.ast import AtRule, Comment, Declaration, Node, QualifiedRule, WhitespaceToken

NESTED = {"media", "supports", "container", "layer"}  # at-rules that contain rules
MADE_IN_SCRIPTS = ("bs-tooltip", "ddpo-")  # beginnings of class names that a script may put together
ICONS = range(0xE000, 0xF900)  # where fonts have their icons
URL = re.compile(r"url\((?!['\"]?(?:data:|#))['\"]?([^'\")?#]+)[^)]*\)")


def used_rules(css: str, words: set[str]) -> str:
    """A style sheet without the rules, fonts and animations that no page uses, and without blanks that say nothing.

    Args:
        css: the sheet.
        words: every class name, every id and whatever else may be one, of all pages and scripts.

    Returns:
        The sheet, whose rules are in the same order.
    """
    rules = _used(tinycss2.parse_stylesheet(css, skip_comments=True), words)
    names = _names(rules)
    kept = [rule for rule in rules if not isinstance(rule, AtRule) or _is_named(rule, names)]
    return "\n".join(_text(rule) for rule in kept)


def with_urls(css: str, folder: Path, root: Path) -> str:
    """A style sheet whose relative URLs begin at another folder.

    Args:
        css: a sheet that lies in `folder`.
        folder: where it lies.
        root: where it is to lie.
    """

    def moved(found: re.Match) -> str:
        place = (folder / found[1]).resolve()
        return f"url({place.relative_to(root.resolve()).as_posix()})" if place.is_file() else found[0]

    return URL.sub(moved, css)


def shrink_icons(css: str, static: Path) -> str:
    """Replace the icon fonts of a style sheet, which are in TrueType beside their other forms, by the icons it uses.

    Args:
        css: the sheet, which lies in `static`.
        static: the small fonts are written here, as `icons-WEIGHT.woff`.

    Returns:
        The sheet with the new fonts; a font of which no icon is used is not in it.
    """
    icons = {character for character in _strings(css) if ord(character) in ICONS}

    def smaller(found: re.Match) -> str:
        file = next((static / name for name in URL.findall(found[0]) if name.endswith(".ttf")), None)
        if file is None:
            return found[0]
        name = f"icons-{file.stem}.woff"
        if not _write_subset(file, static / name, icons):
            return ""
        return re.sub(r"src:.*?(?=[;}])", f'src:url({name}) format("woff")', found[0], count=1, flags=re.DOTALL)

    return re.sub(r"@font-face\s*{[^}]*}", smaller, css)


def _write_subset(font: Path, place: Path, characters: Iterable[str]) -> bool:
    """Write the glyphs of some characters as a font; False if it has none of them."""
    from fontTools import subset

    options = subset.Options(flavor="woff", notdef_outline=True, layout_features=[])
    loaded = subset.load_font(str(font), options)
    held = {ord(character) for character in characters} & set(loaded.getBestCmap())
    if held:
        subsetter = subset.Subsetter(options)
        subsetter.populate(unicodes=held)
        subsetter.subset(loaded)
        loaded["head"].modified = loaded["head"].created  # the same pages give the same bytes
        loaded.recalcTimestamp = False
        subset.save_font(loaded, str(place), options)
    return bool(held)


def _used(rules: list[Node], words: set[str]) -> list[Node]:
    kept = []
    for rule in rules:
        if isinstance(rule, QualifiedRule):
            selectors = [part for part in _selectors(rule.prelude) if _needs(part) <= words or _is_made(part)]
            if selectors:
                rule.prelude = [token for part in selectors for token in (*part, COMMA)][:-1]
                kept.append(rule)
        elif isinstance(rule, AtRule) and rule.lower_at_keyword in NESTED and rule.content is not None:
            rule.content = _used(tinycss2.parse_rule_list(rule.content, skip_comments=True), words)
            kept += [rule] if rule.content else []
        elif isinstance(rule, AtRule) and rule.lower_at_keyword != "charset":
            kept.append(rule)
    return kept


COMMA = tinycss2.parse_component_value_list(",")[0]


def _selectors(prelude: list[Node]) -> list[list[Node]]:
    parts: list[list[Node]] = [[]]
    for token in prelude:
        if token.type == "literal" and token.value == ",":
            parts.append([])
        else:
            parts[-1].append(token)
    return parts


def _needs(selector: list[Node]) -> set[str]:
    """The classes and ids of a selector, less those in its parentheses."""
    needs = {token.value for token in selector if token.type == "hash"}
    for before, token in pairwise(selector):
        if before.type == "literal" and before.value == "." and token.type == "ident":
            needs.add(token.value)
    return needs


def _is_made(selector: list[Node]) -> bool:
    return any(name.startswith(MADE_IN_SCRIPTS) for name in _needs(selector))


def _names(rules: list[Node]) -> set[str]:
    """Names that values of declarations contain: of fonts, animations and variables."""
    text = " ".join(_text(rule) for rule in rules if not isinstance(rule, AtRule) or rule.lower_at_keyword in NESTED)
    return set(re.findall(r"[A-Za-z_][\w-]*", text))


def _is_named(rule: AtRule, names: set[str]) -> bool:
    """Whether an animation is used. Every other rule is."""
    if not rule.lower_at_keyword.endswith("keyframes"):
        return True
    return tinycss2.serialize(rule.prelude).strip() in names


def _text(rule: Node) -> str:
    if isinstance(rule, AtRule) and rule.lower_at_keyword in NESTED and rule.content is not None:
        inner = "".join(_text(part) for part in rule.content)
        return f"@{rule.at_keyword}{_shorter(rule.prelude)}{{{inner}}}"
    if isinstance(rule, QualifiedRule):
        return f"{_shorter(rule.prelude).strip()}{{{_declarations(rule.content)}}}"
    return tinycss2.serialize([rule])


def _declarations(content: list[Node]) -> str:
    parts = tinycss2.parse_blocks_contents(content, skip_comments=True, skip_whitespace=True)
    if not all(isinstance(part, Declaration) for part in parts):
        return _shorter(content)  # nested rules
    return ";".join(
        f"{part.name}:{_shorter(part.value).strip() or ' '}{'!important' * part.important}" for part in parts
    )


def _shorter(tokens: list[Node]) -> str:
    """The tokens with one blank for many, and no comments."""
    blank = WhitespaceToken(0, 0, " ")
    plain = (blank if isinstance(token, WhitespaceToken) else token for token in tokens)
    return tinycss2.serialize([token for token in plain if not isinstance(token, Comment)])


def _strings(css: str) -> set[str]:
    """The characters of all strings of a sheet, whose escapes are resolved."""
    todo, found = tinycss2.parse_component_value_list(css), set()
    while todo:
        token = todo.pop()
        found.update(token.value if token.type == "string" else "")
        todo += getattr(token, "content", None) or getattr(token, "arguments", None) or []
    return found
