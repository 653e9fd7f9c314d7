"""A server for others as it should be: tokens, and TLS."""

from __future__ import annotations

import socket
import ssl
import subprocess
import sys
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import pytest

from perennial.stores.tokens import FILE_NAME, add_token
from tests.certificates import HANDSHAKE, client_hello, make_certificate
from tests.fuzz.served import NOW, ROW, make_project, serving

PREDICT = "/models/parcels/predict"


def test_a_client_that_knows_the_certificate_is_answered_and_nothing_goes_unencrypted(
    tmp_path: Path,
) -> None:
    make_project(tmp_path)
    certificate, key = make_certificate(tmp_path, "server")
    token = add_token(tmp_path / ".perennial" / FILE_NAME, "app", ["predict"], NOW)
    trust = ssl.create_default_context(cafile=str(certificate))
    trust.check_hostname = False  # the server tells its address as a number

    with serving(
        tmp_path, "--host", "0.0.0.0", "--certificate", str(certificate), "--key", str(key),
        headers=[("authorization", f"Bearer {token}")], verify=trust,
    ) as server:  # fmt: skip
        port = urlsplit(server.url).port
        assert server.url.startswith("https://")
        server.is_well()
        with pytest.raises(httpx.ConnectError, match="CERTIFICATE_VERIFY_FAILED"):
            httpx.post(f"https://localhost:{port}{PREDICT}", json=ROW, timeout=60)
        with pytest.raises(httpx.TransportError):
            httpx.post(f"http://localhost:{port}{PREDICT}", json=ROW, timeout=60)
        server.is_well()
        said = server.log.read_text()
        for most in (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3):
            with socket.create_connection(("127.0.0.1", port), timeout=60) as client:
                client.sendall(client_hello("l\xfccalhost".encode("latin-1"), most))
                assert client.recv(1) == HANDSHAKE
        server.is_well()
        assert server.log.read_text() == said
        assert "no TLS" not in server.log.read_text()
        assert token not in server.log.read_text()


def test_a_key_that_does_not_fit_ends_the_server_before_it_listens(tmp_path: Path) -> None:
    certificate, _ = make_certificate(tmp_path, "server")
    _, other = make_certificate(tmp_path, "other")
    command = [sys.executable, "-c", "from perennial.cli import main; main()", "--project"]

    done = subprocess.run(
        [*command, str(tmp_path), "serve", "--port", "0", "--certificate", str(certificate),
         "--key", str(other)],
        capture_output=True, text=True, timeout=240, check=False,
    )  # fmt: skip

    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == (
        f"--key: {other} is not the key of {certificate} (name the key it was made with)\n"
    )
