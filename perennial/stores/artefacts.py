"""Whether what a reference points at is still there, and what it was."""

from __future__ import annotations

from pathlib import Path

from perennial.contracts.errors import IntegrityError
from perennial.contracts.refs import (
    BundleRef,
    DatasetRef,
    FeaturesRef,
    ReportRef,
    SplitRef,
    StagedRef,
    ValidationRef,
)
from perennial.contracts.runs import EvaluationRef
from perennial.contracts.verdicts import Outcome
from perennial.stores.folders import folder_digest


def intact(ref: object) -> bool:
    """Whether what a reference points at is still there and unchanged. True for plain values."""
    match ref:
        case EvaluationRef():  # what could not be measured is to be measured again
            return ref.outcome is not Outcome.ERROR and intact(ref.report)
        case SplitRef() | FeaturesRef() | ReportRef() | ValidationRef():
            folder = Path(ref.uri)
            folder = folder if folder.suffix == "" else folder.parent
            return folder.is_dir() and folder_digest(folder) == ref.digest
        case BundleRef():
            from perennial.bundle.read import open_bundle

            try:
                open_bundle(Path(ref.uri), ref.digest)
            except IntegrityError:
                return False
            return True
        case StagedRef():
            return Path(ref.uri).is_dir()
        case DatasetRef():
            from perennial.stores import tables

            return tables.intact(ref)
        case _:
            return True
