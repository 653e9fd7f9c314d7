"""A throw-away Ceph of one monitor, one OSD in memory and radosgw, from the packages of the
system (Debian: radosgw, ceph-mon, ceph-osd, ceph-common)."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
import uuid
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import httpx

from perennial.cli.prefect_server import free_port
from tests.waiting import until

_TOOLS = ("ceph", "ceph-authtool", "ceph-mon", "ceph-osd", "monmaptool", "radosgw", "radosgw-admin")
_KEYS = {
    "mon.": ["mon", "allow *"],
    "client.admin": ["mon", "allow *", "osd", "allow *"],
    "osd.0": ["mon", "allow profile osd", "osd", "allow *"],
}
_SETTINGS = """\
[global]
fsid = {fsid}
mon_host = {monitor}
mon_data = {home}/mon
mon_allow_pool_size_one = true
keyring = {home}/keyring
public_addr = 127.0.0.1
cluster_addr = 127.0.0.1
run_dir = {home}
admin_socket =
log_file = {home}/$name.log
osd_data = {home}/osd
osd_objectstore = memstore
memstore_device_bytes = 1073741824
osd_crush_chooseleaf_type = 0
osd_pool_default_size = 1
osd_pool_default_min_size = 1
osd_pool_default_pg_num = 4
osd_pool_default_pgp_num = 4
rgw_data = {home}/rgw
rgw_frontends = beast endpoint=127.0.0.1:{port}
"""


def installed() -> bool:
    return all(map(shutil.which, _TOOLS))


@contextmanager
def radosgw(key: str, secret: str) -> Iterator[str]:
    """Run a cluster whose only user has this key and secret. Yields the endpoint's URL."""
    home = Path(tempfile.mkdtemp(prefix="ceph-"))
    settings, keyring = home / "ceph.conf", home / "keyring"
    fsid, port = str(uuid.uuid4()), free_port()
    monitor = f"[v2:127.0.0.1:{free_port()},v1:127.0.0.1:{free_port()}]"
    settings.write_text(_SETTINGS.format(fsid=fsid, monitor=monitor, home=home, port=port))
    for folder in ("mon", "osd", "rgw"):
        (home / folder).mkdir()

    def run(tool: str, *arguments: str) -> None:
        done = subprocess.run(
            [tool, *arguments], cwd=home, capture_output=True, text=True, timeout=120, check=False
        )
        assert done.returncode == 0, f"{tool}: {done.stderr}"

    def start(tool: str, *arguments: str) -> None:
        daemon = subprocess.Popen(
            [tool, "-f", "-c", str(settings), *arguments],
            cwd=home,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        stack.callback(daemon.wait)
        stack.callback(daemon.kill)

    with ExitStack() as stack:
        stack.callback(shutil.rmtree, home, ignore_errors=True)
        run("monmaptool", "--create", "--fsid", fsid, "--addv", "a", monitor, "monmap")
        run("ceph-authtool", str(keyring), "--create-keyring")
        for name, caps in _KEYS.items():
            pairs = zip(caps[::2], caps[1::2], strict=True)
            flags = [flag for pair in pairs for flag in ("--cap", *pair)]
            run("ceph-authtool", str(keyring), "--gen-key", "-n", name, *flags)
        given = ("-i", "a", "--monmap", "monmap", "--keyring", str(keyring))
        run("ceph-mon", "-c", str(settings), "--mkfs", *given)
        start("ceph-mon", "-i", "a")
        run("ceph", "-c", str(settings), "auth", "import", "-i", str(keyring))
        osd = str(uuid.uuid4())
        run("ceph", "-c", str(settings), "osd", "new", osd, "0")
        run("ceph-osd", "-c", str(settings), "-i", "0", "--mkfs", "--osd-uuid", osd)
        start("ceph-osd", "-i", "0")
        start("radosgw", "-n", "client.admin")
        url = f"http://127.0.0.1:{port}"

        def answers() -> bool:
            try:
                return httpx.get(url, timeout=5).status_code == 200
            except httpx.HTTPError:
                return False

        until(answers)
        user = ("--uid", "tests", "--display-name", "tests")
        keys = ("--access-key", key, "--secret-key", secret)
        who = ("-c", str(settings), "-n", "client.admin")
        run("radosgw-admin", *who, "user", "create", *user, *keys)
        yield url
