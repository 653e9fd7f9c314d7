"""Automations and alerts on a real Prefect server, received by a real webhook and mail server."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from prefect.client.orchestration import get_client
from prefect.events.schemas.automations import AutomationCore, EventTrigger
from prefect.settings import PREFECT_API_URL, temporary_settings

from deployments.declaring import Declaration, declare
from deployments.destinations import EMAIL, SMTP, WEBHOOK
from deployments.messages import ALERTS
from perennial.cli.prefect_server import free_port
from perennial.contracts.events import CAUSE_LABEL, Event, resource_id
from tasks._events import emit as emit_event
from tests.integration.receivers import Received, receiving
from tests.waiting import until
from tests.workplace import Workplace

SECRET = "verysecret"
FLOW = """\
import sys, time
from prefect import flow

@flow(name=sys.argv[1], flow_run_name="score by {model}")
def work(model: str) -> None:
    if sys.argv[2] == "fail":
        raise ValueError("no such file")
    if sys.argv[2] == "hang":
        time.sleep(300)

work("demand")
"""


@pytest.fixture(scope="module")
def prefect_server(own_prefect_server: str) -> str:
    return own_prefect_server


@pytest.fixture
def received(flow_project: Workplace) -> Iterator[Received]:
    """What arrives when the project's environment names both; the server is cleared afterwards."""
    with receiving() as (found, web, mail):
        flow_project.environment[WEBHOOK] = f"http://{web}/{SECRET}"
        flow_project.environment[SMTP] = f"smtp://me:{SECRET}@{mail}"
        flow_project.environment[EMAIL] = "ops@example.com,you@example.com"
        yield found
        _clear(flow_project)


def _clear(project: Workplace) -> None:
    with (
        temporary_settings({PREFECT_API_URL: project.environment["PREFECT_API_URL"]}),
        get_client(sync_client=True) as client,
    ):
        for automation in client.read_automations():
            client.delete_automation(automation.id)
        for block in client.read_block_documents(include_secrets=False):
            client.delete_block_document(block.id)


def setup(project: Workplace, *flags: str) -> tuple[int, list[str]]:
    done = project.cli("setup", *flags)
    assert SECRET not in done.stdout + done.stderr
    return done.returncode, (done.stdout + done.stderr).splitlines()


def emit(project: Workplace, name: str, cause: str, **payload: Any) -> None:
    """As our tasks do; what none of them sends yet as anybody may, over HTTP."""
    if name in set(Event):
        told = {"model": "demand", "cause": cause, **payload}
        with temporary_settings({PREFECT_API_URL: project.environment["PREFECT_API_URL"]}):
            assert emit_event(Event(name), "demand", told)
        return
    event = {
        "id": str(uuid4()),
        "occurred": datetime.now(UTC).isoformat(),
        "event": name,
        "resource": {"prefect.resource.id": resource_id("demand"), CAUSE_LABEL: cause},
        "payload": {"model": "demand", "cause": cause, **payload},
    }
    project.ask("events", [event])


def start(project: Workplace, flow: str, what: str) -> subprocess.Popen[bytes]:
    script = project.root / "own.py"
    script.write_text(FLOW)
    return subprocess.Popen(
        [sys.executable, str(script), flow, what],
        env=project.environment,
        stderr=subprocess.DEVNULL,
    )


def server_log(tmp_path_factory: pytest.TempPathFactory) -> str:
    (log,) = Path(tmp_path_factory.getbasetemp()).glob("own-prefect-server[0-9]*/server.log")
    return log.read_text()


def states(project: Workplace, since: datetime) -> dict[str, str]:
    """The state of the newest run of each flow, by the flow's name; the server has runs of other
    tests too."""
    wanted = {"start_time": {"after_": since.isoformat()}}
    asked = {"flow_runs": wanted, "sort": "START_TIME_ASC"}
    runs = project.ask("flow_runs/filter", asked)
    names = {flow["id"]: flow["name"] for flow in project.ask("flows/filter", {})}
    return {names[run["flow_id"]]: run["state_type"] for run in runs}


def test_what_happens_is_told_once_at_both_with_the_link(
    flow_project: Workplace, received: Received, tmp_path_factory: pytest.TempPathFactory
) -> None:
    code, lines = setup(flow_project)
    assert code == 0, lines
    assert lines[:2] == [
        "block slack-webhook/perennial-alerts-webhook: created",
        "block slack-webhook/perennial-alerts-email: created",
    ]
    assert lines[-1] == (
        "alerts go to slack-webhook/perennial-alerts-email, slack-webhook/perennial-alerts-webhook"
    )

    models = sorted(set(ALERTS) - {"run"})
    for name in models:
        event = min(ALERTS[name].events)
        for _ in range(2):  # doubled on the way
            emit(flow_project, event, "a", reason=f"why {name}", report=f"/reports/{name}.html")
    emit(flow_project, "perennial.drift.detected", "b", reason="another", report="/reports/b.html")
    emit(flow_project, "perennial.data.arrived", "a")  # starts something, is nobody's alarm
    assert start(flow_project, "batch-scoring", "fail").wait(240) != 0
    assert start(flow_project, "somebody-elses", "fail").wait(240) != 0

    subjects = {name: f"demand: {ALERTS[name].what}" for name in models}
    wanted = Counter([*subjects.values(), subjects["drift"], "demand: batch-scoring failed"])
    until(lambda: Counter(post["subject"] for post in received.posts) >= wanted)
    until(lambda: len(received.mails) >= 2 * wanted.total())
    time.sleep(3)  # nothing more comes
    assert Counter(post["subject"] for post in received.posts) == wanted
    assert set(received.paths) == {f"/{SECRET}"}
    twice = Counter({subject: 2 * times for subject, times in wanted.items()})
    assert Counter(str(mail["Subject"]) for mail in received.mails) == twice
    assert Counter(to for _, *rest in received.envelopes for to in rest) == {
        "ops@example.com": wanted.total(),
        "you@example.com": wanted.total(),
    }

    assert set(received.logins) == {f"\0me\0{SECRET}"}
    mails = [mail.get_content().replace("\r\n", "\n") for mail in received.mails]
    for name in models:
        lines = f"Reason: why {name}\nReport: /reports/{name}.html\n"
        (post,) = [post for post in received.posts if lines in post["text"]]
        assert post["subject"] == subjects[name]
        assert sum(lines in text for text in mails) == 2
    (run,) = [post["text"] for post in received.posts if "batch-scoring" in post["subject"]]
    page = flow_project.environment["PREFECT_API_URL"].removesuffix("/api")
    (link,) = re.findall(rf"Link: ({page}/runs/flow-run/[0-9a-f-]{{36}})\n", run)
    assert "no such file" in run
    assert sum(link in text for text in mails) == 2

    assert SECRET not in server_log(tmp_path_factory)


def test_declaring_twice_changes_nothing_and_every_difference_is_told(
    flow_project: Workplace, received: Received
) -> None:
    alerts = [f"automation Perennial alert: {name}" for name in ALERTS]
    automations = ["automation Perennial: runs that died", *alerts]
    blocks = [
        "block slack-webhook/perennial-alerts-webhook",
        "block slack-webhook/perennial-alerts-email",
    ]
    everything = [*blocks, *automations]

    code, lines = setup(flow_project, "--check")
    assert (code, lines[:-1]) == (1, [f"{thing}: would be created" for thing in everything])
    code, lines = setup(flow_project)
    assert (code, lines[:-1]) == (0, [f"{thing}: created" for thing in everything])
    for flags in ([], ["--check"]):
        code, lines = setup(flow_project, *flags)
        assert (code, lines[:-1]) == (0, [f"{thing}: as declared" for thing in everything])

    # What somebody else made is left alone; what is ours and not declared any more is removed; what
    # was changed by hand is put right, but for what was paused.
    with (
        temporary_settings({PREFECT_API_URL: flow_project.environment["PREFECT_API_URL"]}),
        get_client(sync_client=True) as client,
    ):
        found = {automation.name: automation for automation in client.read_automations()}
        drift = found["Perennial alert: drift"]
        core = AutomationCore.model_validate(drift.model_dump(exclude={"id", "owner_resource"}))
        client.create_automation(core.model_copy(update={"name": "mine", "tags": ["perennial"]}))
        client.create_automation(core.model_copy(update={"name": "of last year"}))
        client.pause_automation(found["Perennial alert: run"].id)
        assert isinstance(core.trigger, EventTrigger)
        trigger = core.trigger.model_copy(update={"within": timedelta(minutes=1)})
        client.update_automation(drift.id, core.model_copy(update={"trigger": trigger}))
        flow_project.environment[WEBHOOK] += "/elsewhere"
        code, lines = setup(flow_project, "--check")
        differing = [
            "block slack-webhook/perennial-alerts-webhook: would be changed (url)",
            "automation Perennial alert: drift: would be changed (trigger)",
            "automation Perennial alert: run: as declared (paused)",
            "automation of last year: would be removed",
        ]
        assert (code, [line for line in lines[:-1] if not line.endswith(": as declared")]) == (
            1,
            differing,
        )
        done = flow_project.cli("setup", "--json")
        assert done.returncode == 0, done.stderr
        declaration = Declaration.model_validate_json(done.stdout)
        assert Counter(step.outcome for step in declaration.steps) == {
            "as declared": 7,
            "changed": 2,
            "removed": 1,
        }
        after = {automation.name: automation for automation in client.read_automations()}
        assert set(after) == {*found, "mine"}
        assert after["Perennial alert: drift"].trigger == found["Perennial alert: drift"].trigger
        assert not after["Perennial alert: run"].enabled

        # Without variables what is on the server stays; without blocks there are no alerts.
        for name in (WEBHOOK, SMTP, EMAIL):
            del flow_project.environment[name]
        code, lines = setup(flow_project, "--check")
        assert code == 0, lines
        for block in client.read_block_documents(include_secrets=False):
            client.delete_block_document(block.id)
        code, lines = setup(flow_project)
        assert (code, lines[-1]) == (
            0,
            "alerts go nowhere yet: docs/alerts.md says where they can go",
        )
        left = {automation.name for automation in client.read_automations()}
        assert left == {"mine", "Perennial: runs that died"}


def test_a_run_that_is_killed_is_found_dead_and_told_and_others_are_left_alone(
    flow_project: Workplace, received: Received
) -> None:
    began = datetime.now(UTC)
    with (
        temporary_settings({PREFECT_API_URL: flow_project.environment["PREFECT_API_URL"]}),
        get_client(sync_client=True) as client,
    ):
        declare(client, flow_project.environment, dead_after=timedelta(seconds=10))
    assert start(flow_project, "reproduction", "end").wait(240) == 0
    killed = {name: start(flow_project, name, "hang") for name in ("batch-scoring", "not-ours")}
    until(lambda: all(states(flow_project, began).get(name) == "RUNNING" for name in killed))
    until(lambda: _heartbeats(flow_project, began) >= 2)
    for process in killed.values():
        process.send_signal(signal.SIGKILL)
        assert process.wait(240) == -signal.SIGKILL
    until(lambda: states(flow_project, began)["batch-scoring"] == "CRASHED")
    until(lambda: len(received.posts) == 1)
    (post,) = received.posts
    assert post["subject"] == "demand: batch-scoring crashed"
    assert "Reason: no heartbeat for 10 s: its process is gone\n" in post["text"]
    time.sleep(12)  # no other one is taken for dead, nor this one twice
    assert states(flow_project, began)["reproduction"] == "COMPLETED"
    assert states(flow_project, began)["not-ours"] == "RUNNING"
    assert len(received.posts) == 1


def _heartbeats(project: Workplace, since: datetime) -> int:
    """How many running runs of the two have been heard of."""
    wanted = {
        "event": {"name": ["prefect.flow-run.heartbeat"]},
        "occurred": {"since": since.isoformat()},
    }
    events = project.ask("events/filter", {"filter": wanted})["events"]
    names = [
        related["prefect.resource.name"]
        for event in events
        for related in event["related"]
        if related["prefect.resource.role"] == "flow"
    ]
    return len({"batch-scoring", "not-ours"} & set(names))


def test_blocks_that_somebody_made_are_destinations_too(
    flow_project: Workplace, received: Received
) -> None:
    url = flow_project.environment[WEBHOOK]
    making = f"""
from prefect.blocks.notifications import CustomWebhookNotificationBlock
from prefect.blocks.webhook import Webhook
CustomWebhookNotificationBlock(
    name="ours", url="{url}/team",
    json_data={{"subject": "{{{{subject}}}}", "text": "{{{{body}}}}"}},
).save("perennial-alerts-team")
Webhook(url="{url}/program").save("perennial-alerts")
Webhook(url="{url}/nobody").save("perennial-alertsmith")
"""
    subprocess.run([sys.executable, "-c", making], env=flow_project.environment, check=True)
    for name in (WEBHOOK, SMTP, EMAIL):
        del flow_project.environment[name]
    code, lines = setup(flow_project)
    assert (code, lines[-1]) == (
        0,
        "alerts go to custom-webhook/perennial-alerts-team, webhook/perennial-alerts",
    )
    emit(flow_project, "perennial.data.faulty", "a", reason="all is empty", report="/r.html")
    until(lambda: len(received.posts) == 2)
    found = dict(zip(received.paths, received.posts, strict=True))
    team, program = found[f"/{SECRET}/team"], found[f"/{SECRET}/program"]
    assert team["subject"] == "demand: what it is asked is faulty"
    assert "Reason: all is empty\n" in team["text"]
    assert (program["alert"], program["link"]) == ("fault", "/r.html")
    assert program["text"] == team["text"].strip()
    assert program["payload"]["cause"] == "a"


def test_who_refuses_is_told_in_the_event_feed_without_the_address(
    flow_project: Workplace, received: Received, tmp_path_factory: pytest.TempPathFactory
) -> None:
    received.answer = 500
    flow_project.environment[SMTP] = f"smtp://127.0.0.1:{free_port()}"
    assert setup(flow_project)[0] == 0
    emit(flow_project, "perennial.data.faulty", "a", reason="all is empty")
    failed = {"filter": {"event": {"name": ["prefect.automation.action.failed"]}}}
    said = ("Failed to send JSON POST notification", "Connection error while submitting email")

    def told() -> str:  # the server has failures of other tests too
        return str(flow_project.ask("events/filter", failed))

    until(lambda: all(reason in told() for reason in said))
    assert SECRET not in told() + server_log(tmp_path_factory)


def test_without_a_server_or_with_wrong_variables_one_message_says_so(project: Workplace) -> None:
    code, lines = setup(project)
    assert (code, len(lines)) == (2, 1)
    assert lines[0].startswith("PREFECT_API_URL: not set, and no Prefect server known (")
    project.environment["PREFECT_API_URL"] = f"http://127.0.0.1:{free_port()}/api"
    project.environment[WEBHOOK] = SECRET
    code, lines = setup(project)
    assert (code, lines) == (2, [f"{WEBHOOK}: not an address (it begins with http:// or https://)"])
