"""Examples at the end of a command's `--help`."""


def examples(*lines: str) -> str:
    """An epilog that shows shell lines as they are typed, one per line of at most 76 characters.

    The command line joins the lines of a paragraph, so each line is a paragraph.
    """
    return "\n\n".join(["Examples:", *lines])
