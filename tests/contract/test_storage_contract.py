"""What every storage must do, over a folder of this disk and over real S3 endpoints, also ones that
are busy or die."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from perennial.contracts.errors import InputError, IntegrityError, UnavailableError
from perennial.stores import lake
from perennial.stores.folders import folder_digest
from perennial.stores.storage.cache import KEPT, fetch, fetch_folder
from perennial.stores.storage.delta import has_log
from perennial.stores.storage.objects import Objects, read, remove, write
from perennial.stores.storage.places import is_remote
from perennial.stores.storage.publishing import publish, published, replace
from tests.contract.s3 import KINDS, Endpoint, Endpoints, Faulty, started
from tests.waiting import until

LAST = "report.json"
_prefixes = iter(range(10_000))


@pytest.fixture(scope="module")
def endpoints() -> Iterator[Endpoints]:
    """Started at their first use, ended with the module."""
    with started() as running:
        yield running


@pytest.fixture(params=["folder", *KINDS])
def storage(
    request: pytest.FixtureRequest,
    endpoints: Endpoints,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> str:
    """The address of an empty storage."""
    if request.param == "folder":
        return str(tmp_path / "storage")
    return _connected(endpoints[request.param], monkeypatch)


@pytest.fixture(params=KINDS)
def remote(
    request: pytest.FixtureRequest,
    endpoints: Endpoints,
    monkeypatch: pytest.MonkeyPatch,
) -> str:
    return _connected(endpoints[request.param], monkeypatch)


@pytest.fixture
def faulty(endpoints: Endpoints, monkeypatch: pytest.MonkeyPatch) -> Iterator[Faulty]:
    """An endpoint that is at fault whenever a test says so."""
    with Faulty.before(endpoints["moto"]) as proxy:
        monkeypatch.setenv("AWS_MAX_ATTEMPTS", "4")
        _connected(proxy.endpoint, monkeypatch)
        yield proxy


def _connected(endpoint: Endpoint, monkeypatch: pytest.MonkeyPatch) -> str:
    environment = endpoint.environment(f"contract/{next(_prefixes)}")
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    return environment["PERENNIAL_STORAGE"]


def _folder(place: Path, large: int = 0) -> tuple[Path, str]:
    (place / "inside").mkdir(parents=True)
    (place / LAST).write_text("{}")
    (place / "inside" / "page.html").write_text("<p>ä</p>", encoding="utf-8")
    if large:
        (place / "large.bin").write_bytes(os.urandom(large))
    return place, folder_digest(place)


def test_a_file_is_what_was_written_last_and_none_is_none(storage: str) -> None:
    place = Objects(storage)
    assert (place.read("a/b.json"), place.sizes()) == (None, {})
    place.write("a/b.json", b"first")
    place.write("a/b.json", b"second")
    place.write("a/bc", b"")
    assert (place.read("a/b.json"), read(f"{storage}/a/b.json")) == (b"second", b"second")
    assert place.sizes() == {"a/b.json": 6, "a/bc": 0}
    assert Objects(f"{storage}/a").sizes() == {"b.json": 6, "bc": 0}
    assert place.sizes("a/b") == {}
    place.remove(["a/bc", "never.there"])
    assert place.sizes("a") == {"a/b.json": 6}
    write(f"{storage}/notes/one.txt", "ö")
    assert read(f"{storage}/notes/one.txt") == "ö".encode()
    remove(f"{storage}/notes/one.txt")
    remove(f"{storage}/notes/one.txt")
    assert read(f"{storage}/notes/one.txt") is None


def test_of_twenty_writers_that_create_a_file_one_does(storage: str) -> None:
    place, start = Objects(storage), threading.Barrier(20)

    def create(number: int) -> bool:
        start.wait()
        return place.create("claim", b"%d" % number)

    with ThreadPoolExecutor(20) as writers:
        won = list(writers.map(create, range(20)))
    assert won.count(True) == 1
    assert place.read("claim") == b"%d" % won.index(True)


def test_a_large_file_goes_in_parts_and_comes_back_whole(storage: str, tmp_path: Path) -> None:
    folder, digest = _folder(tmp_path / "made", large=20_000_000)
    uri = f"{storage}/reports/{digest}"
    assert publish(folder, uri, LAST) == uri
    assert fetch_folder(uri, tmp_path / "cache", digest).joinpath("large.bin").stat().st_size
    assert published(folder, uri)
    if is_remote(uri):
        assert folder_digest(tmp_path / "cache" / digest) == digest


def test_what_is_there_already_is_not_sent_again(faulty: Faulty, tmp_path: Path) -> None:
    folder, digest = _folder(tmp_path / "made", large=100_000)
    uri = f"{os.environ['PERENNIAL_STORAGE']}/reports/{digest}"
    publish(folder, uri, LAST)
    assert faulty.received("PUT") == 3
    publish(folder, uri, LAST)
    assert faulty.received("PUT") == 3
    Objects(uri).write("inside/page.html", b"<p>a</p> ")  # as long as it was
    Objects(uri).write("inside/stray", b"of nobody")
    assert not published(folder, uri)
    publish(folder, uri, LAST, beside={"inside/stray"})
    assert faulty.received("PUT") == 6
    assert Objects(uri).read("inside/stray") == b"of nobody"
    publish(folder, uri, LAST)
    assert published(folder, uri)
    assert faulty.received("PUT") == 6


def test_a_folder_in_anothers_place_has_nothing_of_it(storage: str, tmp_path: Path) -> None:
    uri = f"{storage}/drift/today"
    for number in (1, 2):
        folder = tmp_path / f"look-{number}"
        folder.mkdir()
        (folder / LAST).write_text(str(number))
        (folder / f"only-{number}.html").write_text("page")
        replace(folder, uri, LAST)
        assert set(Objects(uri).sizes()) == {LAST, f"only-{number}.html"}
        assert read(f"{uri}/{LAST}") == b"%d" % number


def test_what_was_tampered_with_is_refused_and_a_damaged_copy_is_fetched_anew(
    remote: str, tmp_path: Path
) -> None:
    folder, digest = _folder(tmp_path / "made")
    uri, cache = f"{remote}/reports/{digest}", tmp_path / "cache"
    publish(folder, uri, LAST)
    copy = fetch_folder(uri, cache, digest)
    (copy / LAST).write_text("[]")
    assert folder_digest(fetch_folder(uri, cache, digest)) == digest
    Objects(uri).write(LAST, b"[]")
    fetch_folder(uri, cache, digest)  # the copy is what was asked for, whatever is there by now
    with pytest.raises(IntegrityError, match=f"{uri}: its content has the digest .*, expected"):
        fetch_folder(uri, tmp_path / "elsewhere", digest)
    assert list((tmp_path / "elsewhere").glob("[!.]*")) == []
    with pytest.raises(IntegrityError, match="there is nothing"):
        fetch_folder(f"{remote}/reports/{'0' * 32}", cache, "0" * 32)


def test_a_copy_that_is_here_is_opened_once_and_a_new_one_at_its_place(
    remote: str, tmp_path: Path
) -> None:
    folder, digest = _folder(tmp_path / "made")
    uri, cache = f"{remote}/reports/{digest}", tmp_path / "cache"
    publish(folder, uri, LAST)
    seen: list[Path] = []

    def opened(place: Path) -> str:
        seen.append(place)
        return f"{place}: {folder_digest(place)}"

    for seen_before in (1, 0):  # what comes from the storage is looked at before it is kept
        seen.clear()
        assert fetch(uri, cache, opened) == f"{cache / digest}: {digest}"
        assert seen[seen_before:] == [cache / digest]


def test_many_fetch_at_once_and_the_cache_keeps_what_was_used_last(
    remote: str, tmp_path: Path
) -> None:
    folder, digest = _folder(tmp_path / "made", large=300_000)
    uri, cache = f"{remote}/reports/{digest}", tmp_path / "cache"
    publish(folder, uri, LAST)
    with ThreadPoolExecutor(8) as readers:
        found = set(readers.map(lambda _: fetch_folder(uri, cache, digest), range(16)))
    assert found == {cache / digest}
    for number in range(KEPT + 5):
        (cache / f"older-{number}").mkdir()
        os.utime(cache / f"older-{number}", (number, number))
    (cache / digest / LAST).unlink()
    fetch_folder(uri, cache, digest)
    left = {path.name for path in cache.glob("[!.]*")}
    assert len(left) == KEPT
    assert digest in left
    assert "older-0" not in left


PUBLISH = """
import sys
from pathlib import Path
from perennial.stores.storage.publishing import publish
publish(Path(sys.argv[1]), sys.argv[2], sys.argv[3])
"""


def test_publishing_that_is_killed_shows_nothing_and_is_done_when_run_again(
    faulty: Faulty, tmp_path: Path
) -> None:
    folder, digest = _folder(tmp_path / "made", large=17_000_000)
    uri = f"{os.environ['PERENNIAL_STORAGE']}/reports/{digest}"
    for sent in (1, 2):  # parts of the large file that were received; the second time one more
        faulty.hold_after = faulty.received("PUT") + sent
        command = [sys.executable, "-c", PUBLISH, str(folder), uri, LAST]
        publisher = subprocess.Popen(command)
        until(lambda: faulty.holding)
        publisher.send_signal(signal.SIGKILL)
        publisher.wait()
        faulty.recover()
        there = Objects(uri).sizes()
        assert LAST not in there
        assert "large.bin" not in there
        with pytest.raises(IntegrityError):
            fetch_folder(uri, tmp_path / "cache", digest)
    publish(folder, uri, LAST)
    assert folder_digest(fetch_folder(uri, tmp_path / "cache", digest)) == digest


def test_a_busy_store_is_asked_again(faulty: Faulty, tmp_path: Path) -> None:
    folder, digest = _folder(tmp_path / "made", large=100_000)
    uri = f"{os.environ['PERENNIAL_STORAGE']}/reports/{digest}"
    faulty.busy = 3
    publish(folder, uri, LAST)
    faulty.busy = 3
    assert folder_digest(fetch_folder(uri, tmp_path / "cache", digest)) == digest
    faulty.busy = 3
    lake.write(f"{uri}-table", None, _rows(1))
    faulty.busy = 3
    table = lake.open_table(f"{uri}-table")
    assert table is not None
    assert (faulty.busy, table.to_pyarrow_table().num_rows) == (0, 1)


def test_a_store_that_stays_busy_is_given_up_in_bounded_time_with_its_answer(
    faulty: Faulty,
) -> None:
    faulty.busy = 10_000
    started = time.monotonic()
    with pytest.raises(UnavailableError, match="answered 503 SlowDown: "):
        Objects(os.environ["PERENNIAL_STORAGE"]).write("a", b"1")
    assert time.monotonic() - started < 200


@pytest.mark.parametrize("after_bytes", [0, 200_000])
def test_an_endpoint_that_dies_while_a_folder_is_fetched_leaves_nothing_in_the_cache(
    faulty: Faulty, tmp_path: Path, after_bytes: int
) -> None:
    folder, digest = _folder(tmp_path / "made", large=3_000_000)
    uri, cache = f"{os.environ['PERENNIAL_STORAGE']}/reports/{digest}", tmp_path / "cache"
    publish(folder, uri, LAST)
    faulty.cut_answers_after = after_bytes
    with pytest.raises(UnavailableError, match=r"127\.0\.0\.1:\d+ "):
        fetch_folder(uri, cache, digest)
    assert list(cache.glob("[!.]*")) == list(cache.glob(".writing*")) == []
    faulty.recover()
    assert folder_digest(fetch_folder(uri, cache, digest)) == digest


def test_an_endpoint_that_dies_while_a_folder_is_published_leaves_none(
    faulty: Faulty, tmp_path: Path
) -> None:
    folder, digest = _folder(tmp_path / "made", large=20_000_000)
    uri = f"{os.environ['PERENNIAL_STORAGE']}/reports/{digest}"
    faulty.die_after = faulty.received("PUT") + 2
    with pytest.raises(UnavailableError, match="does not answer"):
        publish(folder, uri, LAST)
    faulty.recover()
    assert LAST not in Objects(uri).sizes()
    publish(folder, uri, LAST)
    assert published(folder, uri)


@pytest.mark.parametrize("put", [1, 2], ids=["before its rows", "before its commit"])
def test_an_endpoint_that_dies_in_a_commit_leaves_the_table_as_it_was(
    faulty: Faulty, put: int
) -> None:
    uri = f"{os.environ['PERENNIAL_STORAGE']}/tables/dying-{put}"
    lake.write(uri, None, _rows(1))
    table = lake.open_table(uri)
    faulty.die_after = faulty.received("PUT") + put - 1
    with pytest.raises(UnavailableError, match="does not answer"):
        lake.write(uri, table, _rows(5))
    with pytest.raises(UnavailableError, match="does not answer"):
        lake.open_table(uri)
    faulty.recover()
    assert _count(uri) == 1
    lake.write(uri, lake.open_table(uri), _rows(5))
    assert _count(uri) == 6


def test_a_commit_whose_answer_is_lost_is_found_done(faulty: Faulty) -> None:
    uri = f"{os.environ['PERENNIAL_STORAGE']}/tables/unheard"
    lake.write(uri, None, _rows(1))

    def attempt() -> int:
        table = lake.open_table(uri)
        if lake.number_of(table) < 2:
            lake.write(uri, table, _rows(5), number=2)
        return lake.version_of(uri)

    faulty.lose_answer_to = faulty.received("PUT") + 2  # rows, commit
    assert lake.until_committed(uri, attempt) == 1
    assert _count(uri) == 6


def test_two_writers_of_a_table_lose_nothing(remote: str) -> None:
    uri = f"{remote}/tables/shared"
    assert not has_log(uri)

    def add(number: int) -> None:
        def attempt() -> None:
            lake.write(uri, lake.open_table(uri), _rows(number + 1))

        for _ in range(20):
            try:
                return lake.until_committed(uri, attempt)
            except UnavailableError:  # others were quicker, each time
                continue
        raise AssertionError

    with ThreadPoolExecutor(2) as writers:
        list(writers.map(add, range(4)))
    assert has_log(uri)
    assert (_count(uri), lake.version_of(uri)) == (sum(range(5)), 3)


def test_a_table_whose_file_is_gone_or_cut_is_not_intact(storage: str) -> None:
    uri = f"{storage}/tables/cut"
    lake.write(uri, None, _rows(100))
    table = lake.open_table(uri)
    assert lake.files_intact(table, uri)
    (name,) = lake.paths_of(table)
    Objects(uri).write(name, b"PAR1")
    assert not lake.files_intact(table, uri)
    Objects(uri).remove([name])
    assert not lake.files_intact(table, uri)


def test_faults_that_a_person_must_mend_say_what_and_where_and_no_secret(
    remote: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    endpoint = os.environ["AWS_ENDPOINT_URL"]
    nowhere = "s3://no-such-bucket-of-ours/x"
    there_is_none = f"there is no bucket 'no-such-bucket-of-ours' at {endpoint}"
    calls: dict[str, Any] = {
        "read": lambda uri: Objects(uri).read("a"),
        "write": lambda uri: Objects(uri).write("a", b"1"),
        "large": lambda uri: Objects(uri).write("a", b"1" * 9_000_000),
        "create": lambda uri: Objects(uri).create("a", b"1"),
        "sizes": lambda uri: Objects(uri).sizes(),
        "open": lake.open_table,
        "commit": lambda uri: lake.write(uri, None, _rows(1)),
    }
    for name, call in calls.items():
        with pytest.raises(InputError, match=there_is_none) as told:
            call(nowhere)
        assert len(told.value.message) < 400, name

    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "2")
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://user:hidden@127.0.0.1:9")
    with pytest.raises(UnavailableError, match=r"http://127\.0\.0\.1:9 does not answer") as error:
        Objects(remote).create("a", b"1")
    assert "hidden" not in error.value.message


@pytest.mark.parametrize("what", [".parquet", "_delta_log/"])
def test_a_role_that_may_not_write_is_told_so_whatever_of_a_table_it_may_not(
    faulty: Faulty, what: str
) -> None:
    uri = f"{os.environ['PERENNIAL_STORAGE']}/tables/denied"
    faulty.deny_writes = what
    with pytest.raises(InputError, match=r"access to bucket .* was denied .*policy") as told:
        lake.write(uri, None, _rows(5))
    assert len(told.value.message) < 400


def _rows(count: int) -> Any:
    table = pa.table({"number": pa.array(range(count), pa.int64())})
    return pa.RecordBatchReader.from_batches(table.schema, table.to_batches())


def _count(uri: str) -> int:
    table = lake.open_table(uri)
    assert table is not None
    return int(pa.table(table.to_pyarrow_table()).num_rows)
