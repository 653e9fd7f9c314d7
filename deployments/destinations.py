"""Where alerts go: notification blocks on the Prefect server, some of them from the environment.

Every block whose name is ``perennial-alerts`` or begins with ``perennial-alerts-`` is a
destination, whoever made it: a notification block of any type, or a Webhook, which is sent JSON.
Addresses and passwords are secrets of these blocks; no message says them.

On a server of one's own, what the environment asks for are blocks of the type Slack Webhook,
whatever they lead to: it is the one type that hands any other address to Apprise, which knows plain
e-mail and JSON (docs/adr/0023).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import SplitResult, parse_qsl, quote, unquote, urlencode, urlsplit
from uuid import UUID

from apprise.utils.parse import is_email
from prefect.blocks.core import Block
from prefect.blocks.notifications import SlackWebhook
from prefect.blocks.webhook import Webhook
from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.objects import BlockDocument
from prefect.types import SecretDict
from pydantic import SecretStr

from perennial.contracts.errors import InputError, Problem

NAME = "perennial-alerts"
SLACK = "PERENNIAL_ALERT_SLACK_URL"
WEBHOOK = "PERENNIAL_ALERT_WEBHOOK_URL"
EMAIL = "PERENNIAL_ALERT_EMAIL"
EMAIL_FROM = "PERENNIAL_ALERT_EMAIL_FROM"
SMTP = "PERENNIAL_ALERT_SMTP_URL"

_SMTP_MODES = {"smtp": ("insecure", 25), "smtp+starttls": ("starttls", 587), "smtps": ("ssl", 465)}
_SMTP_FORM = "write smtp+starttls://USER:PASSWORD@HOST:PORT; smtps:// and smtp:// are known too"
_JSON_NAMES = {
    ":title": "subject",
    ":message": "text",
    ":version": "",
    ":attachments": "",
    ":type": "",
}
_SLACK_HOSTS = {"hooks.slack.com", "hooks.slack-gov.com"}
_PAGE = 200


@dataclass(frozen=True, slots=True, order=True)
class Destination:
    """A block on the server. ``takes_json``: a webhook that is called, not a notification."""

    type: str
    name: str
    id: UUID
    takes_json: bool

    def __str__(self) -> str:
        return f"{self.type}/{self.name}"


def from_environment(environment: Mapping[str, str], *, cloud: bool = False) -> dict[str, Block]:
    """The blocks that variables ask for, by name, for a server of one's own or Prefect Cloud.

    Raises InputError with every problem found, of which none tells a value.
    """
    problems: list[Problem] = []
    found: dict[str, Block] = {}
    if url := environment.get(SLACK, "").strip():
        problems += (wrong := _slack_problems(url))
        if not wrong:  # Apprise would log a wrong one
            found[f"{NAME}-slack"] = SlackWebhook(url=SecretStr(url))
    if url := environment.get(WEBHOOK, "").strip():
        problems += (wrong := _web_problems(url))
        if cloud and not wrong:
            headers = SecretDict({"Content-Type": "application/json"})
            found[f"{NAME}-webhook"] = Webhook(url=SecretStr(url), headers=headers)
        elif not wrong:
            found[f"{NAME}-webhook"] = SlackWebhook(url=SecretStr(_json_url(url)))
    mail = {name: environment.get(name, "").strip() for name in (EMAIL, EMAIL_FROM, SMTP)}
    if (mail[EMAIL] or mail[SMTP]) and cloud:
        fix = f"make an Email block there, with a name that begins with {NAME}"
        problems.append(Problem(SMTP, "Prefect Cloud sends mail by a block of its own", fix))
    elif mail[EMAIL] or mail[SMTP]:
        problems += (wrong := _mail_problems(mail))
        if not wrong:
            found[f"{NAME}-email"] = SlackWebhook(url=SecretStr(_mail_url(mail)))
    if problems:
        raise InputError(problems)
    return found


def data_of(block: Block) -> dict[str, Any]:
    """What a block is stored as, secrets included."""
    fields = set(type(block).model_fields)
    data: dict[str, Any] = block.model_dump(
        mode="json", include=fields, context={"include_secrets": True}
    )
    return data


def on_server(client: SyncPrefectClient) -> list[Destination]:
    """The destinations that are there, sorted by type and name."""
    found: list[BlockDocument] = []
    while True:
        page = client.read_block_documents(offset=len(found), limit=_PAGE, include_secrets=False)
        found += page
        if len(page) < _PAGE:
            break
    return sorted(
        Destination(block.block_type.slug, block.name, block.id, block.block_type.slug == "webhook")
        for block in found
        if block.name is not None
        and block.block_type is not None
        and (block.name == NAME or block.name.startswith(f"{NAME}-"))
        and (block.block_type.slug == "webhook" or _notifies(block))
    )


def _notifies(block: BlockDocument) -> bool:
    return block.block_schema is not None and "notify" in block.block_schema.capabilities


def _slack_problems(url: str) -> list[Problem]:
    parts = _split(url)
    if parts is None or parts.scheme != "https" or parts.hostname not in _SLACK_HOSTS:
        fix = "Slack gives it: https://hooks.slack.com/services/…; other services by a webhook"
        return [Problem(SLACK, "not the address of a Slack webhook", fix)]
    if len([part for part in parts.path.split("/") if part]) != 4:
        fix = "copy the whole of https://hooks.slack.com/services/T…/B…/…"
        return [
            Problem(SLACK, "the address of a Slack webhook has three parts after services", fix)
        ]
    return []


def _web_problems(url: str) -> list[Problem]:
    parts = _split(url)
    if parts is None or parts.scheme not in ("http", "https") or not parts.hostname:
        return [Problem(WEBHOOK, "not an address", "it begins with http:// or https://")]
    return []


def _mail_problems(mail: Mapping[str, str]) -> list[Problem]:
    if not mail[SMTP]:
        return [Problem(SMTP, f"is needed beside {EMAIL}", _SMTP_FORM)]
    if not mail[EMAIL]:
        return [Problem(EMAIL, f"is needed beside {SMTP}", "who is written to; commas between")]
    problems = []
    for name in (EMAIL, EMAIL_FROM):
        wrong = [one for one in _addresses(mail[name]) if not _is_address(one)]
        if wrong:
            what = f"{len(wrong)} of {len(_addresses(mail[name]))} are no e-mail addresses"
            problems.append(Problem(name, what, "write name@example.com, with commas between"))
    if len(_addresses(mail[EMAIL_FROM])) > 1:
        problems.append(Problem(EMAIL_FROM, "more than one address", "a mail has one sender"))
    server = _split(mail[SMTP])
    if server is None or server.scheme not in _SMTP_MODES or not server.hostname:
        problems.append(Problem(SMTP, "not the address of a mail server", _SMTP_FORM))
    elif server.password and server.scheme == "smtp" and not _is_local(server.hostname):
        what = "a password would go through the network in the clear"
        problems.append(Problem(SMTP, what, "use smtp+starttls:// or smtps://"))
    return problems


def _json_url(url: str) -> str:
    """In Apprise's way: an address that is sent ``{"subject": …, "text": …}`` by POST."""
    parts = urlsplit(url)
    own = [(f"-{name}", value) for name, value in parse_qsl(parts.query, keep_blank_values=True)]
    query = urlencode([*own, *_JSON_NAMES.items()], quote_via=quote)
    scheme = {"http": "json", "https": "jsons"}[parts.scheme]
    return f"{scheme}://{parts.netloc}{parts.path}?{query}"


def _mail_url(mail: Mapping[str, str]) -> str:
    """In Apprise's way: a mail server, and from whom to whom."""
    server = urlsplit(mail[SMTP])
    mode, usual_port = _SMTP_MODES[server.scheme]
    user = unquote(server.username or "")
    to = _addresses(mail[EMAIL])
    sender = mail[EMAIL_FROM] or (user if _is_address(user) else to[0])
    login = f"{quote(user, safe='')}:{quote(unquote(server.password or ''), safe='')}@"
    host = f"[{server.hostname}]" if ":" in (server.hostname or "") else server.hostname
    query = {
        "smtp": server.hostname,  # else Apprise would guess one by the host
        "mode": mode,
        "from": sender,
        "name": "Perennial",
        "to": ",".join(to),
        "format": "text",
    }
    scheme = "mailto" if mode == "insecure" else "mailtos"
    place = f"{login if user else ''}{host}:{server.port or usual_port}"
    return f"{scheme}://{place}/?{urlencode(query, quote_via=quote)}"


def _split(url: str) -> SplitResult | None:
    """None for what can't be an address."""
    try:
        parts = urlsplit(url)
        _ = parts.port  # raises when it is none
    except ValueError:
        return None
    return None if any(character.isspace() for character in url) else parts


def _addresses(text: str) -> list[str]:
    return [one.strip() for one in text.split(",") if one.strip()]


def _is_address(text: str) -> bool:
    """Whether Apprise takes the whole text for one: of others it may take a part."""
    found = is_email(text)  # type: ignore[no-untyped-call]
    return bool(found) and found["full_email"] == text


def _is_local(host: str) -> bool:
    return host in ("localhost", "::1") or host.startswith("127.")
