"""The files of deploy/: rules and dashboard use metrics that exist, alerts fire for a leak and not
without it, units and manifests are valid and no looser than they say."""

from __future__ import annotations

import http.client
import json
import os
import re
import shutil
import socket
import subprocess
import time
import tomllib
from contextlib import suppress
from fnmatch import fnmatch
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from served import record_series, serving
from test_leaks import Machine

from pageowner.server.figures import Figures, Growth
from pageowner.server.metrics import NAMES
from pageowner.server.notices import Notices
from pageowner.storage.recording import Recorder
from pageowner.system.journal import send

if TYPE_CHECKING:
    from collections.abc import Iterator

yaml = pytest.importorskip("yaml", reason="PyYAML is not installed (kubernetes-validate has it)")
DEPLOY = Path(__file__).parents[2] / "deploy"
RULES = DEPLOY / "prometheus/pageowner.rules.yml"
SAMPLES = {name + ("_total" if about.counter else "_info" if name == "pageowner_server" else ""):
           {*about.labels, "job", "instance", "version"} for name, about in NAMES.items()}


def need(program: str) -> str:
    if not shutil.which(program):
        pytest.skip(f"{program} is not installed (apt-get install prometheus)"
                    if program in ("promtool", "prometheus") else f"{program} is not installed")
    return program


def expressions() -> Iterator[tuple[str, str]]:
    for group in yaml.safe_load(RULES.read_text())["groups"]:
        for rule in group["rules"]:
            yield rule["alert"], rule["expr"]
    for panel in json.loads((DEPLOY / "grafana/pageowner.json").read_text())["panels"]:
        for target in panel["targets"]:
            yield panel["title"], target["expr"]


def test_rules_and_dashboard_use_metrics_and_labels_that_exist() -> None:
    used: set[str] = set()
    for title, expression in expressions():
        names = set(re.findall(r"\bpageowner_\w+", expression))
        assert names, title
        assert names <= set(SAMPLES), title
        used |= names
        labels = {label for part in re.findall(r"\{([^}]*)\}", expression)
                  for label in re.findall(r"(\w+)\s*[=!]", part)}
        assert labels <= set.union(*(SAMPLES[name] for name in names)), title
    text = RULES.read_text()
    assert set(re.findall(r"\$labels\.(\w+)", text)) <= set.union(*SAMPLES.values())
    assert len(used) > 15


def test_promtool_takes_the_rules_and_every_expression_of_the_dashboard(tmp_path: Path) -> None:
    done = subprocess.run([need("promtool"), "check", "rules", str(RULES)], capture_output=True,
                          text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    rules = [{"record": f"panel:{place}", "expr": expression.replace("$__rate_interval", "5m")
              .replace("$job", ".*").replace("$instance", ".*")}
             for place, (_, expression) in enumerate(expressions())]
    path = tmp_path / "panels.yml"
    path.write_text(yaml.safe_dump({"groups": [{"name": "panels", "rules": rules}]}))
    done = subprocess.run(["promtool", "check", "rules", str(path)], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


STACK = 'job="p",instance="m",stack="s",function="f",module="m",subsystem="pipes"'
LEAK = STACK + ',program="",untracked=""'


@pytest.mark.parametrize(("series", "fires"), [
    ({f"pageowner_leak_bytes_per_second{{{LEAK}}}": "1000+0x60",
      f"pageowner_leak_confidence_ratio{{{LEAK}}}": "0.9+0x60"}, {"MemoryLeak"}),
    ({f"pageowner_leak_bytes_per_second{{{LEAK}}}": "1000+0x60",
      f"pageowner_leak_confidence_ratio{{{LEAK}}}": "0.3+0x60"}, set()),
    ({'pageowner_available_bytes{job="p",instance="m"}': "1000000+0x60",
      f"pageowner_leak_low_bytes_per_second{{{LEAK}}}": "100+0x60"}, {"MemoryLeakFillsMemory"}),
    ({'pageowner_available_bytes{job="p",instance="m"}': "1000000+0x60",
      f"pageowner_leak_low_bytes_per_second{{{LEAK}}}": "10+0x60"}, set()),
    ({'pageowner_balance_bytes{job="p",instance="m",line="unknown"}': "200+0x60",
      'pageowner_total_bytes{job="p",instance="m"}': "1000+0x60"}, {"MemoryUnaccounted"}),
    ({'pageowner_tracking{job="p",instance="m"}': "0+0x60"}, set()),  # a recording
    ({'pageowner_tracking{job="p",instance="m"}': "0+0x60",
      'pageowner_total_bytes{job="p",instance="m"}': "1000+0x60"}, {"PageownerNotTracking"}),
    ({'pageowner_missed_events_total{job="p",instance="m"}': "0+10x60",
      'pageowner_lost_events_total{job="p",instance="m"}': "0+0x60",
      'pageowner_allocations_total{job="p",instance="m"}': "0+1000x60"},
     {"PageownerMissesEvents"}),
    ({'pageowner_missed_events_total{job="p",instance="m"}': "0+1x60",
      'pageowner_lost_events_total{job="p",instance="m"}': "0+0x60",
      'pageowner_allocations_total{job="p",instance="m"}': "0+100000x60"}, set()),
    ({'pageowner_memo_differences_total{job="p",instance="m"}': "1x60"},  # it stops at the first
     {"PageownerStacksDiffer"}),
    ({'pageowner_memo_differences_total{job="p",instance="m"}': "0x60"}, set()),
    ({'pageowner_hooks{job="p",instance="m",state="missing"}': "1+0x60"},
     {"PageownerHooksMissing"}),
    ({'pageowner_figures_timestamp_seconds{job="p",instance="m"}': "0+0x60"},
     {"PageownerFiguresOld"}),
    ({'pageowner_figures_timestamp_seconds{job="p",instance="m"}': "0+60x60"}, set()),
    ({'pageowner_figures_failed_total{job="p",instance="m"}': "0+1x60"}, {"PageownerFiguresFail"}),
])
def test_alerts_fire_when_they_should(series: dict[str, str], fires: set[str],
                                      tmp_path: Path) -> None:
    need("promtool")
    alerts = [rule["alert"] for rule in yaml.safe_load(RULES.read_text())["groups"][0]["rules"]]
    # without annotations, whose text is not what is tested
    document = yaml.safe_load(RULES.read_text())
    for rule in document["groups"][0]["rules"]:
        del rule["annotations"], rule["labels"]
    (tmp_path / "rules.yml").write_text(yaml.safe_dump(document))

    # All are expected not to fire: promtool names those that do.
    test = {"rule_files": ["rules.yml"], "evaluation_interval": "1m", "tests": [{
        "interval": "1m",
        "input_series": [{"series": name, "values": values} for name, values in series.items()],
        "alert_rule_test": [{"eval_time": "50m", "alertname": alert, "exp_alerts": []}
                            for alert in alerts]}]}
    (tmp_path / "test.yml").write_text(yaml.safe_dump(test))
    done = subprocess.run(["promtool", "test", "rules", "test.yml"], cwd=tmp_path,
                          capture_output=True, text=True)
    firing = re.findall(r"^ *alertname: (\w+), time: 50m", done.stdout + done.stderr, re.MULTILINE)
    assert (done.returncode == 0) == (not firing), done.stdout + done.stderr
    assert set(firing) == fires


def quiet_series(folder: Path) -> None:
    """A machine on which nothing leaks."""
    machine = Machine()
    machine.noise()
    folder.mkdir(mode=0o700)
    recorder = Recorder(folder, 600, 7 * 86400)
    for look in range(13):
        snapshot = machine.at(look * 5)
        recorder.add(snapshot, time.time() - (13 - look) * 600)


def free_port() -> int:
    """One that the kernel gives to nobody who does not ask for it."""
    lowest = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    for port in range(lowest - 1 - os.getpid() % 1000, 1024, -1):
        with socket.socket() as probe, suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port
    raise AssertionError("no port is free")


def ask(port: int, path: str) -> Any:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    connection.request("GET", path)
    found = json.loads(connection.getresponse().read())
    connection.close()
    return found["data"]


def health(port: int) -> list[tuple[str, str]]:
    return [(target["health"], target["lastError"])
            for target in ask(port, "/api/v1/targets")["activeTargets"]]


def test_prometheus_scrapes_all_series_and_alerts_for_the_leak_alone(tmp_path: Path) -> None:
    """Debian's own, with the rules as they are but for the ten minutes that an alert waits."""
    need("prometheus")
    leaky, quiet, port = tmp_path / "leaky", tmp_path / "quiet", free_port()
    record_series(leaky)
    quiet_series(quiet)
    document = yaml.safe_load(RULES.read_text())
    for rule in document["groups"][0]["rules"]:
        rule.pop("for", None)
    (tmp_path / "rules.yml").write_text(yaml.safe_dump(document))
    with serving(leaky) as first, serving(quiet) as second:
        first.figures()
        second.figures()
        (tmp_path / "prometheus.yml").write_text(yaml.safe_dump({
            "global": {"scrape_interval": "1s", "evaluation_interval": "1s"},
            "rule_files": ["rules.yml"], "scrape_configs": [{
                "job_name": "pageowner", "static_configs": [{
                    "targets": [f"{one.host}:{one.port}" for one in (first, second)]}]}]}))
        process = subprocess.Popen(
            ["prometheus", f"--config.file={tmp_path}/prometheus.yml",
             f"--storage.tsdb.path={tmp_path}/data", f"--web.listen-address=127.0.0.1:{port}"],
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            alerts = until_alerts(port)
            # A scrape that takes longer than a second on a busy machine is followed by others.
            deadline = time.monotonic() + 60
            while (states := health(port)) != [("up", "")] * 2 and time.monotonic() < deadline:
                time.sleep(0.2)
            assert states == [("up", "")] * 2
            found = ask(port, "/api/v1/label/__name__/values")
            text = first.get("/metrics", Accept="application/openmetrics-text").body.decode()
            shown = {line.partition("{")[0].partition(" ")[0] for line in text.splitlines()
                     if line and not line.startswith("#")}
            assert shown <= set(found)
            assert {(alert["labels"]["alertname"], alert["labels"]["instance"])
                    for alert in alerts} == {("MemoryLeak", f"{first.host}:{first.port}")}
            (leak,) = alerts
            assert leak["labels"]["function"] == "anon_pipe_write"
            assert leak["annotations"]["summary"].endswith("pipes leaks 1MiB a second")
        finally:
            process.terminate()
            process.wait(timeout=30)


def until_alerts(port: int) -> Any:
    """The alerts that fire, once some do and have for three seconds."""
    deadline, since = time.monotonic() + 90, None
    while True:
        try:
            alerts = [alert for alert in ask(port, "/api/v1/alerts")["alerts"]
                      if alert["state"] == "firing"]
        except (OSError, http.client.HTTPException, ValueError, KeyError):
            alerts = []
        if alerts and since is None:
            since = time.monotonic()
        if since is not None and time.monotonic() - since > 3:
            return alerts
        assert time.monotonic() < deadline
        time.sleep(0.5)


@pytest.mark.parametrize("unit", ["serve", "record"])
def test_units_are_valid_and_exposed_as_little_as_documented(unit: str, tmp_path: Path) -> None:
    need("systemd-analyze")
    path = DEPLOY / f"systemd/pageowner-{unit}.service"
    done = subprocess.run(["systemd-analyze", "security", "--offline=true", "--threshold=30",
                           str(path)], capture_output=True, text=True)
    if "offline" in done.stderr:
        pytest.skip("this systemd-analyze does not look at files (before 250)")
    assert done.returncode == 0, done.stdout[-200:]
    # as it is, but for the program, which is not installed here, and the unit of tracking
    copy = tmp_path / path.name
    copy.write_text(re.sub(r"^(Requires|Wants)=.*$", "", path.read_text().replace(
        "/usr/local/bin/pageowner", "/bin/true"), flags=re.MULTILINE))
    done = subprocess.run(["systemd-analyze", "verify", str(copy)], capture_output=True, text=True)
    about_it = [line for line in done.stderr.splitlines() if copy.name in line]
    assert about_it == []


def test_the_daemonset_is_what_kubernetes_takes() -> None:
    validate = pytest.importorskip("kubernetes_validate", reason="kubernetes-validate is missing")
    document = yaml.safe_load((DEPLOY / "kubernetes/daemonset.yaml").read_text())
    validate.validate(document, validate.latest_version(), strict=True)
    pod = document["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    assert "--token-file" in container["args"]
    mounted = {volume["name"] for volume in pod["volumes"]}
    for one in (*pod["initContainers"], container):
        assert {mount["name"] for mount in one["volumeMounts"]} <= mounted
        assert one["securityContext"]["capabilities"]["drop"] == ["ALL"]
        assert not one["securityContext"].get("privileged")


@pytest.mark.parametrize(("on_fails", "lacks", "ran", "status"), [
    (0, 0, ["on --objects 8"], 0),
    (1, 0, ["on --objects 8", "doctor", "off", "on --objects 8"], 0),  # of another version
    (9, 0, ["on --objects 8", "doctor", "off", "on --objects 8"], 1),
    (9, 1, ["on --objects 8", "doctor"], 1),  # what tracks stays
    (137, 0, ["on --objects 8"], 1)])  # so it does where the first was killed
def test_a_pod_of_another_version_begins_tracking_anew(
        on_fails: int, lacks: int, ran: list[str], status: int, tmp_path: Path) -> None:
    document = yaml.safe_load((DEPLOY / "kubernetes/daemonset.yaml").read_text())
    (container,) = document["spec"]["template"]["spec"]["initContainers"]
    stub = tmp_path / "pageowner"
    stub.write_text(f"#!/bin/sh\ncd {tmp_path}\necho \"$*\" >> ran\n"
                    f"case $1 in off) ;; doctor) exit {lacks} ;; *)"
                    f" [ {on_fails} != 137 ] || exit 137\n"
                    f" test $(grep -c ^on ran) -gt {on_fails} ;; esac\n")
    stub.chmod(0o755)
    done = subprocess.run([*container["command"], *container["args"], "--objects", "8"],
                          env={"PATH": f"{tmp_path}:/usr/bin:/bin"})
    assert (tmp_path / "ran").read_text().splitlines() == ran
    assert done.returncode == status


def test_the_commands_in_units_and_manifests_are_ours(server_help: str) -> None:
    texts = [path.read_text() for path in sorted(DEPLOY.rglob("*.service"))]
    options = set(re.findall(r"pageowner serve[^\n]*?(--[a-z-]+)", "".join(texts)))
    options |= set(re.findall(r'"(--[a-z-]+)"', (DEPLOY / "kubernetes/daemonset.yaml").read_text()))
    assert options
    assert all(option in server_help for option in options)


@pytest.fixture
def server_help() -> str:
    import click

    from pageowner.cli.serve import command

    return command.get_help(click.Context(command))


def test_the_image_is_made_of_what_is_there_and_keeps_no_sources() -> None:
    _, build, image = (DEPLOY / "Containerfile").read_text().split("\nFROM ")
    assert "/wheel /src" in build
    assert "/src" not in image
    assert re.findall(r"^COPY .*", image, re.MULTILINE) == ["COPY --from=made /wheel /wheel"]
    assert '[serve]"' in image
    assert 'ENTRYPOINT ["pageowner"]' in image
    root = DEPLOY.parent
    lines = (root / ".dockerignore").read_text().splitlines()
    kept = [line[1:] for line in lines if line.startswith("!")]
    assert lines[lines.index("!" + kept[0]) - 1] == "*"  # nothing but what follows
    assert all(any(root.glob(name)) for name in kept)
    # what pyproject.toml says goes into the wheel
    project = tomllib.loads((root / "pyproject.toml").read_text())
    wheel = project["tool"]["hatch"]["build"]["targets"]["wheel"]
    wanted = ["pyproject.toml", project["project"]["readme"], *project["project"]["license-files"],
              *wheel["packages"], *wheel["shared-scripts"], wheel["hooks"]["custom"]["path"]]
    assert [name for name in wanted
            if not any(fnmatch(name.split("/")[0], each) for each in kept)] == []


def growth(stack: str, kind: str = "leak", function: str = "f") -> Growth:
    return Growth(kind, stack, function, "m", "pipes", "", "", 1e6, 1e5, 2e6, 0.9, 5)


def test_a_leak_that_is_new_is_a_line_in_the_journal(tmp_path: Path) -> None:
    path = tmp_path / "journal"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as journal:
        journal.bind(str(path))
        journal.settimeout(5)
        notices = Notices(str(path))

        def found(*growths: Growth) -> int:
            return notices.of(Figures("host", True, 1.0, growth=list(growths)))

        assert found(growth("a"), growth("b", "grows")) == 1
        lines = journal.recv(1 << 16).decode().splitlines()
        assert "PAGEOWNER_STACK=a" in lines
        assert "PRIORITY=4" in lines
        assert "MESSAGE=pipes leaks 3.4 GiB an hour, allocated by f" in lines
        assert found(growth("a")) == 0
        assert found() == 0
        assert found(growth("a"), growth("c")) == 2
    # a journal that is gone keeps nobody from working
    assert Notices(str(tmp_path / "none")).of(Figures("x", True, 1.0, growth=[growth("a")])) == 1


def test_no_value_brings_a_field_of_its_own_into_the_journal(tmp_path: Path) -> None:
    path = tmp_path / "journal"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as journal:
        journal.bind(str(path))
        assert send({"MESSAGE": "x\nPRIORITY=0", "EVIL": "y" * 9000}, str(path))
        raw = journal.recv(1 << 16)
        assert raw.startswith(b"MESSAGE\n" + (12).to_bytes(8, "little") + b"x\nPRIORITY=0\n")
        assert raw.endswith(b"EVIL=" + b"y" * 4096 + b"\n")
    assert not send({"MESSAGE": "x"}, str(tmp_path / "none"))


def test_sizes_of_series_have_an_end(tmp_path: Path) -> None:
    """A thousand stacks and cgroups are 50 series each, and one for the others."""
    from pageowner import Metadata, Snapshot

    number = 1000
    path = tmp_path / "many.parquet"
    Snapshot.from_columns({
        "pfn": np.arange(number), "order": np.zeros(number, np.uint8),
        "stack": [f"function_{place}+0x1/0x2" for place in range(number)],
        "memcg": [f"/slice-{place}" for place in range(number)]},
        Metadata(kind="tracker")).save(path)
    with serving(path) as server:
        server.figures()
        text = server.get("/metrics").body.decode()
        for name in ("stack", "cgroup"):
            values = [float(line.rpartition(" ")[2]) for line in text.splitlines()
                      if line.startswith(f"pageowner_{name}_bytes{{")]
            assert len(values) == 51
            assert sum(values) == number * 4096
