"""The one error that a user's input raises, with where the fault is and what to do; how a terminal shows messages."""

import logging


class InputError(ValueError):
    """Input that cannot be used. The message names the file, the row, the field and the remedy.

    The command line prints the message alone and exits with status 2.
    """


# what pandas and pyarrow raise for a damaged Parquet file; an OSError with a number is one of the disk
DAMAGED_TABLE = (OSError, ValueError, KeyError, TypeError, AttributeError, IndexError)


def first_line(error: Exception) -> str:
    """What an error says, in one line; its kind, if it says nothing."""
    return (str(error).splitlines() or [type(error).__name__])[0]


def printable(text: str) -> str:
    """A text without characters that control a terminal; they are written as `\\x1b`.

    Messages quote what servers and files contain, which could otherwise move the cursor, change colours or a title.
    """
    return "".join(sign if sign.isprintable() or sign in "\n\t" else ascii(sign)[1:-1] for sign in text)


class Printable(logging.Formatter):
    """Formats log lines for a terminal, see `printable`."""

    def format(self, record: logging.LogRecord) -> str:
        return printable(super().format(record))
