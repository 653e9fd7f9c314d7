"""A Triton model repository for its FIL backend, which runs trees and nothing else: clients compute
the matrix before they ask.

::

    README.md                    what to send, and what comes back
    <model>/config.pbtxt
    <model>/schema.json          the matrix: features in order, with the levels of categories
    <model>/<version>/xgboost.ubj
"""

from __future__ import annotations

import json

from perennial.bundle.read import Bundle
from perennial.contracts.refs import VersionRef

_MAX_ROWS = 32_768  # of one batch: as FIL's own documentation has it
TREELITE = "4.6"
"""The first Treelite that reads a booster of XGBoost 3.1 and later; FIL reads with Treelite."""

_CONFIG = """\
name: {name}
backend: "fil"
max_batch_size: {max_rows}
input [
  {{
    name: "input__0"
    data_type: TYPE_FP32
    dims: [ {features} ]
  }}
]
output [
  {{
    name: "output__0"
    data_type: TYPE_FP32
    dims: [ {outputs} ]
  }}
]
instance_group [
  {{
    kind: KIND_AUTO
  }}
]
parameters [
{parameters}
]
dynamic_batching {{}}
"""

_PARAMETER = """\
  {{
    key: "{key}"
    value: {{ string_value: "{value}" }}
  }}"""

_README = """\
# {name}@{version} for Triton

A model repository for Triton's FIL backend, with the trees of `{name}@{version}`:

```console
$ tritonserver --model-repository .
```

**FIL sees the feature matrix only.** It knows nothing of raw columns and of features.py: whoever
asks computes the features first. With Perennial and the version's bundle:

```python
from pathlib import Path
from perennial.bundle.predictor import Predictor
from perennial.bundle.read import open_bundle

digest = "{digest}"
predictor = Predictor(open_bundle(Path(".perennial/bundles/{name}") / digest, digest))
matrix = predictor.matrix(predictor.frame(rows))  # float32 (rows, {features})
```

- `input__0`: float32 (rows, {features}), the features of `{name}/schema.json` in that order. NaN
  is a missing value. A category is its position (from 0) in the feature's `levels`; one that is
  not there is NaN.
- `output__0`: {output}

FIL reads the trees with Treelite, which must be {treelite} or later (Triton 26.05 has 4.7). It sums
their leaves in its own way: predictions differ from Perennial's own in their last digits.
"""


def repository(bundle: Bundle, ref: VersionRef) -> dict[str, bytes]:
    """The repository's files."""
    name, classes = ref.model, bundle.schema.classes
    multiclass = bundle.objective == "multiclass" and classes is not None
    outputs = len(classes) if multiclass and classes is not None else 1
    classifier = bundle.objective != "regression"
    parameters = {"model_type": "xgboost_ubj", "is_classifier": str(classifier).lower()}
    if classifier:
        # FIL demands a threshold of classifiers; it decides nothing where probabilities are asked.
        parameters |= {"predict_proba": "true", "threshold": "0.5"}
    config = _CONFIG.format(
        name=json.dumps(name),
        max_rows=_MAX_ROWS,
        features=len(bundle.schema.features),
        outputs=outputs,
        parameters=",\n".join(_PARAMETER.format(key=k, value=v) for k, v in parameters.items()),
    )
    readme = _README.format(
        name=name,
        version=ref.version,
        digest=ref.digest,
        features=len(bundle.schema.features),
        output=_output(bundle),
        treelite=TREELITE,
    )
    return {
        "README.md": readme.encode(),
        f"{name}/config.pbtxt": config.encode(),
        f"{name}/schema.json": bundle.contents["schema.json"],
        f"{name}/{ref.version}/xgboost.ubj": bundle.booster,
    }


def _output(bundle: Bundle) -> str:
    classes = bundle.schema.classes
    if classes is None:
        return "float32 (rows, 1), the value."
    if bundle.objective == "multiclass":
        return f"float32 (rows, {len(classes)}), the probabilities of {', '.join(classes)}."
    return f"float32 (rows, 1), the probability of the class {classes[1]!r}."
