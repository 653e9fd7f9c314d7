"""The commands that start no flow, and what all of them say of a wrong request."""

from __future__ import annotations

import json
import shutil
from contextlib import nullcontext
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from perennial import __version__
from perennial.contracts.errors import InputError
from perennial.contracts.refs import BundleRef
from perennial.contracts.retraining import Finding, Trigger
from perennial.contracts.rollouts import Check, CheckOutcome, Guard, Plan, Rollout, Step
from perennial.contracts.verdicts import Evidence, Outcome, Verdict
from perennial.decisions.rollout import step
from perennial.spec import parse_spec
from perennial.spec.production import Retrain
from perennial.stores.project import Project
from perennial.stores.registry import Registry
from tests.fuzz.served import ROW, SPEC, make_project
from tests.workplace import Workplace

HERE = "perennial init makes one; --project names another place"
NOW = datetime.now(UTC)


def said(project: Workplace, *arguments: str) -> str:
    """What a command that succeeds prints; nothing is left to say on standard error."""
    process = project.command(*arguments)
    assert (process.returncode, process.stderr) == (0, "")
    return process.stdout


def complaint(project: Workplace, *arguments: str) -> str:
    """What a command says of wrong input; nothing goes to standard output."""
    process = project.command(*arguments)
    assert (process.returncode, process.stdout) == (2, "")
    return process.stderr.removesuffix("\n")


@pytest.fixture
def registered(project: Workplace) -> Workplace:
    """A project with two versions, the first of which serves and kept its place once."""
    registry = Registry(Project(project.root).registry_url)
    for number, roc_auc in ((1, 0.71), (2, 0.7)):
        registry.register(
            "demand", BundleRef(uri=f"/bundles/{number}", digest=str(number) * 64),
            params={"max_depth": 5, "learning_rate": 0.1}, metrics={"roc_auc": roc_auc},
            judgement={"verdicts": [{"outcome": "passed", "reason": "roc_auc 0.71 is enough"}]},
            links={"trigger": "by hand", "prefect_flow_run_url": "http://prefect/1"},
            actor="a test", reason="good enough", now=NOW - timedelta(hours=3),
        )  # fmt: skip
    registry.promote(
        "demand", 1, expected_generation=0, actor="a test", reason="good enough", evidence={},
        cause="first", now=NOW - timedelta(hours=2),
    )  # fmt: skip
    registry.record(
        "demand", "kept champion", version=None, digest="3" * 64, actor="a test",
        reason="[no] better", evidence={}, cause="second", now=NOW - timedelta(hours=1),
    )  # fmt: skip
    registry.close()
    return project


def test_a_model_that_does_not_exist_is_told_with_the_nearest_and_all_names(
    project: Workplace,
) -> None:
    place = project.root / "models"
    for command in (["train"], ["check"], ["quarantine"]):
        assert complaint(project, *command, "deman") == (
            f"{place}: no model 'deman'; did you mean 'demand'? (models here: demand)"
        )
    for command in (["status", "deman"], ["versions", "deman"], ["show", "deman@1"]):
        assert complaint(project, *command) == (
            f"{project.root}: no model 'deman'; did you mean 'demand'? (models here: demand)"
        )
    assert complaint(project, "reproduce", "demand@7") == (
        "registry: 'demand' has no version 7 (it has no version yet)"
    )


@pytest.mark.parametrize("text", ["demand", "demand@", "@1", "demand@x", "demand@0", "demand@-1"])
def test_a_version_that_is_not_name_at_number_is_refused(project: Workplace, text: str) -> None:
    for command in ("show", "reproduce"):
        assert complaint(project, command, text) == (
            f"{text!r} is not NAME@V; write for example flight-delay@3"
        )


@pytest.mark.parametrize(
    "text", ["yesterday", "2013-13-01", "1.7.2013", "", "9999-12-31T23:59:59-05:00"]
)
def test_a_moment_that_is_none_is_refused(project: Workplace, text: str) -> None:
    assert complaint(project, "train", "demand", "--as-of", text) == (
        f"--as-of: {text!r} is not a time (write for example 2013-07-01 or 2013-07-01T06:00:00Z)"
    )


def test_a_folder_without_models_is_told_and_stays_as_it_is(project: Workplace) -> None:
    empty = project.root / "elsewhere"
    empty.mkdir()
    for command in (["status"], ["versions", "demand"], ["show", "demand@1"]):
        assert complaint(project, "--project", str(empty), *command) == (
            f"{empty}: no models here "
            "(perennial init makes a model here; --project names another place)"
        )
    for command in (["train", "demand"], ["quarantine", "demand"]):
        assert complaint(project, "--project", str(empty), *command) == (
            f"{empty}/models: no model 'demand' ({HERE})"
        )
    assert complaint(project, "--project", str(empty), "check") == (
        f"{empty}/models: no models here ({HERE})"
    )
    assert list(empty.iterdir()) == []
    usage = complaint(project, "--project", str(project.root / "nowhere"), "status")
    assert usage.splitlines()[-1].endswith("nowhere' does not exist.")


def test_less_than_nothing_is_no_number_of_rows_to_show(project: Workplace) -> None:
    for command, option, least in (("quarantine demand", "limit", 1), ("status", "decisions", 0)):
        usage = complaint(project, *command.split(), f"--{option}", "-1")
        assert usage.splitlines()[-1] == (
            f"Error: Invalid value for '--{option}': "
            f"Input should be greater than or equal to {least}"
        )


def test_two_models_of_one_name_are_told(project: Workplace) -> None:
    shutil.copytree(project.model, project.root / "models" / "other")
    assert complaint(project, "check") == (
        f"{project.root}/models/other/model.yaml, name: the name 'demand' is also that of "
        f"{project.root}/models/demand/model.yaml (give each model its own name)"
    )


def test_check_says_what_is_in_order_and_shows_rows_that_break_a_rule(project: Workplace) -> None:
    path = project.root / "data" / "2024-a.csv"
    lines = path.read_text().splitlines()
    assert ",0,False" in lines[1]  # a weekday, from 0
    lines[1] = lines[1].replace(",0,False", ",9,False")
    path.write_text("\n".join(lines))
    assert said(project, "check", "demand").splitlines() == [
        "demand: model.yaml: binary, 4 columns, 2 gates",
        "demand: features.py: 6 features, 1 fitted value",
        "demand: source: 3,600 rows in the first batch, 1 row for quarantine",
        "demand: source: 1 row such as 2024-a.csv row 2 (column weekday: 9 is above max 6)",
        "demand: features: computed for 2,000 rows, each from its own row alone",
        "prefect.yaml: none, needed for deployments only; perennial check --write writes it",
    ]
    assert not (project.root / ".perennial").exists()


def test_a_column_that_cannot_be_fitted_in_the_first_rows_stops_check_but_not_train(
    project: Workplace,
) -> None:
    project.edit("float(temperature.mean())", "float('nan')", file="features.py")
    message = "features.py, line 11, usual_temperature(): its fitted value is nan"
    process = project.command("check", "demand")
    assert (process.returncode, process.stderr[: len(message)]) == (2, message)

    from perennial.cli.checking import look_over

    look_over(Project(project.root), "demand", None)


@pytest.mark.parametrize(
    ("feature", "message"),
    [
        (
            "temperature / (temperature * 0)",
            "'warm' is inf in row 1 (3,600 of 3,600 rows), which float32 can't hold "
            "(give NaN for a value that can't be computed)",
        ),
        (
            "temperature * float('nan')",
            "no value in any of the 3,600 training rows "
            "(leave it out (feature: false, or name the others under features))",
        ),
    ],
)
def test_check_refuses_features_that_no_booster_can_read(
    project: Workplace, feature: str, message: str
) -> None:
    project.edit("temperature.clip(lower=0)", feature, file="features.py")
    process = project.command("check", "demand")
    assert (process.returncode, process.stderr) == (2, f"features.py, line 6, warm(): {message}\n")


def test_check_refuses_a_constraint_of_what_is_no_feature(project: Workplace) -> None:
    params = "params: {monotone_constraints: {shop: 1, warmth: -1}}"
    project.edit("rounds: 60", f"rounds: 60, {params}")
    process = project.command("check", "demand")
    assert process.returncode == 2
    assert "'shop' is a category, which has no direction" in process.stderr
    assert "'warmth' is no feature; did you mean 'warm'?" in process.stderr


def test_check_compares_an_ensembles_label_with_what_its_members_predict(tmp_path: Path) -> None:
    from perennial.cli.checking import check_model, look_over

    make_project(tmp_path)
    folder = tmp_path / "models" / "blend"
    folder.mkdir()
    text = SPEC.format(name="blend", objective="binary")
    text += "ensemble: {of: [parcels, parcels@2]}\n"
    rows = pd.DataFrame([ROW | {"customer": f"c-{i}"} for i in range(40)])

    def check(outcome: str, label: str = "{column: outcome, delay: 1d") -> str:
        """What is said of 40 rows of which one ends otherwise than the others."""
        (folder / "model.yaml").write_text(text.replace("{column: outcome, delay: 1d", label))
        rows.assign(outcome=["no", *[outcome] * 39]).to_csv(tmp_path / "data.csv", index=False)
        said = []
        for checked in (lambda: [*check_model(Project(tmp_path), "blend")],
                        lambda: look_over(Project(tmp_path), "blend", None)):  # fmt: skip
            try:
                checked()
            except InputError as refused:
                said.append(refused.message)
            else:
                said.append("")
        assert said[0] == said[1]
        return said[0]

    assert check("yes") == ""
    assert check("no") == "", "rows that follow may have the other class"
    assert check("yes", "{column: outcome, delay: 1d, positive: no") == (
        "label 'outcome': its classes are 'yes' and, positive, 'no'; the members' are 'no', 'yes' "
        "(the label and label.positive must be those of the members)"
    )
    assert check("late").startswith("label 'outcome': its classes are 'late' and, positive, 'no'")


@pytest.mark.parametrize(("kinds", "refused"), [("abz", False), ("xyz", True)])
def test_of_many_classes_a_strange_one_is_left_to_training(kinds: str, refused: bool) -> None:
    """Which knows the rows that count: a class may have been retired before all of them."""
    from perennial.cli.checking import _try_label

    spec = parse_spec(SPEC.format(name="kinds", objective="multiclass"))
    frame = pd.DataFrame({"outcome": list(kinds)})
    with pytest.raises(InputError, match="no member predicts") if refused else nullcontext():
        _try_label(spec, frame, ("a", "b", "c"))


def test_a_feature_without_a_value_in_the_first_rows_may_have_some_in_others(
    project: Workplace, monkeypatch: pytest.MonkeyPatch
) -> None:
    from perennial.cli.checking import check_model
    from perennial.stores.sources import batches

    monkeypatch.setattr(batches, "ROWS", 3000)
    path = project.root / "data" / "2024-a.csv"
    shutil.copy(path, path.with_name("2024-b.csv"))
    project.edit("temperature.clip(lower=0)", "temperature * float('nan')", file="features.py")
    lines = list(check_model(Project(project.root), "demand"))
    assert lines[-2:] == [
        "source: 3,600 rows in the first batch, 0 rows for quarantine",
        "features: computed for 2,000 rows, each from its own row alone",
    ]


def test_prefect_yaml_is_written_compared_and_never_written_over_somebody_elses(
    project: Workplace,
) -> None:
    path = project.root / "prefect.yaml"
    assert said(project, "check", "--write").splitlines()[-1] == f"wrote {path}"
    assert said(project, "check").splitlines()[-1] == "prefect.yaml: in step with the models"

    project.edit("0 6 * * 1", "0 7 * * 1")
    process = project.command("check")
    assert (process.returncode, process.stderr) == (
        2, f"{path}: differs from what the models say (perennial check --write writes it)\n",
    )  # fmt: skip
    said(project, "check", "--write")
    assert "0 7 * * 1" in path.read_text()

    path.write_text("name: ours\n")
    assert said(project, "check").splitlines()[-1] == (
        "prefect.yaml: not written by Perennial, not compared"
    )
    process = project.command("check", "--write")
    assert process.returncode == 2
    assert process.stderr.startswith(f"{path}: was not written by Perennial, so it was kept")
    data = str(project.root / "data" / "2024-a.csv")
    process = project.command("init", "more", "--data", data, "--label", "busy", "--time", "at")
    assert (process.returncode, path.read_text()) == (0, "name: ours\n")
    assert process.stdout.splitlines()[-1] == "next: perennial check more, perennial train more"


def test_init_says_what_no_one_should_miss_of_a_file(project: Workplace) -> None:
    path = project.root / "data" / "more.csv"
    frame = pd.DataFrame({"score": np.arange(1000) / 8, "busy": np.arange(1000) % 3 > 0})
    frame["score"] = frame["score"].astype(str).where(frame.index != 7, "n.a.")
    frame["rate"] = frame.index.astype(str) + "%"
    arguments = ("init", "more", "--data", str(path), "--label", "busy")
    frame.to_csv(path, index=False)
    assert [line for line in said(project, *arguments).splitlines() if "note" in line] == [
        "note: score: 1 row to quarantine, as 'n.a.' is not a number",
        "note: rate is no feature: numbers such as '0%' are text; write them as 1234.5",
    ]
    shutil.rmtree(project.root / "models" / "more")
    for i in range(30):
        frame[f"empty{i}"] = None
    frame.to_csv(path, index=False)
    notes = [line for line in said(project, *arguments).splitlines() if "note" in line]
    assert (len(notes), notes[-1]) == (21, "note: 12 more, in comments of model.yaml")


def test_status_says_who_serves_and_what_was_decided(registered: Workplace) -> None:
    promoted, kept = NOW - timedelta(hours=2), NOW - timedelta(hours=1)
    assert said(registered, "status").splitlines() == [
        "demand",
        "  serving   version 1 of 2, 3 hours old; roc_auc 0.71",
        f"  {kept:%Y-%m-%d %H:%M}  kept champion: [no] better",
        f"  {promoted:%Y-%m-%d %H:%M}  promoted v1: good enough",
    ]
    (found,) = json.loads(said(registered, "status", "--json"))
    assert (found["model"], found["versions"], found["generation"]) == ("demand", 2, 1)
    assert found["champion"]["version"] == 1
    assert [d["action"] for d in found["decisions"]] == ["kept champion", "promoted"]


def looked_at(registry: Registry, rollout: Rollout, outcome: CheckOutcome) -> None:
    verdict = Verdict(
        outcome=Outcome.FAILED, reason="40 of 50 requests failed", evidence=Evidence(rule="errors")
    )
    at = NOW - timedelta(minutes=50)
    check = Check(
        at=at, step=0, outcome=outcome, requests=1250, measurements=(), verdicts=(verdict,)
    )
    transition = step(rollout, check, at)
    assert transition is not None
    registry.rollouts.advance(rollout, transition, actor="a test", evidence={}, now=at)


@pytest.fixture
def rolling_out(registered: Workplace) -> Workplace:
    """A guard sent version 2 back and it is quarantined; version 3 gets 5 % of the requests."""
    registry = Registry(Project(registered.root).registry_url)
    registry.register(
        "demand", BundleRef(uri="/bundles/3", digest="3" * 64), params={},
        metrics={"roc_auc": 0.75}, judgement={}, links={}, actor="a test", reason="good enough",
        now=NOW - timedelta(hours=3),
    )  # fmt: skip
    canary = Step(
        strategy="canary", weight=5, bake_seconds=600, timeout_seconds=86_400, min_requests=100,
        guards=(Guard(name="errors", kind="error_rate", limit=0.01),),
    )  # fmt: skip
    outcomes: dict[int, CheckOutcome] = {2: "failed", 3: "inconclusive"}
    for version, outcome in outcomes.items():
        begun = registry.rollouts.begin(
            "demand", version, Plan(steps=(canary,)), actor="a test", reason="good enough",
            cause=f"judged {version}", now=NOW - timedelta(hours=1),
        )  # fmt: skip
        looked_at(registry, begun, outcome)
    registry.close()
    return registered


def test_status_says_what_is_rolled_out_and_what_is_quarantined(rolling_out: Workplace) -> None:
    since, looked = (f"{NOW - timedelta(minutes=m):%Y-%m-%d %H:%M}" for m in (60, 50))
    why = "step 1 of 1 (canary of 5 %): 40 of 50 requests failed"
    assert said(rolling_out, "status", "demand", "--decisions", "1").splitlines()[1:4] == [
        "  serving   version 1 of 3, 3 hours old; roc_auc 0.71",
        f"  rollout   demand@3: canary 5 %, step 1 of 1, since {since}; last look {looked}:"
        f"{NOW:%S}: inconclusive, 1,250 rows so far; nobody has looked since {looked}, "
        "perennial rollout demand watches it",
        f"  held back version 2: {why}",
    ]
    (found,) = json.loads(said(rolling_out, "status", "--json"))
    assert found["quarantined"] == {"2": why}
    assert Rollout.model_validate(found["rollout"]).version == 3
    assert (found["champion"]["weight"], found["champion"]["champion"]) == (95, True)

    registry = Registry(Project(rolling_out.root).registry_url)
    registry.rollouts.command("demand", "pause", actor="a test", reason="[no] hurry", now=NOW)
    paused = said(rolling_out, "status").splitlines()[2]
    assert paused.startswith("  rollout   demand@3: paused at canary 5 %, step 1 of 1, since ")
    assert paused.endswith("; [no] hurry")
    registry.rollback("demand", None, actor="a test", reason="no time", now=NOW)
    registry.close()
    (ended,) = json.loads(said(rolling_out, "status", "--json"))
    assert (ended["rollout"], ended["champion"]["weight"]) == (None, 100)


def test_versions_say_what_each_does_in_the_route(rolling_out: Workplace) -> None:
    lines = said(rolling_out, "versions", "demand").splitlines()[1:]
    assert [line.split(maxsplit=4)[-1].strip() for line in lines] == [
        "challenger, 5 %", "quarantined", "champion, 95 %",
    ]  # fmt: skip
    found = json.loads(said(rolling_out, "versions", "demand", "--json"))
    assert [(v["version"], v["weight"], v["shadow"]) for v in found] == [
        (3, 5, False), (2, None, False), (1, 95, False),
    ]  # fmt: skip
    assert [v["quarantined"] is not None for v in found] == [False, True, False]
    newest = json.loads(said(rolling_out, "versions", "demand", "--json", "--limit", "2"))
    assert newest == found[:2]
    assert said(rolling_out, "show", "demand@2").splitlines()[0] == "demand@2 (quarantined)"


def test_status_says_what_was_answered_to_who_asked_to_retrain(project: Workplace) -> None:
    registry = Registry(Project(project.root).registry_url)
    table, settings = registry.retrainings, Retrain(on=("drift", "data"), max_a_day=1)
    then = [NOW - timedelta(hours=hours) for hours in (40, 9, 8, 7, 6, 5)]
    for at, kind, finding, reason in (
        (then[0], "drift", Finding.HARMFUL, "[logloss] rose"),
        (then[1], "data", None, "41,220 new rows"),
        (then[2], "data", None, "7 new rows"),
        (then[3], "drift", Finding.BENIGN, "distance moved"),
        (then[4], "drift", Finding.FAULT, "distance is null"),
        (then[5], "data", None, "9 new rows"),
    ):
        asked = Trigger(
            kind=kind, finding=finding, reason=reason, at=at, data=at.isoformat(),
            evidence={"size": 0.4},
        )  # fmt: skip
        decided, _ = table.decide("demand", asked, settings, actor="drift watch", now=at)
        if at == then[0]:
            table.start(decided.id, "run 1", at)
            table.finish(decided.id, "run 1", "promoted", at)
    registry.close()
    times = [f"{at:%Y-%m-%d %H:%M}" for at in then]
    until = f"{then[1] + timedelta(days=1):%Y-%m-%d %H:%M}"
    fault = "a data quality fault"
    assert said(project, "status", "--decisions", "9").splitlines() == [
        "demand",
        "  serving   nobody: no version was accepted yet",
        "  asked to retrain",
        f"    {times[5]}  wait: data arrived: 9 new rows, but the look at "
        f"{_to_the_second(then[4])} UTC found {fault}",
        f"    {times[4]}  no: data quality fault: distance is null; nothing is learned from faulty "
        "data",
        f"    {times[3]}  no: benign drift: distance moved",
        f"    {times[2]}  wait until {until}: data arrived: 7 new rows, but retraining 2 is under "
        "way",
        f"    {times[1]}  retrain (not started yet): data arrived: 41,220 new rows",
        f"    {times[0]}  retrain (promoted): harmful drift: [logloss] rose",
    ]
    (found,) = json.loads(said(project, "status", "demand", "--json", "--decisions", "4"))
    assert len(found["retrainings"]) == 4
    waits = found["retrainings"][3]
    assert waits["current"]["answer"] == "wait"
    assert datetime.fromisoformat(waits["current"]["wait_until"]) == then[1] + timedelta(days=1)
    assert waits["trigger"]["kind"] == "data"
    assert "evidence" not in waits["trigger"]


def test_status_does_not_call_dead_a_run_that_may_have_been_cancelled(project: Workplace) -> None:
    registry = Registry(Project(project.root).registry_url)
    table, at = registry.retrainings, NOW - timedelta(hours=1)
    asked = Trigger(kind="data", reason="9 new rows", at=at, data="1")
    decided, _ = table.decide("demand", asked, Retrain(on=("data",)), actor="drift watch", now=at)
    table.start(decided.id, "run 1", at)
    table.give_up(decided.id, "run 1", NOW)
    registry.close()
    assert said(project, "status").splitlines()[-1] == (
        f"    {at:%Y-%m-%d %H:%M}  retrain (ended early: its run was cancelled or died): "
        "data arrived: 9 new rows"
    )


def _to_the_second(at: datetime) -> str:
    return f"{at:%Y-%m-%d %H:%M:%S}".removesuffix(":00")


def test_status_before_any_training_says_that_nobody_serves(project: Workplace) -> None:
    assert said(project, "status").splitlines() == [
        "demand",
        "  serving   nobody: no version was accepted yet",
    ]
    assert said(project, "versions", "demand") == (
        "demand has no version yet; perennial train demand makes the first\n"
    )


def test_versions_are_listed_newest_first_and_whole_in_a_pipe(registered: Workplace) -> None:
    heading, second, first = said(registered, "versions", "demand").splitlines()
    assert heading.split() == ["version", "registered", "(UTC)", "roc_auc", "route"]
    at = f"{NOW - timedelta(hours=3):%Y-%m-%d %H:%M}".split()
    assert second.split() == ["2", *at, "0.7"]
    assert first.split() == ["1", *at, "0.71", "champion"]
    found = json.loads(said(registered, "versions", "demand", "--json"))
    assert [(v["version"], v["champion"]) for v in found] == [(2, False), (1, True)]


def test_a_version_is_shown_with_its_verdicts_and_links(registered: Workplace) -> None:
    text = said(registered, "show", "demand@v1")
    assert text.splitlines()[0] == "demand@1 (champion)"
    assert "    passed       roc_auc 0.71 is enough\n" in text
    assert "    prefect_flow_run_url  http://prefect/1\n" in text
    found = json.loads(said(registered, "show", "demand@1", "--json"))
    assert (found["digest"], found["params"]["max_depth"]) == ("1" * 64, 5)
    assert complaint(registered, "show", "demand@3") == (
        "registry: 'demand' has no version 3 (its versions are 1 to 2)"
    )


def test_a_damaged_bundle_is_not_reproduced(registered: Workplace) -> None:
    assert complaint(registered, "reproduce", "demand@1").startswith("bundle /bundles/1")


def test_the_version_of_perennial_is_shown(project: Workplace) -> None:
    assert said(project, "--version") == f"{__version__}\n"


def test_the_project_may_be_named_from_any_directory(
    registered: Workplace, tmp_path_factory: pytest.TempPathFactory
) -> None:
    elsewhere = Workplace(tmp_path_factory.mktemp("elsewhere"), {})
    found = json.loads(said(elsewhere, "--project", str(registered.root), "status", "--json"))
    assert [model["model"] for model in found] == ["demand"]
    assert list(Path(elsewhere.root).iterdir()) == []
