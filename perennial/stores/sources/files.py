"""The files behind a source's URI: a file, a folder or a glob, local or on S3."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pyarrow import fs

from perennial.contracts.errors import InputError, Problem
from perennial.spec.inputs import Source
from perennial.stores.storage.delta import has_log
from perennial.stores.storage.faults import fault, of_reading
from perennial.stores.storage.places import is_remote, resolved

_WILD = re.compile(r"[*?\[]")
_COMPRESSED = r"(\.gz|\.bz2|\.zst|\.lz4)?"
_SUFFIXES = {
    "csv": re.compile(rf"\.(csv|tsv|txt){_COMPRESSED}$", re.IGNORECASE),
    "parquet": re.compile(r"\.(parquet|pq)$", re.IGNORECASE),
}
_TABBED = re.compile(rf"\.tsv{_COMPRESSED}$", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class SourceFile:
    """``name`` is relative to the source; ``changed`` the time of its last change (ns)."""

    path: str
    name: str
    size: int
    changed: int


@dataclass(frozen=True, slots=True)
class Files:
    """Files in the order they are read in, none of them empty, the file system they are on, and the
    source's address."""

    system: Any
    files: tuple[SourceFile, ...]
    where: str

    @contextmanager
    def reading(self) -> Iterator[None]:
        """What goes wrong on the way from the store is told as that: readers raise the same for a
        file that is damaged."""
        try:
            yield
        except OSError as error:
            if of_reading(error, self.where):
                raise fault(error, self.where) from None
            raise


def address(uri: str, root: Path) -> str:
    """A URI of model.yaml made absolute; a path is relative to the project's root. Raises
    InputError for a file address with a host in it."""
    if is_remote(uri) and not uri.startswith("file://"):
        return uri
    path = uri.removeprefix("file://")
    if path != uri and not path.startswith(("/", "~")):
        what = "names a host, and files are read and written on this machine only"
        raise InputError(Problem(uri, what, "write file:///folder, or the path alone"))
    return str((root / Path(path).expanduser()).absolute())


def is_tabbed(uri: str) -> bool:
    """Whether the name of a file or glob, compressed or not, ends as of tab separated values."""
    return _TABBED.search(uri) is not None


def overlaps(uri: str, root: Path, folder: str) -> bool:
    """Whether Parquet files that are written to a folder would be files of a source, or the source
    lies in that folder. Links are followed; other spellings are the same place."""
    source, written = (resolved(address(each, root)) for each in (uri, folder))
    return (
        source.is_relative_to(written)
        or written.is_relative_to(source)
        or _pattern(str(source)).fullmatch(str(written / "part-0.parquet")) is not None
    )


def kind_of(uri: str, root: Path) -> Literal["csv", "parquet", "delta"]:
    """What a URI holds: by its ending, by a Delta table's log, or by the files it stands for.

    Raises InputError when it holds none of these, or files of both kinds.
    """
    where = address(uri, root)
    kinds = _kinds([where])
    if not (kinds and is_remote(where)) and has_log(where):
        return "delta"
    if not kinds:
        try:
            system, path = _open(where)
            infos = [info for kind in _SUFFIXES for info in _matching(system, path, kind)[0]]
        except OSError as error:
            raise fault(error, where) from None
        if not infos:
            info = system.get_file_info(path)
            what = "no such file" if info.type == fs.FileType.NotFound else "nothing to read in it"
            raise InputError(Problem(where, what, "name a CSV or Parquet file, or a Delta table"))
        kinds = _kinds([info.path for info in infos])
    if len(kinds) != 1:
        what = "both CSV and Parquet files" if kinds else "neither CSV, Parquet nor a Delta table"
        fix = "name one kind, such as data/*.parquet" if kinds else "give the file its usual ending"
        raise InputError(Problem(where, what, fix))
    return "csv" if kinds == ["csv"] else "parquet"


def _kinds(paths: list[str]) -> list[str]:
    return [kind for kind, suffix in _SUFFIXES.items() if any(map(suffix.search, paths))]


def locate(source: Source, root: Path) -> Files:
    """Find a source's files.

    A folder stands for the files of the source's kind below it, without hidden ones and those that
    begin with ``_``. Where rows have an identity, of which the last row counts, files come in the
    order they were written in, those of one time by name; else by name, so that a copy with other
    times is the same. Raises InputError when there is none, or none but empty ones, and for a Delta
    table's files, which hold former rows too.
    """
    where = address(source.uri, root)
    try:
        system, path = _open(where)
        infos, base = _matching(system, path, source.kind)
    except OSError as error:
        if is_remote(where):
            raise fault(error, where) from None
        raise InputError(Problem(where, error.strerror or str(error))) from None
    if not infos:
        raise InputError(_nothing(source, where, root, system.get_file_info(path)))
    files = [
        SourceFile(info.path, info.path[len(base) :].lstrip("/"), info.size, info.mtime_ns or 0)
        for info in infos
    ]
    identity = source.event_time is not None or source.entity
    files.sort(key=lambda file: (file.changed if identity else 0, file.path))
    filled = tuple(file for file in files if file.size)
    if not filled:
        if len(files) == 1:
            raise InputError(Problem(files[0].path, "empty file"))
        raise InputError(Problem(where, "only empty files"))
    packed = [file for file in filled if file.name.lower().endswith((".zip", ".tar", ".tgz"))]
    if packed:
        fix = "unpack it; .gz, .bz2, .zst and .lz4 are read as they are"
        raise InputError(Problem(packed[0].path, "an archive is not read", fix))
    return Files(system, filled, where)


def _open(where: str) -> tuple[Any, str]:
    if not is_remote(where):
        return fs.LocalFileSystem(), where
    scheme, _, rest = where.partition("://")
    bucket, _, key = rest.partition("/")
    system, start = fs.FileSystem.from_uri(f"{scheme}://{bucket}")
    return system, f"{start}/{key}".rstrip("/")


def _matching(system: Any, path: str, kind: str) -> tuple[list[Any], str]:
    """The files that a path means, and the folder their names are relative to."""
    info = system.get_file_info(path)
    if info.type == fs.FileType.File:
        return [info], path.rpartition("/")[0]
    if info.type == fs.FileType.Directory:
        found = system.get_file_info(fs.FileSelector(path, recursive=True))
        return _no_table(found, [i for i in found if _belongs(i, path, _SUFFIXES[kind])]), path
    wild = _WILD.search(path)
    if wild is None:
        return [], path
    base = path[: wild.start()].rpartition("/")[0]
    selector = fs.FileSelector(base, recursive=True, allow_not_found=True)
    pattern = _pattern(path)
    found = system.get_file_info(selector)
    files = [i for i in found if i.type == fs.FileType.File and pattern.fullmatch(i.path)]
    return _no_table(found, files), base


def _no_table(found: list[Any], files: list[Any]) -> list[Any]:
    """These files, none of which may be one of a Delta table that was found as well."""
    tables = {before for i in found for before, log, _ in [i.path.partition("/_delta_log/")] if log}
    for file in files:
        for table in tables:
            if file.path.startswith(f"{table}/"):
                what = "a Delta table, whose files also hold rows that it no longer has"
                fix = "name the table itself, or other files only, such as data/*.parquet"
                raise InputError(Problem(table, what, fix))
    return files


def _belongs(info: Any, base: str, suffix: re.Pattern[str]) -> bool:
    if info.type != fs.FileType.File or not suffix.search(info.path):
        return False
    parts = info.path[len(base) :].strip("/").split("/")
    return not any(part.startswith((".", "_")) for part in parts)


def _pattern(path: str) -> re.Pattern[str]:
    """A glob as a regular expression: ``*`` and ``?`` stay within a folder, ``**`` doesn't."""
    tokens = {"**/": "(?:.*/)?", "**": ".*", "*": "[^/]*", "?": "[^/]"}
    parts = re.split(r"(\*\*/|\*\*|\*|\?|\[[^\]]+\])", path)
    return re.compile(
        "".join(
            tokens.get(part) or (part.replace("[!", "[^") if _is_set(part) else re.escape(part))
            for part in parts
        )
    )


def _is_set(part: str) -> bool:
    if not (part.startswith("[") and part.endswith("]") and len(part) > 2):
        return False
    try:
        re.compile(part)
    except re.error:  # such as [2026-01], in the name of a file
        return False
    return True


def _nothing(source: Source, where: str, root: Path, info: Any) -> Problem:
    if info.type == fs.FileType.Directory:
        return Problem(where, f"no {source.kind} files in this folder")
    fix = "" if is_remote(source.uri) else f"source.uri is relative to {root}"
    return Problem(where, "no file matches" if _WILD.search(where) else "no such file", fix)
