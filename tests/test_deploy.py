"""deploy/: what the files run is understood, what they name exists, and what they watch is measured."""

import json
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import httpx2
import pytest
import yaml
from server import running_server

from openxclip.cli.main import run

DEPLOY = Path(__file__).parents[1] / "deploy"
DOCKERFILES = [DEPLOY / "Dockerfile", DEPLOY / "huggingface-space" / "Dockerfile"]

pytestmark = pytest.mark.on_cpu


def instructions(path: Path) -> list[tuple[str, str]]:
    """Of a Dockerfile, over continued lines, without comments."""
    lines = [line for line in path.read_text(encoding="utf-8").splitlines() if not line.startswith("#")]
    joined = "\n".join(lines).replace("\\\n", " ").splitlines()
    return [
        (name, rest.strip()) for name, _, rest in (line.strip().partition(" ") for line in joined) if name
    ]


def commands() -> dict[str, list[str]]:
    """Arguments of `openxclip` of each file."""
    image, space = (dict(instructions(path)) for path in DOCKERFILES)
    compose = yaml.safe_load((DEPLOY / "compose.yaml").read_text(encoding="utf-8"))
    unit = (DEPLOY / "openxclip.service").read_text(encoding="utf-8")
    entry = json.loads(image["ENTRYPOINT"])[1:]
    shell = json.loads(space["CMD"])[2].removeprefix("exec ")
    return {
        "Dockerfile": [*entry, *json.loads(image["CMD"])],
        "compose": [*entry, *compose["services"]["openxclip"]["command"]],
        "compose, cuda": [*entry, *compose["services"]["openxclip-cuda"]["command"]],
        "systemd": shlex.split(re.search(r"^ExecStart=\S+/openxclip (.*)$", unit, re.MULTILINE)[1]),
        "space": shlex.split(shell)[1:],
    }


@pytest.mark.parametrize("name", commands())
def test_what_is_run_is_understood(name, tmp_path, monkeypatch, capsys) -> None:
    """It ends with one line about what is missing here. A wrong option would end in the parser, with SystemExit."""
    monkeypatch.chdir(tmp_path)
    arguments = commands()[name]
    arguments[arguments.index("--model") + 1] = "./nothing"
    assert arguments[0] == "serve"
    assert run(arguments) in (1, 2)
    assert re.fullmatch(r"openxclip: .*\n", capsys.readouterr().err)


def test_the_job_for_ray_is_understood(tmp_path, capsys) -> None:
    script = (DEPLOY / "ray" / "job.sh").read_text(encoding="utf-8")
    command = script[script.index("exec openxclip ") :].replace("\\\n", " ")
    filled = re.sub(r"\$\{\w+:-([^}]*)\}", r"\1", command)
    for number, value in (("1", str(tmp_path / "none")), ("2", "a, b"), ("3", str(tmp_path / "out"))):
        filled = filled.replace(f"${number}", value)
    assert run(shlex.split(filled)[2:]) == 2
    assert "none" in capsys.readouterr().err


@pytest.mark.parametrize("path", DOCKERFILES, ids=lambda path: path.parent.name)
def test_images_run_without_rights_and_copy_what_exists(path) -> None:
    found = instructions(path)
    users = [rest for name, rest in found if name == "USER"]
    assert users
    assert users[-1] not in ("0", "root")
    root = DEPLOY.parent
    allowed = (root / ".dockerignore").read_text(encoding="utf-8")
    for rest in (rest for name, rest in found if name == "COPY" and "--from" not in rest):
        for source in [word for word in rest.split()[:-1] if not word.startswith("--")]:
            real = "README.md" if source == "PROJECT.md" else source  # the Space has a README of its own
            assert (root / real).exists()
            assert f"!{real}\n" in allowed


def test_the_health_check_tells_whether_the_server_is_ready(tmp_path) -> None:
    check = dict(instructions(DOCKERFILES[0]))["HEALTHCHECK"]
    command = json.loads(check[check.index("[") :])
    with running_server(tmp_path / "scratch", "--model", "openxclip-tiny") as server:
        here = [sys.executable, *(word.replace(":8000", f":{server.port}") for word in command[1:])]
        assert subprocess.run(here, check=False).returncode == 0
        assert server.stop() == 0
        assert subprocess.run(here, check=False, stderr=subprocess.DEVNULL).returncode != 0


def test_the_compose_file_gives_no_rights() -> None:
    services = yaml.safe_load((DEPLOY / "compose.yaml").read_text(encoding="utf-8"))["services"]
    assert set(services) == {"openxclip", "openxclip-cuda"}
    for service in services.values():
        assert service["read_only"] is True
        assert service["cap_drop"] == ["ALL"]
        assert service["security_opt"] == ["no-new-privileges:true"]
        assert all(port.startswith("127.0.0.1:") for port in service["ports"])
        assert any(mount.endswith(":/videos:ro") for mount in service["volumes"])


def test_the_space_listens_where_it_is_looked_for() -> None:
    page = (DEPLOY / "huggingface-space" / "README.md").read_text(encoding="utf-8")
    front = yaml.safe_load(page.split("---")[1])
    assert front["sdk"] == "docker"
    assert f"--port {front['app_port']} " in dict(instructions(DOCKERFILES[1]))["CMD"]


def test_the_dashboard_shows_metrics_that_exist(tmp_path) -> None:
    with running_server(tmp_path / "scratch", "--model", "openxclip-tiny") as server:
        httpx2.get(f"{server.url}/healthz", trust_env=False)
        text = httpx2.get(f"{server.url}/metrics", trust_env=False).text
    known = set(re.findall(r"^([a-z_]+)(?:\{| )", text, re.MULTILINE))
    dashboard = json.loads((DEPLOY / "grafana-dashboard.json").read_text(encoding="utf-8"))
    expressions = [target["expr"] for panel in dashboard["panels"] for target in panel["targets"]]
    named = {name for text in expressions for name in re.findall(r"\b(?:openxclip|process)_[a-z_]+", text)}
    assert len(named) >= 10
    assert named - known == set()


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="needs systemd-analyze")
def test_the_unit_is_valid(tmp_path) -> None:
    unit = (DEPLOY / "openxclip.service").read_text(encoding="utf-8")
    copy = tmp_path / "openxclip.service"
    copy.write_text(unit.replace("ExecStart=/opt/openxclip/bin/openxclip", "ExecStart=/bin/true"))
    checked = subprocess.run(
        ["systemd-analyze", "verify", str(copy)], capture_output=True, text=True, check=False
    )
    assert (checked.returncode, checked.stderr) == (0, "")
