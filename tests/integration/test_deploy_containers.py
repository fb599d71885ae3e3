"""The container files of examples/deploy: no engine runs here, but what they start does.

The commands are run as they stand, ports apart; the files are read by the linters and
schemas that can be installed.
"""

from __future__ import annotations

import http.client
import json
import re
import shutil
import signal
import subprocess
import sys
import sysconfig
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.compat.live import PATIENCE
from tests.integration.commands import PYTHON_M, Command
from tests.integration.recipes import APPLICATION, DEPLOY
from tests.restarts.harness import free_ports
from waitress.adjustments import Adjustments

pytestmark = pytest.mark.integration

SCRIPTS = sysconfig.get_path("scripts")
HADOLINT = shutil.which("hadolint", path=SCRIPTS) or shutil.which("hadolint")
DOCKERFILE = DEPLOY / "Dockerfile"
MANIFESTS = DEPLOY / "kubernetes.yaml"

Start = Callable[..., Command]


def instructions() -> list[tuple[str, str]]:
    """Return the instructions of the Dockerfile, and the rest of the line of each."""
    text = DOCKERFILE.read_text(encoding="utf-8")
    lines = [line for line in text.splitlines() if line and not line.startswith("#")]
    joined = "\n".join(lines).replace("\\\n", " ")
    return [
        (word, rest.strip()) for word, _, rest in (x.partition(" ") for x in joined.split("\n"))
    ]


def the_last(word: str) -> str:
    return [rest for name, rest in instructions() if name == word][-1]


def manifests() -> dict[str, Any]:
    """Return the manifests by their kind."""
    yaml = pytest.importorskip("yaml")
    documents = yaml.safe_load_all(MANIFESTS.read_text(encoding="utf-8"))
    return {each["kind"]: each for each in documents if each}


def status_of(port: int, path: str) -> int:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE)
    connection.request("GET", path, headers={"Connection": "close"})
    status = connection.getresponse().status
    connection.close()
    return status


# Docker.


@pytest.mark.skipif(HADOLINT is None, reason="hadolint is not installed")
def test_linter_finds_nothing_wrong_with_the_dockerfile() -> None:
    found = subprocess.run(
        [str(HADOLINT), str(DOCKERFILE)], capture_output=True, text=True, timeout=60
    )
    assert (found.stdout, found.returncode) == ("", 0)


def test_image_runs_the_server_itself_and_not_as_root() -> None:
    assert the_last("USER") == "10001"
    assert the_last("STOPSIGNAL") == "SIGTERM"
    # A list: a shell would be PID 1 otherwise, and keep SIGTERM for itself.
    program, *arguments = json.loads(the_last("CMD"))
    assert program == "waitress-serve"
    assert arguments[-1] == "myapp:app"
    names = [name for name, _ in instructions()]
    assert names[0] == "FROM"
    assert names.index("USER") > names.index("RUN")
    assert "ENTRYPOINT" not in names


def test_docker_waits_for_longer_than_the_server_takes() -> None:
    text = DOCKERFILE.read_text(encoding="utf-8")
    stop_timeout = re.search(r"--stop-timeout (\d+)", text)
    graceful = re.search(r"--graceful-timeout=(\d+)", the_last("CMD"))
    assert stop_timeout is not None
    assert graceful is not None
    assert int(stop_timeout[1]) > int(graceful[1])


def test_health_check_of_the_image_tells_of_its_server(
    start_command: Start, tmp_path: Path
) -> None:
    (tmp_path / "myapp.py").write_text(APPLICATION)
    (port,) = free_ports(1)
    _, *arguments = json.loads(the_last("CMD"))
    check = json.loads(the_last("HEALTHCHECK").partition("CMD ")[2])
    assert check[0] == "python"
    check = [sys.executable, *(each.replace(":8080", f":{port}") for each in check[1:])]

    def is_healthy() -> bool:
        return subprocess.run(check, capture_output=True, timeout=PATIENCE).returncode == 0

    assert not is_healthy()
    command = start_command(
        *PYTHON_M, *(each.replace("*:8080", f"127.0.0.1:{port}") for each in arguments)
    )
    command.await_matches("Serving on")
    assert is_healthy()
    command.process.send_signal(signal.SIGTERM)
    assert command.await_status() == 0


def can_be_pid_1() -> bool:
    unshare = shutil.which("unshare")
    if unshare is None:
        return False
    tried = subprocess.run(
        [unshare, "--pid", "--fork", "--kill-child", "true"], capture_output=True, timeout=PATIENCE
    )
    return tried.returncode == 0


def test_server_of_the_image_stops_in_order_as_pid_1(start_command: Start, tmp_path: Path) -> None:
    if not can_be_pid_1():
        pytest.skip("no namespace for processes can be made")
    (tmp_path / "myapp.py").write_text(APPLICATION)
    _, *arguments = json.loads(the_last("CMD"))
    (port,) = free_ports(1)
    arguments = [each.replace("*:8080", f"127.0.0.1:{port}") for each in arguments]
    command = start_command("unshare", "--pid", "--fork", "--kill-child", *PYTHON_M, *arguments)
    command.await_matches("Serving on")
    assert status_of(port, "/-/livez") == 200
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE)
    connection.request("GET", "/")
    assert json.loads(connection.getresponse().read())["pid"] == 1
    connection.close()
    children = Path(f"/proc/{command.process.pid}/task/{command.process.pid}/children")
    (server,) = children.read_text().split()
    # From outside, as an engine does it.
    subprocess.run(["kill", "-TERM", server], check=True, timeout=PATIENCE)
    assert command.await_status() == 0
    assert "shutdown (SIGTERM)" in command.output


def test_pid_1_ends_by_sigterm_while_the_application_is_imported(
    start_command: Start, tmp_path: Path
) -> None:
    """It would begin to serve otherwise, and be killed when the engine's patience ends."""
    if not can_be_pid_1():
        pytest.skip("no namespace for processes can be made")
    (tmp_path / "myapp.py").write_text(
        "import threading\nprint('importing', flush=True)\nthreading.Event().wait(600)\n"
    )
    command = start_command(
        "unshare", "--pid", "--fork", "--kill-child", *PYTHON_M, "--port=0", "myapp:app"
    )
    command.await_matches("importing")
    children = Path(f"/proc/{command.process.pid}/task/{command.process.pid}/children")
    (server,) = children.read_text().split()
    subprocess.run(["kill", "-TERM", server], check=True, timeout=PATIENCE)
    assert command.await_status() == 128 + signal.SIGTERM


# Kubernetes.


def container() -> dict[str, Any]:
    (found,) = manifests()["Deployment"]["spec"]["template"]["spec"]["containers"]
    return dict(found)


def settings() -> Adjustments:
    """Return the settings of the manifest, but for a directory that is not there."""
    words = [each for each in container()["args"] if not each.startswith("--spool-dir")]
    options = [each for each in words if each.startswith("--")]
    given = dict(each.removeprefix("--").split("=", 1) for each in options)
    return Adjustments(**{name.replace("-", "_"): value for name, value in given.items()})


def test_manifests_are_what_the_schemas_say() -> None:
    validator = pytest.importorskip("kubernetes_validate")
    for manifest in manifests().values():
        validator.validate(manifest, validator.latest_version(), strict=True)
    broken = json.loads(json.dumps(manifests()["Deployment"]))
    broken["spec"]["template"]["spec"]["terminationGraceSeconds"] = 40
    with pytest.raises(validator.ValidationError):
        validator.validate(broken, validator.latest_version(), strict=True)


def test_labels_ports_and_paths_of_the_manifests_fit_together() -> None:
    found = manifests()
    labels = found["Deployment"]["spec"]["template"]["metadata"]["labels"]
    for selector in (
        found["Deployment"]["spec"]["selector"]["matchLabels"],
        found["Service"]["spec"]["selector"],
        found["PodDisruptionBudget"]["spec"]["selector"]["matchLabels"],
        found["NetworkPolicy"]["spec"]["podSelector"]["matchLabels"],
    ):
        assert selector == labels
    ports = {port["name"]: port["containerPort"] for port in container()["ports"]}
    assert f"*:{ports['http']}" in " ".join(container()["args"])
    assert found["Service"]["spec"]["ports"][0]["targetPort"] in ports
    mounts = {mount["mountPath"] for mount in container()["volumeMounts"]}
    assert "--spool-dir=/spool" in container()["args"]
    assert "/spool" in mounts


def test_kubernetes_waits_for_longer_than_the_server_takes() -> None:
    adj = settings()
    pod = manifests()["Deployment"]["spec"]["template"]["spec"]
    assert pod["terminationGracePeriodSeconds"] > adj.graceful_timeout > adj.drain_delay
    probe = container()["readinessProbe"]
    notices_after = probe["periodSeconds"] * probe["failureThreshold"]
    assert adj.drain_delay > notices_after


def test_pods_trust_the_headers_of_a_known_range_only() -> None:
    adj = settings()
    assert adj.trusted_proxy == "10.244.0.0/16"
    assert adj.trusted_proxy_headers == {"x-forwarded-for", "x-forwarded-host", "x-forwarded-proto"}
    assert adj.clear_untrusted_proxy_headers
    assert manifests()["NetworkPolicy"]["spec"]["policyTypes"] == ["Ingress"]


def test_probes_of_a_pod_see_it_ready_and_then_stopping(
    start_command: Start, tmp_path: Path
) -> None:
    (tmp_path / "myapp.py").write_text(APPLICATION)
    (port,) = free_ports(1)
    arguments = [
        each.replace("*:8080", f"127.0.0.1:{port}")
        .replace("=/spool", f"={tmp_path}")
        .replace("--drain-delay=6", "--drain-delay=2")
        for each in container()["args"]
    ]
    ready, live = (
        container()[f"{name}Probe"]["httpGet"]["path"] for name in ("readiness", "liveness")
    )
    command = start_command(*PYTHON_M, *arguments)
    command.await_matches("Serving on")
    assert (status_of(port, ready), status_of(port, live), status_of(port, "/")) == (200, 200, 200)
    command.process.send_signal(signal.SIGTERM)
    command.await_matches(r"shutdown \(SIGTERM\)")
    # It is taken out of its services now, and goes on serving who does not know that yet.
    assert (status_of(port, ready), status_of(port, live), status_of(port, "/")) == (503, 200, 200)
    assert command.await_status() == 0
