"""A prompt and a mode -> every text in which the grammar writes that mode;
a text -> its mode, and its tokens.

A prompt names a hero, a place and an object. A story about them has a plot (what happens), a voice (how it is told),
and may have a flaw. There are two flaws:

- "object": the closing names another object than the opening. A space that counts words can detect it, since few other
  stories contain that word.
- "order": closings name object and place ("the lamp and the harbour"); in a flawed story the two are swapped ("the
  harbour and the lamp"). Each flawed story has the same words as a good one, in another order. So a space that counts
  words cannot detect it.

`read_mode` recovers plot, voice and flaw from any text that the grammar can write.
"""

import math
import re
from collections.abc import Iterator, Sequence
from functools import cache
from itertools import chain, product
from pathlib import Path
from typing import NamedTuple

import numpy as np
import yaml

PAD, END, SEPARATOR, UNKNOWN = "<pad>", "<end>", "<story>", "<unknown>"
FLAWS = ("object", "order")
TOKEN = r" ?[\w']+| ?[^\w\s]"  # a word or a mark, with the space before it

_FILE = Path(__file__).with_name("modeworld.yaml")
_LANGUAGE = yaml.safe_load(_FILE.read_text(encoding="utf-8"))
HEROES = tuple(_LANGUAGE["heroes"])
PLACES, OBJECTS = _LANGUAGE["places"], _LANGUAGE["objects"]  # name -> how a prompt names it
PLOTS, VOICES = tuple(_LANGUAGE["plots"]), tuple(_LANGUAGE["voices"])  # names, the most common first
_CONTENTS = tuple(_LANGUAGE["plots"].values())
_FRAMES = tuple((voice["openings"], voice["closings"]) for voice in _LANGUAGE["voices"].values())

_JOINED = "{} and the {}"
_SLOTS = dict.fromkeys(HEROES, "hero") | dict.fromkeys(PLACES, "place") | dict.fromkeys(OBJECTS, "object")
_NAMES = re.compile(rf"\b({'|'.join(_SLOTS)})\b")


class Mode(NamedTuple):
    """The plot and the voice of a story, and whether it is flawed. Plot and voice are ranks from 0, the most common."""

    plot: int
    voice: int
    flawed: bool


# Writing


def _prompt_wordings(hero: str, place: str, thing: str) -> list[str]:
    return [way.format(hero=hero, place=PLACES[place], thing=OBJECTS[thing]) for way in _LANGUAGE["prompts"]]


def wordings(prompt: str, mode: Mode) -> Iterator[str]:
    """Every text of a mode for a prompt, each once: 108 for a good story, 972 for a flawed one, with any kind of flaw.

    The voice has 3 openings and 3 closings, and the plot has 6 wordings. A good closing names the object, or object and
    place: 2 forms. A flawed closing has 18 forms. It names one of the 15 other objects; or place and object; or one of
    them twice. No world writes the last form, but a model that half avoids the flaw may.

    Raises:
        ValueError: no world writes this prompt.
    """
    return iter(_Wordings(prompt, mode))


class _Wordings(Sequence):
    """The texts of a mode by number: those of worlds with one of FLAWS, or all that `wordings` gives.

    A text is written only when it is requested, since a corpus needs few of them.
    """

    def __init__(self, prompt: str, mode: Mode, flaw: str | None = None):
        hero, place, thing = cast(prompt)
        if None in (hero, place, thing) or prompt not in _prompt_wordings(hero, place, thing):
            raise ValueError(f"prompt: not one that this world writes: {prompt!r}; expected one of `write_corpus`")
        self.cast = {"hero": hero, "place": place, "object": thing}
        openings, closings = _FRAMES[mode.voice]
        self.parts = (openings, _CONTENTS[mode.plot], closings, _ends(place, thing, mode.flawed, flaw))

    def __len__(self):
        return math.prod(map(len, self.parts))

    def __getitem__(self, number: int) -> str:
        if number >= len(self):
            raise IndexError(number)
        places = np.unravel_index(number, [len(part) for part in self.parts])
        opening, content, closing, end = (part[place] for part, place in zip(self.parts, places, strict=True))
        return f"{opening.format(**self.cast)} {content}{closing.format(object=end)}"


def _ends(place: str, thing: str, flawed: bool, flaw: str | None) -> list[str]:
    """The names in closings, for worlds with one kind of flaw or with any; see `wordings`."""
    one = [other for other in OBJECTS if (other != thing) == flawed]
    two = [(place, thing)] if flawed else [(thing, place)]
    if flaw is None and flawed:
        two += [(thing, thing), (place, place)]
    return (one if flaw != "order" else []) + ([_JOINED.format(*pair) for pair in two] if flaw != "object" else [])


# Reading


def read_mode(text: str) -> Mode | None:
    """The mode of a text with any hero, place and object; None if the grammar cannot write the text.

    Both kinds of flaw are recognised.
    """
    named, masked = _NAMES.findall(text), _NAMES.sub(lambda found: f"<{_SLOTS[found[0]]}>", text)
    known = _masked_stories().get(masked)
    if known is None or len(named) != masked.count("<"):  # the text itself contains a mask
        return None
    _, place, thing = cast(text)
    end = named[3:]  # the opening has three names
    if len(end) == 1:
        return Mode(*known, end != [thing])
    return Mode(*known, end != [thing, place]) if set(end) <= {thing, place} else None


def is_faithful(text: str, prompt: str) -> bool:
    """Whether the first hero, place and object that a text names are those of the prompt."""
    return cast(text) == cast(prompt)


def cast(text: str) -> tuple[str | None, str | None, str | None]:
    """The first hero, place and object that a text names; None for a kind that it does not name."""
    first = {_SLOTS[name]: name for name in reversed(_NAMES.findall(text))}
    return first.get("hero"), first.get("place"), first.get("object")


@cache
def _masked_stories() -> dict[str, tuple[int, int]]:
    """Every story, with <hero>, <place> and <object> in place of names -> its plot and its voice."""
    ends = ["<object>", *(_JOINED.format(*pair) for pair in product(("<object>", "<place>"), repeat=2))]
    stories = {}
    for (plot, contents), (voice, (openings, closings)) in product(enumerate(_CONTENTS), enumerate(_FRAMES)):
        for opening, content, closing, end in product(openings, contents, closings, ends):
            start = opening.format(hero="<hero>", place="<place>", object="<object>")
            stories[f"{start} {content}{closing.format(object=end)}"] = plot, voice
    return stories


# Tokens


@cache
def vocabulary() -> tuple[str, ...]:
    """Every word and mark of prompts and stories, with the space before it if there is one; sorted."""
    tokens = set()
    for cast in zip(HEROES, PLACES, OBJECTS, strict=True):
        prompts = _prompt_wordings(*cast)
        stories = (
            wordings(prompts[0], Mode(plot, voice, False))
            for plot, voice in product(range(len(PLOTS)), range(len(VOICES)))
        )
        for text in chain(prompts, *stories):
            tokens.update(re.findall(TOKEN, text))
    return tuple(sorted(tokens))


def tokenizer():
    """A fast tokenizer with `vocabulary()` and four special tokens; decoding its tokens restores a text exactly.

    A response ends with its `eos_token`; `sep_token` stands between prompt and response.
    """
    from tokenizers import Regex, Tokenizer, decoders
    from tokenizers.models import WordLevel
    from tokenizers.pre_tokenizers import Split
    from transformers import PreTrainedTokenizerFast

    words = [PAD, END, SEPARATOR, UNKNOWN, *vocabulary()]
    inner = Tokenizer(WordLevel({word: i for i, word in enumerate(words)}, unk_token=UNKNOWN))
    inner.pre_tokenizer = Split(Regex(TOKEN), "isolated")
    inner.decoder = decoders.Fuse()
    return PreTrainedTokenizerFast(
        tokenizer_object=inner,
        pad_token=PAD,
        eos_token=END,
        sep_token=SEPARATOR,
        unk_token=UNKNOWN,
        padding_side="left",
        clean_up_tokenization_spaces=False,
    )
