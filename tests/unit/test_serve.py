"""`serve`: what it answers is what the verbs say, and it stays small and answers quickly."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import time
from pathlib import Path
from typing import TYPE_CHECKING

import go_pprof
import pyarrow.parquet as pq
import pytest
from served import EVERY, HOSTILE, Server, record_series, serving, worker_stands_still

import pageowner
from pageowner.server.calling import Settings, Worker
from pageowner.server.figures import Figures, Growth
from pageowner.server.metrics import NAMES, Metrics, Shown

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

OPENMETRICS = "application/openmetrics-text; version=1.0.0"


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[float]]:
    folder = tmp_path_factory.mktemp("serve") / "recorded"
    return folder, record_series(folder)


@pytest.fixture(scope="module")
def server(recorded: tuple[Path, list[float]]) -> Iterator[Server]:
    with serving(recorded[0], "--top", 3) as found:
        found.figures()
        yield found


def samples(text: str) -> dict[str, float]:
    return {line.rpartition(" ")[0]: float(line.rpartition(" ")[2])
            for line in text.splitlines() if line and not line.startswith("#")}


def test_metrics_add_up_to_what_report_says(server: Server,
                                            recorded: tuple[Path, list[float]]) -> None:
    found = samples(server.get("/metrics").body.decode())
    snapshot = pageowner.read(recorded[0])
    for name in ("subsystem", "stack", "cgroup"):
        total = sum(value for key, value in found.items()
                    if key.startswith(f"pageowner_{name}_bytes"))
        assert total == snapshot.pages * 4096, name
    assert found['pageowner_memory_bytes{state="free"}'] == 100_000 * 4096
    stacks = [key for key in found if key.startswith("pageowner_stack_bytes")]
    assert len(stacks) == 4
    assert any('stack="other"' in key for key in stacks)
    # a cgroup of that name is not taken for the sum of the others
    assert sum('cgroup="other"' in key for key in found) == 1
    assert found["pageowner_figures_timestamp_seconds"] == recorded[1][-1]


def test_growth_is_what_leaks_says(server: Server, recorded: tuple[Path, list[float]]) -> None:
    found = samples(server.get("/metrics").body.decode())
    rows = pageowner.leaks(recorded[0]).owners.to_pylist()
    assert found["pageowner_leaks"] == sum(row["kind"] == "leak" for row in rows) == 1
    assert found["pageowner_leak_suspects"] == sum(row["kind"] == "grows" for row in rows) > 0
    (rate,) = (value for key, value in found.items()
               if key.startswith("pageowner_leak_bytes_per_second"))
    assert rate == pytest.approx(rows[0]["rate"] * 4096 / 3600)


def test_metrics_are_those_declared_in_both_forms(server: Server) -> None:
    plain = server.get("/metrics")
    assert plain.headers["content-type"].startswith("text/plain; version=0.0.4")
    opened = server.get("/metrics", Accept=OPENMETRICS)
    assert opened.headers["content-type"].startswith("application/openmetrics-text")
    assert opened.body.endswith(b"# EOF\n")
    types = dict(re.findall(r"^# TYPE (\S+) (\S+)$", opened.body.decode(), re.MULTILINE))
    for name, kind in types.items():
        if name.startswith("pageowner_"):
            assert (kind == "counter") == NAMES[name].counter, name
            assert not NAMES[name].unit or f"_{NAMES[name].unit}" in name
    from prometheus_client.openmetrics.parser import text_string_to_metric_families
    families = {family.name: family
                for family in text_string_to_metric_families(opened.body.decode())}
    labels = {sample.labels["cgroup"] for sample in families["pageowner_cgroup_bytes"].samples}
    assert f"/{HOSTILE}\\x0a" in labels


def test_the_document_lists_every_metric() -> None:
    listed = dict(re.findall(r"^\| `(pageowner_\w+?)(?:_total|_info)?` \| (.*?) \| .* \|$", (
        Path(__file__).parents[2] / "docs/serve.md").read_text(), re.MULTILINE))
    assert listed == {name: ", ".join(about.labels) for name, about in NAMES.items()} | {
        "pageowner_server": "version"}


@pytest.mark.skipif(not shutil.which("promtool"), reason="promtool is not installed (apt-get"
                                                         " install prometheus)")
def test_promtool_finds_nothing_to_say(server: Server) -> None:
    done = subprocess.run(["promtool", "check", "metrics"], input=server.get("/metrics").body,
                          capture_output=True, timeout=60)
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")


def test_the_pprof_tool_opens_the_address(server: Server, recorded: tuple[Path, list[float]],
                                          tmp_path: Path) -> None:
    if why := go_pprof.missing():
        pytest.skip(why)
    top = go_pprof.pprof(tmp_path, "-top", "-sample_index=pages", "-unit=count",
                         f"http://{server.host}:{server.port}/pages.pprof")
    assert f"of {pageowner.read(recorded[0]).pages} total" in top


def test_a_source_that_cannot_be_read_is_said_once(tmp_path: Path) -> None:
    (tmp_path / "other").write_bytes(b"no record\n" * 9)
    with serving(tmp_path / "other", "--every", "1s") as server:
        assert server.process.stderr is not None
        assert b"no figures for now: " in (said := server.process.stderr.readline())
        assert b"contains no page_owner record" in said


def test_a_scrape_gathers_nothing(server: Server) -> None:
    with worker_stands_still(server):  # figures are renewed every minute besides
        before = samples(server.get("/metrics").body.decode())
        for _ in range(20):
            after = samples(server.get("/metrics").body.decode())
    assert after["pageowner_figures_renewed_total"] == before["pageowner_figures_renewed_total"]
    resident = re.search(r"VmRSS:\s+(\d+)", Path(f"/proc/{server.process.pid}/status").read_text())
    assert resident is not None
    assert int(resident[1]) < 80 << 10


def test_owners_and_moments_are_those_of_the_verbs(
        server: Server, recorded: tuple[Path, list[float]],
        cli: Callable[..., tuple[int, bytes, bytes]]) -> None:
    folder, times = recorded
    now = server.get("/api/owners?by=comm,subsystem&top=500").json()
    said = json.loads(cli("report", folder, "--by", "comm,subsystem", "--json")[1])
    assert [{name: value for name, value in row.items() if name not in ("line", "what")}
            for row in now["owners"]] == said["owners"]
    then = server.get(f"/api/owners?at={times[3]}").json()
    assert then["pages"] == pageowner.read(pageowner.Moment(str(folder), times[3])).pages
    assert "anon_pipe_write" in then["owners"][0]["line"] + then["owners"][1]["line"]
    filtered = server.get("/api/owners?subsystem=pipes&by=comm&top=1").json()
    assert filtered["bytes"] == 70 << 20
    assert filtered["rest"]["owners"] == 2
    changed = server.get(f"/api/diff?before={times[0]}&after={times[-1]}&by=subsystem").json()
    assert changed["changes"][0]["subsystem"] == "pipes"
    assert changed["changes"][0]["bytes"] == 70 << 20
    assert server.get("/api/captures").json()["captures"] == times


def test_leaks_come_with_their_evidence(server: Server) -> None:
    found = server.get("/api/leaks").json()
    assert found["times_s"] == [5.0 * look for look in range(13)]
    leak = found["owners"][0]
    assert (leak["kind"], leak["bursts"], len(leak["settled_series"])) == ("leak", 6, 13)
    assert {"few_bursts"} in [set(row["failed"]) for row in found["owners"]]


def test_profile_and_snapshot_have_all_pages(server: Server, tmp_path: Path,
                                             recorded: tuple[Path, list[float]]) -> None:
    pages = pageowner.read(recorded[0]).pages
    path = tmp_path / "got.parquet"
    found = server.get("/snapshot.parquet")
    path.write_bytes(found.body)
    assert "snapshot.parquet" in found.headers["content-disposition"]
    assert pq.read_metadata(path).num_rows == pageowner.read(path).blocks
    assert pageowner.read(path).pages == pages
    direct = tmp_path / "direct.pprof"
    pageowner.export(path, direct, "pprof")
    profile = server.get("/pages.pprof").body
    import gzip

    assert gzip.decompress(profile) == gzip.decompress(direct.read_bytes())


@pytest.mark.parametrize("page", ["/map.html", "/flame.html", "/flame.html?before={0}"])
def test_pages_bring_a_policy_that_lets_their_own_script_run(
        server: Server, recorded: tuple[Path, list[float]], page: str) -> None:
    found = server.get(page.format(recorded[1][0]))
    assert found.status == 200
    assert re.search(r"script-src 'sha256-[^']+';", found.headers["content-security-policy"])
    assert HOSTILE.encode() not in found.body


def test_wrong_questions_are_answered_in_a_line(server: Server) -> None:
    for path, why in (("/api/owners?colour=red", "takes no 'colour'"),
                      ("/api/owners?by=colour", "cannot group by"),
                      ("/api/owners?top=0", "not a number from 1"),
                      ("/api/owners?top=99999999999999999999", "not a number from 1"),
                      ("/api/owners?pid=x", "is not a number"),
                      ("/api/owners?at=noon", "is not a time"),
                      ("/api/owners?at=nan", "is not a time"),
                      ("/api/owners?older=soon", "soon"),
                      ("/api/diff", "before: name the time"),
                      ("/map.html?order=spiral", "is not row or hilbert")):
        found = server.get(path)
        assert found.status == 400, path
        assert why in found.json()["error"]
        assert "\n" not in found.json()["error"]
    old = server.get("/api/owners?at=5")
    assert old.status == 503
    assert "no capture that old" in old.json()["error"]


def test_openapi_names_what_is_answered(server: Server) -> None:
    paths = server.get("/api/openapi.json").json()["paths"]
    for path in paths:
        assert server.get(path).status in (200, 400), path
    assert {parameter["name"] for parameter in paths["/api/owners"]["get"]["parameters"]} >= {
        "by", "top", "at", "comm", "older"}


def test_a_new_capture_is_in_the_metrics(tmp_path: Path) -> None:
    folder = tmp_path / "grows"
    times = record_series(folder, 5)
    with serving(folder, "--every", "1s", "--window", "4s") as server:
        assert server.figures()["taken"] == times[-1]
        snapshot = pageowner.read(folder)
        snapshot.save(folder / pageowner_name(times[-1] + EVERY))
        deadline = time.monotonic() + 30
        while server.figures()["taken"] != times[-1] + EVERY:
            assert time.monotonic() < deadline
            time.sleep(0.2)


def pageowner_name(taken: float) -> str:
    from pageowner.storage.series import file_name

    return file_name(taken)


def test_a_source_that_is_gone_is_counted_and_the_last_figures_stay(tmp_path: Path) -> None:
    folder = tmp_path / "goes"
    record_series(folder, 4)
    with serving(folder, "--every", "1s", "--window", "4s") as server:
        taken = server.figures()["taken"]
        folder.rename(tmp_path / "gone")
        deadline = time.monotonic() + 30
        while not (found := server.figures())["error"]:
            assert time.monotonic() < deadline
            time.sleep(0.2)
        assert found["taken"] == taken
        assert samples(server.get("/metrics").body.decode())["pageowner_figures_failed_total"] > 0
        assert server.get("/api/owners").status == 503


def test_a_worker_that_is_killed_is_started_again(tmp_path: Path) -> None:
    folder = tmp_path / "recorded"
    record_series(folder, 4)
    with serving(folder) as server:
        server.figures()
        children = Path(f"/proc/{server.process.pid}/task/{server.process.pid}/children")
        (worker,) = children.read_text().split()
        os.kill(int(worker), 9)
        assert server.get("/api/owners").status in (200, 503)
        assert server.get("/api/owners").status == 200
        (another,) = children.read_text().split()
        assert another != worker
        server.process.kill()
        server.process.wait()
        deadline = time.monotonic() + 20
        while runs(another) and time.monotonic() < deadline:
            time.sleep(0.05)
        assert not runs(another)


def runs(pid: str) -> bool:
    """Whether a process has not ended; one that nobody has waited for has no memory any more."""
    try:
        return bool(Path(f"/proc/{pid}/cmdline").read_bytes())
    except (FileNotFoundError, ProcessLookupError):
        return False


def test_leaks_through_one_stack_at_other_offsets_are_one_series_with_all_they_leak() -> None:
    leaks = [Growth("leak", stack, "f", "m", "pipes", "", "", rate, rate / 2, rate * 2, sure, 5)
             for stack, rate, sure in (("a", 10.0, 0.7), ("a", 40.0, 0.9), ("b", 30.0, 0.5))]
    worker = Worker(Settings())
    worker.figures = Figures("host", True, 1.0, growth=leaks, kinds={"leak": 300, "grows": 7},
                             looks=9)
    found = samples(Metrics(worker, 3).exposition("")[0].decode())
    values = {name: [value for key, value in found.items() if key.startswith(
        f"pageowner_leak_{name}{{")] for name in (
            "bytes_per_second", "low_bytes_per_second", "confidence_ratio")}
    assert values == {"bytes_per_second": [50, 30], "low_bytes_per_second": [25, 15],
                      "confidence_ratio": [0.9, 0.5]}
    # some of all that there are
    assert (found["pageowner_leaks"], found["pageowner_leak_suspects"]) == (300, 7)


def test_owners_near_the_largest_stay_series_of_their_own() -> None:
    shown = Shown(2)
    assert shown.of(["a", "b", "c", "d", "e"]) == {"a", "b"}
    assert shown.of(["c", "a", "b", "d"]) == {"a", "b", "c"}
    assert shown.of(["d", "c", "e", "f", "a"]) == {"c", "d"}
    assert all(len(shown.of([str(name) for name in range(start, start + 50)])) <= 4
               for start in range(100))
