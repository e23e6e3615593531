"""The one error that a user's input raises: it says where the fault is and what to do."""


class InputError(ValueError):
    """Input that cannot be used. The message names the file, the row, the field and the remedy.

    The command line prints the message alone and exits with status 2.
    """
