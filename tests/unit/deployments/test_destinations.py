"""Where alerts go, as the environment says it."""

from __future__ import annotations

import json
import re

import pytest
import requests
from apprise import Apprise
from apprise.plugins.custom_json import NotifyJSON
from apprise.plugins.email import NotifyEmail
from prefect.blocks.notifications import SlackWebhook
from prefect.blocks.webhook import Webhook

from deployments.destinations import EMAIL, EMAIL_FROM, SLACK, SMTP, WEBHOOK, from_environment
from perennial.contracts.errors import InputError

SLACK_URL = "https://hooks.slack.com/services/T0000/B0000/verysecret"
PASSWORD = "very:secret/@?#é"


Requests = list[requests.PreparedRequest]


@pytest.fixture
def sent(monkeypatch: pytest.MonkeyPatch) -> Requests:
    """The requests that would leave this machine, each answered as if it had arrived."""
    found: Requests = []

    def send(_: object, request: requests.PreparedRequest, **__: object) -> requests.Response:
        found.append(request)
        answer = requests.Response()
        answer.status_code = 200
        answer._content = b"ok"
        return answer

    monkeypatch.setattr(requests.Session, "send", send)
    return found


def mail(**environment: str) -> NotifyEmail:
    block = from_environment(environment)["perennial-alerts-email"]
    assert isinstance(block, SlackWebhook)
    found = Apprise.instantiate(block.url.get_secret_value())
    assert isinstance(found, NotifyEmail)
    return found


def test_nothing_is_made_of_an_environment_that_says_nothing() -> None:
    assert from_environment({"PATH": "/bin", SLACK: "", WEBHOOK: "  "}) == {}


def test_slack_is_a_block_whose_address_is_secret_and_is_called(sent: Requests) -> None:
    found = from_environment({SLACK: SLACK_URL})
    assert "verysecret" not in repr(found)
    slack = found["perennial-alerts-slack"]
    assert isinstance(slack, SlackWebhook)
    slack.notify("Report: /reports/drift.html", subject="demand: drift")
    (request,) = sent
    assert request.url == SLACK_URL
    (attachment,) = json.loads(request.body or "")["attachments"]
    assert (attachment["title"], attachment["text"]) == (
        "demand: drift",
        "Report: /reports/drift.html",
    )


@pytest.mark.parametrize(
    "url",
    [
        "https://alerts.example.com/in/verySecret?Token=a%26b&flag=&x=%C3%A9%2B",
        "http://me:very%40secret@127.0.0.1:8000/",
        "https://alerts.example.com",
        "http://[::1]:8000/a%20b/c/",
    ],
)
def test_a_webhook_is_called_at_its_address(url: str, sent: Requests) -> None:
    block = from_environment({WEBHOOK: url})["perennial-alerts-webhook"]
    assert isinstance(block, SlackWebhook)
    found = Apprise.instantiate(block.url.get_secret_value())
    assert isinstance(found, NotifyJSON)
    assert found.notify("what happened", title="drift")
    expected = requests.Request("POST", url).prepare()
    (request,) = sent
    assert request.url == (expected.url or "").replace("me:very%40secret@", "")
    assert request.headers.get("Authorization") == expected.headers.get("Authorization")
    assert json.loads(request.body or "") == {"subject": "drift", "text": "what happened"}


def test_on_prefect_cloud_a_webhook_is_one_and_mail_is_left_to_it() -> None:
    url = "https://alerts.example.com/in?token=verysecret"
    webhook = from_environment({WEBHOOK: url}, cloud=True)["perennial-alerts-webhook"]
    assert isinstance(webhook, Webhook)
    assert webhook.url.get_secret_value() == url
    assert webhook.headers.get_secret_value() == {"Content-Type": "application/json"}
    with pytest.raises(InputError) as raised:
        from_environment({SMTP: "smtp://relay", EMAIL: "a@b.c"}, cloud=True)
    assert raised.value.message == (
        "PERENNIAL_ALERT_SMTP_URL: Prefect Cloud sends mail by a block of its own (make an Email "
        "block there, with a name that begins with perennial-alerts)"
    )


@pytest.mark.parametrize(
    ("scheme", "mode", "port"), [("smtp+starttls", "starttls", 587), ("smtps", "ssl", 465)]
)
def test_mail_is_sent_as_the_address_of_its_server_says(scheme: str, mode: str, port: int) -> None:
    secret = "very%3Asecret%2F%40%3F%23%C3%A9"
    found = mail(
        **{
            SMTP: f"{scheme}://me%40example.com:{secret}@mail.gmail.com",
            EMAIL: "ops@example.com, you+alerts@example.org",
        }
    )
    assert (found.smtp_host, found.port) == ("mail.gmail.com", port)
    assert (found.secure_mode, found.secure) == (mode, True)
    assert (found.user, found.password) == ("me@example.com", PASSWORD)
    assert [address for _, address in found.targets] == [
        "ops@example.com",
        "you+alerts@example.org",
    ]
    assert found.from_addr == ("Perennial", "me@example.com")
    assert found.notify_format == "text"


def test_mail_goes_through_a_server_that_asks_for_nothing() -> None:
    found = mail(**{SMTP: "smtp://127.0.0.1:2525", EMAIL: "ops@example.com"})
    assert (found.smtp_host, found.port, found.secure) == ("127.0.0.1", 2525, False)
    assert (found.user, found.password) == (None, None)
    assert found.from_addr == ("Perennial", "ops@example.com")
    sender = mail(**{SMTP: "smtp://relay", EMAIL: "a@b.org", EMAIL_FROM: "perennial@example.com"})
    assert sender.from_addr == ("Perennial", "perennial@example.com")
    assert (sender.smtp_host, sender.port) == ("relay", 25)


WRONG = {
    "slack elsewhere": (
        {SLACK: "https://example.com/services/a/b/verysecret"},
        "PERENNIAL_ALERT_SLACK_URL: not the address of a Slack webhook (Slack gives it: "
        "https://hooks.slack.com/services/…; other services by a webhook)",
    ),
    "half a slack address": (
        {SLACK: "https://hooks.slack.com/services/verysecret"},
        "PERENNIAL_ALERT_SLACK_URL: the address of a Slack webhook has three parts after services "
        "(copy the whole of https://hooks.slack.com/services/T…/B…/…)",
    ),
    "no address": (
        {WEBHOOK: "verysecret"},
        "PERENNIAL_ALERT_WEBHOOK_URL: not an address (it begins with http:// or https://)",
    ),
    "a port that is none": (
        {WEBHOOK: "https://verysecret:99999/"},
        "PERENNIAL_ALERT_WEBHOOK_URL: not an address (it begins with http:// or https://)",
    ),
    "nobody to write to": (
        {SMTP: "smtp://relay"},
        "PERENNIAL_ALERT_EMAIL: is needed beside PERENNIAL_ALERT_SMTP_URL (who is written to; "
        "commas between)",
    ),
    "no mail server": (
        {EMAIL: "a@b.c"},
        "PERENNIAL_ALERT_SMTP_URL: is needed beside PERENNIAL_ALERT_EMAIL (write "
        "smtp+starttls://USER:PASSWORD@HOST:PORT; smtps:// and smtp:// are known too)",
    ),
    "another protocol": (
        {EMAIL: "a@b.org", SMTP: "https://me:verysecret@relay"},
        "PERENNIAL_ALERT_SMTP_URL: not the address of a mail server (write "
        "smtp+starttls://USER:PASSWORD@HOST:PORT; smtps:// and smtp:// are known too)",
    ),
    "a password in the clear": (
        {EMAIL: "a@b.org", SMTP: "smtp://me:verysecret@relay"},
        "PERENNIAL_ALERT_SMTP_URL: a password would go through the network in the clear (use "
        "smtp+starttls:// or smtps://)",
    ),
    "no e-mail addresses": (
        {EMAIL: "a@b.org, verysecret, <x@y>", EMAIL_FROM: "a@b.org, d@e.org", SMTP: "smtp://relay"},
        "PERENNIAL_ALERT_EMAIL: 2 of 3 are no e-mail addresses (write name@example.com, with "
        "commas between)\n"
        "PERENNIAL_ALERT_EMAIL_FROM: more than one address (a mail has one sender)",
    ),
}


@pytest.mark.parametrize("case", sorted(WRONG))
def test_what_is_wrong_is_told_without_its_value(
    case: str, caplog: pytest.LogCaptureFixture
) -> None:
    environment, message = WRONG[case]
    with pytest.raises(InputError) as raised:
        from_environment(environment)
    assert raised.value.message == message
    assert caplog.text == ""


@pytest.mark.parametrize(
    "address",
    [
        "ops@mail",
        "ops@a.b",
        "ops.@example.com",
        "ops@10.0.0.1",
        "ops@example..com",
        "ops@example.com.",
        "+ops@example.com",
        "ops@exämple.com",
        "o'brien@example.com",
    ],
)
@pytest.mark.parametrize("name", [EMAIL, EMAIL_FROM])
def test_an_address_that_no_mail_would_reach_is_refused(
    name: str, address: str, caplog: pytest.LogCaptureFixture
) -> None:
    environment = {SMTP: "smtp://relay", EMAIL: "you@example.com"} | {name: address}
    with pytest.raises(InputError) as raised:
        from_environment(environment)
    assert raised.value.message == (
        f"{name}: 1 of 1 are no e-mail addresses (write name@example.com, with commas between)"
    )
    assert caplog.text == ""


def test_a_user_that_is_no_address_sends_no_mail_in_its_name(
    caplog: pytest.LogCaptureFixture,
) -> None:
    found = mail(**{SMTP: "smtp://us%40er@relay", EMAIL: "ops@example.com"})
    assert (found.user, found.from_addr) == ("us@er", ("Perennial", "ops@example.com"))
    assert caplog.text == ""


def test_all_that_is_wrong_is_told_at_once() -> None:
    environment = {SLACK: "verysecret", WEBHOOK: "verysecret", EMAIL: "verysecret"}
    with pytest.raises(InputError) as raised:
        from_environment(environment)
    told = re.findall(r"^PERENNIAL_ALERT_\w+", raised.value.message, re.MULTILINE)
    assert told == [SLACK, WEBHOOK, SMTP]
    assert "verysecret" not in raised.value.message
