"""What alerts say: Jinja templates that the Prefect server renders with the event.

A template that fails is silent, so that none relies on anything: what an event does not tell is
left out. All of them know ``model``, ``what``, ``reason``, ``link`` and ``details``, set by a head.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from perennial.contracts.events import Event

_HEAD_OF_MODEL = """\
{%- set told = event.payload -%}
{%- set model = told.model or event.resource.name or event.resource.id -%}
{%- set reason = told.reason -%}
{%- set link = told.report or (event|ui_url) -%}
{%- set figures = told.evidence.items()|rejectattr("0", "equalto", "report")|list
  if told.evidence is mapping else [] -%}
{%- set figures = figures|selectattr("1", "number")|list
  + figures|selectattr("1", "string")|list -%}
{%- set window = told.window if told.window is string or told.window is not iterable
  else told.window|join(" to ") -%}
{%- set details = [("Finding", told.finding), ("Window", window),
  ("Figures", figures|map("join", ": ")|join(", ")), ("Retrain", told.answer),
  ("Report", told.report), ("Run", flow_run|ui_url), ("Event", event|ui_url)] -%}
"""
_HEAD_OF_RUN = """\
{%- set model = flow_run.parameters.model or "a run" -%}
{%- set reason = event.resource["prefect.state-message"] -%}
{%- set link = flow_run|ui_url -%}
{%- set details = [("Flow", flow.name), ("Run", flow_run.name or event.resource.name),
  ("State", event.resource["prefect.state-name"]), ("Link", link)] -%}
"""
_SUBJECT = """{{ (model ~ ": " ~ what)|replace("\\n", " ")|truncate(120) }}"""
_BODY = """\
{{ model }}: {{ what }}.
{% for label, value in [("Reason", reason)] + details if value %}
{{ label }}: {{ value|string|truncate(1000) }}
{%- endfor %}
{% if next %}
{{ next }}
{% endif %}"""
_JSON = """\
{{ {"alert": alert, "subject": subject|trim, "text": text|trim, "model": model|string,
  "reason": reason|default("", true)|string, "link": link|default("", true)|string,
  "event": event.event, "id": event.id|string, "occurred": event.occurred.isoformat(),
  "resource": event.resource.id, "payload": event.payload}|tojson }}"""


@dataclass(frozen=True, slots=True)
class Alert:
    """One kind of alert: the events that it tells of, and in which words.

    ``what`` ends the sentence that the model's name begins, ``then`` is what follows from it or
    what to do now; both are templates. ``of_runs``: the events are of flow runs, not of models.
    """

    name: str
    events: frozenset[str]
    what: str
    then: str
    of_runs: bool = False

    @property
    def subject(self) -> str:
        """Template of one line."""
        return self._with_head(_SUBJECT)

    @property
    def body(self) -> str:
        """Template of plain text, the link to the evidence in it."""
        return self._with_head(_BODY)

    @property
    def json(self) -> str:
        """Template of a JSON object: subject and text as above, and what a program needs."""
        subject = f"{{% set subject %}}{_SUBJECT}{{% endset -%}}"
        text = f"{{% set text %}}{_BODY}{{% endset -%}}"
        return self._with_head(f'{{%- set alert = "{self.name}" -%}}\n{subject}{text}{_JSON}')

    def _with_head(self, template: str) -> str:
        head = _HEAD_OF_RUN if self.of_runs else _HEAD_OF_MODEL
        return f"{head}{_set('what', self.what)}{_set('next', self.then)}{template}"


def _set(name: str, template: str) -> str:
    return f"{{%- set {name} %}}{template}{{% endset -%}}\n"


def _of_model(name: str, event: str, what: str, then: str) -> Alert:
    return Alert(name, frozenset({str(event)}), what, then)


_MORE = "More on it: perennial status {{ model }}"
_ALERTS = (
    _of_model("drift", Event.DRIFT_DETECTED, "what it is asked has drifted", _MORE),
    _of_model("performance", Event.PERFORMANCE_DROPPED, "it predicts worse than promised", _MORE),
    _of_model(
        "fault",
        Event.DATA_FAULTY,
        "what it is asked is faulty",
        "Nothing is trained on this. Look into where the data comes from.",
    ),
    _of_model(
        "refusal",
        Event.CANDIDATE_REFUSED,
        "a candidate was refused",
        "The champion stays, if there is one: perennial status {{ model }}",
    ),
    _of_model(
        "rollback",
        Event.ROLLOUT_ROLLED_BACK,
        "a version was rolled back",
        "Who answers now: perennial status {{ model }}",
    ),
    Alert(
        name="run",
        events=frozenset({"prefect.flow-run.Failed", "prefect.flow-run.Crashed"}),
        what='{{ flow.name }} {{ event.event.rpartition(".")[2]|lower }}',
        then="Started again (Retry on its page), it goes on from its last finished stage.",
        of_runs=True,
    ),
)
ALERTS: Mapping[str, Alert] = {alert.name: alert for alert in _ALERTS}
"""All kinds of alerts by name."""
