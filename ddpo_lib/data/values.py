"""The values of a record's fields, checked: text, score, list and truth value. A wrong one raises an InputError that
names where it is."""

import ast
import json
import math
import re
from decimal import Decimal

from ddpo_lib.base.errors import InputError

LARGEST = 1e300  # a larger score is refused as a mistake, since sums of it would overflow
HALF = re.compile("[\ud800-\udfff]")  # half of a character


def text_of(value, where: str) -> str:
    """A text without the white space around it; bytes, as Parquet without its text mark gives, are UTF-8.

    None gives an empty text. Half a character, left where a tool cut a text, becomes U+FFFD. A list of one message, as
    in data for chat models, gives the message's text; the profile's `template` says how a model is addressed.
    """
    if value is None:
        return ""
    if isinstance(value, list) and value and all(isinstance(each, dict) and "content" in each for each in value):
        if len(value) > 1:
            raise InputError(
                f"{where}: {len(value)} messages; a corpus has one text per prompt and response. Join them to a text, "
                "or give pairs of messages to `DeviationTrainer`"
            )
        return text_of(value[0]["content"], f"{where}, message")
    if isinstance(value, bytes):
        try:
            value = value.decode("utf-8")
        except UnicodeDecodeError as error:
            raise InputError(f"{where}: not UTF-8 at byte {error.start}; save the text as UTF-8") from None
    if not isinstance(value, str):
        raise InputError(f"{where}: expected text, got {kind(value)}")
    return value.strip()


def has_half(text: str) -> bool:
    """Whether a text contains half a character (a lone surrogate), which no file can hold as UTF-8."""
    return bool(HALF.search(text))


def whole(text: str) -> str:
    """The text with U+FFFD for each half of a character; two halves that belong together become their character."""
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def score_of(value, where: str) -> float | None:
    """A finite number or None; NaN stays, for the caller to count."""
    if value is None:
        return None
    if isinstance(value, Decimal):  # as DuckDB writes 1.5
        value = float(value)
    if isinstance(value, float) and math.isnan(value):
        return value
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not abs(value) <= LARGEST:
        got = value if isinstance(value, float) else kind(value)
        raise InputError(f"{where}: expected a finite number or null, got {got}")
    return value


def flag_of(value, where: str) -> bool | None:
    if value is not None and not isinstance(value, bool):
        raise InputError(f"{where}: expected true, false or null, got {kind(value)}")
    return value


def list_of(record: dict, name: str, where: str, *, optional: bool = False) -> list:
    """A field with a list, or with a list as JSON text; null is an empty list. Columns of lists become a list of rows.

    Args:
        optional: a record without the field has an empty list too.
    """
    if name not in record and not optional:
        raise InputError(f"{where}, field `{name}`: expected a list, but there is no such field; {fields(record)}")
    value = record.get(name)
    if isinstance(value, bytes):
        value = text_of(value, f"{where}, field `{name}`")
    if isinstance(value, str) and value.lstrip()[:1] in ("[", "{"):
        value = _parsed(value, f"{where}, field `{name}`")
    if isinstance(value, dict) and value and all(isinstance(column, list) for column in value.values()):
        sizes = {len(column) for column in value.values()}
        if len(sizes) > 1:
            raise InputError(f"{where}, field `{name}`: its lists have {', '.join(map(str, sorted(sizes)))} entries")
        value = [dict(zip(value, row, strict=True)) for row in zip(*value.values(), strict=True)]
    if value is None or (isinstance(value, str) and not value.strip()):
        return []
    if not isinstance(value, list):
        raise InputError(f"{where}, field `{name}`: expected a list, got {kind(value)}")
    return value


def _parsed(text: str, where: str):
    """JSON text, or a list as Python prints it, which pandas writes into CSV. Nothing in it is run."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        try:
            return ast.literal_eval(text.strip())
        except (ValueError, SyntaxError, RecursionError, MemoryError):
            raise InputError(f"{where}: a text that is neither JSON nor a list; write it with json.dumps") from None


def fields(record: dict) -> str:
    return f"it has {', '.join(map(repr, record)) or 'no fields'}"


def kind(value) -> str:
    names = {type(None): "nothing", str: "text", bool: "a truth value", list: "a list", dict: "an object"}
    return names.get(type(value), f"{type(value).__name__} {value!r:.80}")
