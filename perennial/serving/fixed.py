"""Serving one bundle by itself: no registry is asked, and the version stays what it is.

It is how a platform serves that routes requests itself (KServe): each of its revisions is one
version.
"""

from __future__ import annotations

from datetime import UTC, datetime

from perennial.bundle.manifest import MANIFEST
from perennial.contracts.errors import InputError
from perennial.contracts.refs import VersionRef
from perennial.contracts.routes import Arm, Route
from perennial.serving.models import load
from perennial.serving.service import Logging, Service
from perennial.serving.settings import Fixed
from perennial.spec import load_spec
from perennial.stores.project import Project
from perennial.stores.registry import Version


def adopt(service: Service, fixed: Fixed) -> None:
    """Load the bundle, and let it answer all requests. To be called on the loop.

    What may be kept of predictions is written in the project's model.yaml, and not in versions:
    without one, nothing is. Raises IntegrityError or InputError when the bundle can't be used, and
    InputError when its model.yaml may be one that is wrong.
    """
    ref = VersionRef(
        model=fixed.model, version=fixed.version, digest=fixed.digest, uri=str(fixed.bundle)
    )
    written = datetime.fromtimestamp((fixed.bundle / MANIFEST).stat().st_mtime, UTC)
    project = Project(service.settings.project)
    loaded = load(
        Version(ref=ref, created_at=written, params={}, metrics={}, judgement={}, links={}), project
    )
    folders, wrong = project.model_folders()
    if fixed.model in folders:
        logging = Logging.of(load_spec(folders[fixed.model] / "model.yaml"))
    elif wrong:
        raise InputError(wrong)  # one of these may be its model.yaml
    else:
        logging = Logging.off()
    route = Route(
        model=fixed.model,
        champion=fixed.version,
        arms=(Arm(version=fixed.version, weight=100),),
        shadow=(),
        generation=1,
        updated_at=None,
    )
    service.adopt(route, {fixed.version: loaded}, logging)
    service.expect([fixed.model])
