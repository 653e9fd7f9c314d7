"""What MLflow imports to load an exported version: the ``loader_module`` of its ``MLmodel``.

Folders that were exported stay where they are for years, so this module's name and
``_load_pyfunc`` are a public interface, though nothing here calls it.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from perennial.bundle.predictor import Predictor
from perennial.bundle.read import open_bundle
from perennial.data.frames import Rows


class Model:
    """One version behind MLflow's ``predict``."""

    def __init__(self, predictor: Predictor) -> None:
        self._predictor = predictor

    def predict(self, model_input: Rows) -> np.ndarray:
        """Raw rows → float32: binary (n,) the probability of the positive class, multiclass
        (n, classes), regression (n,). The bits of ``Predictor.predict``; raises as it does."""
        return self._predictor.predict(model_input).values


def _load_pyfunc(path: str) -> Model:
    """The bundle in a folder that is named by its digest. Raises as ``open_bundle`` and
    ``Predictor``."""
    folder = Path(path)
    return Model(Predictor(open_bundle(folder, folder.name)))
