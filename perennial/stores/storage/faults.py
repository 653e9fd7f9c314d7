"""What went wrong with a storage, in words a person can act on, and never with a secret."""

from __future__ import annotations

import re

from perennial.contracts.errors import InputError, PerennialError, Problem, UnavailableError
from perennial.stores.storage.places import Endpoint, bucket_of, is_remote, without_password

_CODE = re.compile(r"<Code>(\w+)</Code>|AWS Error (\w+)")
"""In the document that a store answers, as obstore and Delta tell it, or in Arrow's words."""
_STATUS = re.compile(r"\b(\d{3}) [A-Z][a-z]+|HTTP status (\d{3})")
_STORES_WORDS = re.compile(
    r"AWS Error|Generic S3 error|lacked the necessary privileges|necessary authentication credent"
)
"""Arrow's, and those of the object store below Delta's library, wrapped in whatever else."""
_DISK_FULL = re.compile(r"os error (27|28|122)\b|No space left", re.IGNORECASE)
_NO_CREDENTIALS = (
    "loading credentials",
    "169.254.169.254",
    "169.254.170.2",
    "CredentialsNotLoaded",
    "providers in chain",
)
_DENIED = {
    "AccessDenied", "AllAccessDisabled", "ExpiredToken", "InvalidAccessKeyId", "InvalidToken",
    "SignatureDoesNotMatch", "TokenRefreshRequired", "RequestTimeTooSkewed",
}  # fmt: skip
_OTHER_REGION = {"PermanentRedirect", "AuthorizationHeaderMalformed", "IllegalLocationConstraint"}
_POLICY = "check the keys (AWS_ACCESS_KEY_ID …) or the role, and what its policy allows"


def reason(error: Exception) -> str:
    """A store's error on one line, without its colours, drawings and documents."""
    text = re.split(r"<\?xml|Debug source:|\{\"", str(error))[0]
    words = without_password(re.sub(r"\x1b\[[0-9;]*m|↳", " ", text)).split()
    return " ".join(words)[:300] or type(error).__name__


def of_storage(error: Exception, uri: str) -> bool:
    """Whether an error of Delta's library about a table is one of its storage, and not of what is
    in it."""
    return of_reading(error, uri) or (is_remote(uri) and isinstance(error, OSError))


def of_reading(error: Exception, uri: str) -> bool:
    """Whether it is the store that failed to give what a file holds, and not the file that is
    damaged, or gone: readers raise the same classes for both."""
    return is_remote(uri) and _STORES_WORDS.search(str(error)) is not None


def no_bucket(error: Exception) -> bool:
    """Whether it is the bucket that isn't there, and not only what was looked for in it."""
    return _code(error) == "NoSuchBucket"


def fault(error: Exception, uri: str) -> PerennialError:
    """The error to raise for what obstore or Delta raised about something at ``uri``: InputError
    for what only a person can mend, UnavailableError for what may pass."""
    if not is_remote(uri):
        if _DISK_FULL.search(str(error)):
            return InputError(f"no space left while writing {uri}; free some space and run again")
        return UnavailableError(f"{uri}: {reason(error)}")
    bucket, _ = bucket_of(uri)
    endpoint = Endpoint.current().told
    text, code = str(error), _code(error)
    if code == "NoSuchBucket":
        what = f"there is no bucket {bucket!r} at {endpoint}"
        return InputError(Problem(uri, what, "make the bucket, or mend the address"))
    if any(sign in text for sign in _NO_CREDENTIALS):
        what = f"no credentials for bucket {bucket!r} at {endpoint}"
        fix = "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or give the machine a role"
        return InputError(Problem(uri, what, fix))
    if code in _OTHER_REGION:
        what = f"bucket {bucket!r} is not in region {Endpoint.current().region} ({code})"
        return InputError(Problem(uri, what, "set AWS_REGION to the bucket's region"))
    status = _status(error)
    if code in _DENIED or status in ("401", "403"):
        what = f"access to bucket {bucket!r} at {endpoint} was denied"
        return InputError(Problem(uri, f"{what} ({code or status})", _POLICY))
    how = f"answered {status} {code}".rstrip() if status else "does not answer"
    return UnavailableError(f"{uri}: {endpoint} {how}: {reason(error)}")


def _code(error: Exception) -> str:
    found = _CODE.search(str(error))
    if not found:
        return ""
    return found[1] or found[2].title().replace("_", "")


def _status(error: Exception) -> str:
    found = _STATUS.search(str(error))
    return (found[1] or found[2]) if found else ""
