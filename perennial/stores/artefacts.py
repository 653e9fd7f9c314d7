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
from perennial.stores.project import Project
from perennial.stores.storage.cache import fetch_folder
from perennial.stores.storage.places import is_remote
from perennial.stores.storage.publishing import published


def intact(ref: object) -> bool:
    """Whether what a reference points at is still there and unchanged, in the storage itself and
    not only in a cache. True for plain values. Raises UnavailableError when that can't be told."""
    match ref:
        case EvaluationRef():  # what could not be measured is to be measured again
            return ref.outcome is not Outcome.ERROR and intact(ref.report)
        case ReportRef() if is_remote(ref.uri):
            return _report_intact(ref.uri.rpartition("/")[0], ref.digest)
        case SplitRef() | FeaturesRef() | ReportRef() | ValidationRef():
            folder = Path(ref.uri)
            folder = folder if folder.suffix == "" else folder.parent
            return folder.is_dir() and folder_digest(folder) == ref.digest
        case BundleRef():
            return _bundle_intact(ref)
        case StagedRef():
            from perennial.stores import staging

            return staging.whole(ref)
        case DatasetRef():
            from perennial.stores import history, tables

            return tables.intact(ref) and not history.revised_since(ref.uri, ref.version)
        case _:
            return True


def _report_intact(uri: str, digest: str) -> bool:
    try:
        return published(fetch_folder(uri, Project.current().cache, digest), uri)
    except IntegrityError:
        return False


def _bundle_intact(ref: BundleRef) -> bool:
    from perennial.bundle.signing import SIGNATURE
    from perennial.stores.bundles import open_stored

    try:
        bundle = open_stored(ref)
    except IntegrityError:
        return False
    return not is_remote(ref.uri) or published(bundle.path, ref.uri, beside={SIGNATURE})
