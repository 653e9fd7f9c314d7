"""An MLflow model folder: the whole bundle, and a ``python_function`` flavour that predicts with it
from raw rows. It is loaded by ``perennial.bundle.pyfunc``; nothing in it is pickled.

::

    MLmodel                      flavour, signature, where the rest is
    bundle/<digest>/             the bundle as it is
    input_example.json           rows of the reference sample, as a DataFrame's "split"
    serving_input_example.json   the same as a request of ``mlflow models serve``
    requirements.txt  python_env.yaml  conda.yaml
"""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

import pandas as pd
import yaml

from perennial import __version__
from perennial.bundle.manifest import MANIFEST, manifest_bytes
from perennial.bundle.predictor import Predictor
from perennial.bundle.read import Bundle
from perennial.bundle.signing import SIGNATURE
from perennial.contracts.distribution import DISTRIBUTION
from perennial.contracts.features import InputColumn
from perennial.contracts.refs import VersionRef

_EXAMPLE_ROWS = 5
_EXACT = ("xgboost", "numpy", "pandas")
"""Libraries that decide a prediction's bits: pinned to those of the training."""
_PLAIN = {"float": "double", "integer": "long", "boolean": "boolean"}


def model_folder(bundle: Bundle, ref: VersionRef, created_at: datetime) -> dict[str, bytes]:
    """The folder's files. Raises InputError or IntegrityError when the bundle can't predict."""
    example = _example(Predictor(bundle).frame(bundle.reference().head(_EXAMPLE_ROWS)), bundle)
    data = f"bundle/{bundle.digest}"
    requirements = _requirements(bundle)
    python = bundle.lineage.get("python")  # what trains writes it; a bundle may be without
    return {
        "MLmodel": _yaml(_description(bundle, ref, created_at, data, python)),
        **{f"{data}/{name}": content for name, content in bundle.contents.items()},
        f"{data}/{MANIFEST}": manifest_bytes(bundle.manifest),
        **({} if bundle.signature is None else {f"{data}/{SIGNATURE}": bundle.signature}),
        "input_example.json": _json(example),
        "serving_input_example.json": _json({"dataframe_split": example}),
        "requirements.txt": "".join(f"{line}\n" for line in requirements).encode(),
        "python_env.yaml": _yaml(
            {
                **({"python": python} if python else {}),
                "build_dependencies": ["pip"],
                "dependencies": ["-r requirements.txt"],
            }
        ),
        "conda.yaml": _yaml(
            {
                "name": "mlflow-env",
                "channels": ["conda-forge"],
                "dependencies": [
                    *([f"python={python}"] if python else []),
                    "pip",
                    {"pip": requirements},
                ],
            }
        ),
    }


def _description(
    bundle: Bundle, ref: VersionRef, created_at: datetime, data: str, python: str | None
) -> dict[str, Any]:
    classes = bundle.schema.classes
    return {
        "flavors": {
            "python_function": {
                "data": data,
                "env": {"conda": "conda.yaml", "virtualenv": "python_env.yaml"},
                "loader_module": "perennial.bundle.pyfunc",
                **({"python_version": python} if python else {}),
            }
        },
        "metadata": {
            "perennial": {
                "model": ref.model,
                "version": ref.version,
                "digest": ref.digest,
                "objective": bundle.objective,
                "classes": list(classes) if classes else None,
            }
        },
        "model_size_bytes": sum(file.bytes for file in bundle.manifest.files.values()),
        "model_uuid": ref.digest[:32],
        "saved_input_example_info": {
            "artifact_path": "input_example.json",
            "pandas_orient": "split",
            "serving_input_path": "serving_input_example.json",
            "type": "dataframe",
        },
        "signature": {
            "inputs": json.dumps([_column(column) for column in bundle.schema.inputs]),
            "outputs": json.dumps([_output(bundle)]),
        },
        "utc_time_created": f"{created_at.astimezone(UTC):%Y-%m-%d %H:%M:%S.%f}",
    }


def _column(column: InputColumn) -> dict[str, Any]:
    """A column of the signature. MLflow's own types know neither a missing boolean (it takes it for
    false) nor a time with its zone: such columns are "any", and read by the bundle's rules. Its
    integers are never missing either: it asks for a double where they may be."""
    type_ = _PLAIN.get(column.type, "string")
    if column.type == "integer" and column.nullable:
        type_ = "double"
    if column.type == "datetime" or (column.type == "boolean" and column.nullable):
        type_ = "any"
    return {"type": type_, "name": column.name, "required": True}


def _output(bundle: Bundle) -> dict[str, Any]:
    classes = bundle.schema.classes
    width = [len(classes)] if bundle.objective == "multiclass" and classes else []
    return {"type": "tensor", "tensor-spec": {"dtype": "float32", "shape": [-1, *width]}}


def _example(frame: pd.DataFrame, bundle: Bundle) -> dict[str, Any]:
    """Rows as JSON that reads back to the same bits."""
    columns = [
        [_plain(value, column.type) for value in frame[column.name]]
        for column in bundle.schema.inputs
    ]
    names = [column.name for column in bundle.schema.inputs]
    return {"columns": names, "data": [list(row) for row in zip(*columns, strict=True)]}


def _plain(value: Any, type_: str) -> Any:
    if pd.isna(value):
        return None
    if type_ == "boolean":
        return bool(value)
    if isinstance(value, pd.Timestamp):
        return value.isoformat()
    return value.item() if hasattr(value, "item") else value


def _requirements(bundle: Bundle) -> list[str]:
    libraries = {"xgboost": bundle.manifest.xgboost, **bundle.lineage.get("libraries", {})}
    exact = [f"{name}=={libraries[name]}" for name in _EXACT if name in libraries]
    return ["mlflow>=3", f"{DISTRIBUTION}[serving]=={__version__}", *exact]


def _json(value: object) -> bytes:
    return (json.dumps(value, indent=1, ensure_ascii=False, allow_nan=False) + "\n").encode()


def _yaml(value: object) -> bytes:
    text: str = yaml.safe_dump(value, allow_unicode=True, sort_keys=True, width=1000)
    return text.encode()
