"""Where alerts arrive: a webhook and a mail server, of the few lines that tests need."""

from __future__ import annotations

import json
import socketserver
import threading
from base64 import b64decode
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from email import message_from_bytes, policy
from email.message import EmailMessage
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass
class Received:
    """All that came, in order: JSON bodies with the paths they were posted to, and mails."""

    posts: list[dict[str, Any]] = field(default_factory=list)
    paths: list[str] = field(default_factory=list)
    mails: list[EmailMessage] = field(default_factory=list)
    envelopes: list[list[str]] = field(default_factory=list)
    """Of each mail whom it was addressed to, sender first."""
    logins: list[str] = field(default_factory=list)
    """At the mail server: user and password, NUL before each."""
    answer: int = 204
    """What the webhook answers."""


@contextmanager
def receiving() -> Iterator[tuple[Received, str, str]]:
    """Both, on free loopback ports. Yields what they get, and ``HOST:PORT`` of webhook and mail."""
    received = Received()

    class Webhook(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            received.paths.append(self.path)
            received.posts.append(json.loads(body))
            self.send_response(received.answer)
            self.end_headers()

        def log_message(self, *_: object) -> None: ...

    class Mail(socketserver.StreamRequestHandler):
        """RFC 5321 as far as a client insists on it."""

        def handle(self) -> None:
            envelope: list[str] = []
            self.say("220 here")
            while line := self.rfile.readline().decode().strip():
                command = line.split()[0].upper()
                if command in ("MAIL", "RCPT"):
                    envelope.append(line.partition("<")[2].partition(">")[0])
                if command == "AUTH":
                    received.logins.append(b64decode(line.split()[2]).decode())
                if command == "DATA":
                    self.say("354 go on")
                    received.mails.append(self.mail())
                    received.envelopes.append(envelope)
                    envelope = []
                answers = {
                    "EHLO": "250-here\r\n250 AUTH PLAIN",
                    "AUTH": "235 in",
                    "QUIT": "221 bye",
                }
                self.say(answers.get(command, "250 well"))

        def mail(self) -> EmailMessage:
            lines = []
            while (line := self.rfile.readline()) != b".\r\n":
                lines.append(line.removeprefix(b".") if line.startswith(b"..") else line)
            found = message_from_bytes(b"".join(lines), policy=policy.default)
            assert isinstance(found, EmailMessage)
            return found

        def say(self, line: str) -> None:
            self.wfile.write(f"{line}\r\n".encode())

    servers = [
        ThreadingHTTPServer(("127.0.0.1", 0), Webhook),
        socketserver.ThreadingTCPServer(("127.0.0.1", 0), Mail),
    ]
    threads = [
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        for server in servers
    ]
    for thread in threads:
        thread.start()
    try:
        web, mail = (f"127.0.0.1:{server.server_address[1]}" for server in servers)
        yield received, web, mail
    finally:
        for server, thread in zip(servers, threads, strict=True):
            server.shutdown()
            thread.join()
            server.server_close()
