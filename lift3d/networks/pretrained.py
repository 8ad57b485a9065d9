"""Load models of the `transformers` library: no code of the model's folder is run."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from lift3d.networks.weights import expanded
from lift3d.scene.guarded import file_size, reading

ADVICE = (
    "give a folder with config.json, preprocessor_config.json and complete weights, or the name "
    "of one on the Hugging Face hub; download it again if it is cut short"
)


def pretrained(kind: Any, checkpoint: str, local_files_only: bool, **options: Any) -> Any:
    """`kind.from_pretrained` of a folder or of a name on the hub.

    InputError where it cannot be loaded, or where it could only be loaded by running Python that
    comes with it.
    """
    where = expanded(checkpoint)
    source = str(where) if where.exists() else checkpoint
    for each in where.iterdir() if where.is_dir() else ():
        if each.exists() and not each.is_dir():
            file_size(each)  # a pipe would be waited for
    with reading(checkpoint, "a model of transformers", advice=ADVICE):
        return kind.from_pretrained(
            source, local_files_only=local_files_only, trust_remote_code=False, **options
        )


@contextmanager
def quiet() -> Iterator[None]:
    """Without transformers' progress bar and report while weights are read."""
    from transformers.utils import logging

    before = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(before[0])
        if before[1]:
            logging.enable_progress_bar()
