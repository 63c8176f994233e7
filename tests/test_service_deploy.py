"""The files of host_service/deploy for one machine and for a cluster: what they start serves, and is probed and measured as they say."""

import shlex
import subprocess
import sys
import urllib.request
from configparser import ConfigParser
from copy import deepcopy
from pathlib import Path
from typing import Any

import kubernetes_validate
import numpy as np
import pytest
import yaml
from random_networks import SIZE, featurizer
from service_servers import serving
from stock_triton import free_port

from host_service.client import RemoteNpu
from hw.sources import ROOT

DEPLOY = ROOT / "host_service" / "deploy"
PROGRAM = featurizer(81)
KUBERNETES = "1.30"
"""The release whose schemas are held against the cluster's values."""


@pytest.fixture
def models(tmp_path: Path) -> Path:
    """A model repository, where the configuration of deploy/systemd looks for it."""
    folder = tmp_path / "models"
    (folder / "featurizer" / "1").mkdir(parents=True)
    PROGRAM.save(folder / "featurizer" / "1" / "program.npu")
    return folder


def values() -> dict[str, Any]:
    return yaml.safe_load((DEPLOY / "kubernetes" / "values.yaml").read_text())


def unit() -> ConfigParser:
    parser = ConfigParser(interpolation=None)
    parser.optionxform = str  # type: ignore[assignment,method-assign]
    parser.read(DEPLOY / "systemd" / "quarkwave.service")
    return parser


def command_of(line: str) -> list[str]:
    """A command of the unit, with this Python and the configuration of deploy/systemd."""
    words = shlex.split(line)
    assert words[:3] == ["/opt/quarkwave/bin/python", "-m", "host_service"]
    return [sys.executable, *words[1:]]


def test_the_unit_checks_the_configuration_beside_it(models: Path):
    configuration = models.parent / "service.toml"
    configuration.write_text((DEPLOY / "systemd" / "service.toml").read_text())
    check = command_of(unit()["Service"]["ExecStartPre"])
    assert check[-1] == "/etc/quarkwave/service.toml"
    done = subprocess.run([*check[:-1], str(configuration)], cwd=ROOT, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")


def test_the_unit_starts_a_service_that_drains(models: Path, tmp_path: Path):
    configuration = tmp_path / "service.toml"
    text = (DEPLOY / "systemd" / "service.toml").read_text()
    changes = {"0.0.0.0": "127.0.0.1", "8001": str(free_port()), "8002": str(free_port()), '"board"': '"golden"'}
    for old, new in changes.items():
        assert old in text
        text = text.replace(old, new)
    configuration.write_text(text)
    start = command_of(unit()["Service"]["ExecStart"])
    command = [*start[:-1], str(configuration)]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout
        try:
            assert process.stdout.readline().startswith("serving featurizer")
        finally:
            process.terminate()  # as systemd stops it
        assert process.wait(60) == 0


def test_the_clusters_values_start_a_service_that_passes_its_own_probes(models: Path, tmp_path: Path):
    server = values()["inferenceServer"]
    assert server["command"] == ["python", "-m", "host_service", "serve"]
    ports = {port["name"]: port["targetPort"] for port in server["service"]["ports"]}
    options = dict(zip(server["args"][::2], server["args"][1::2], strict=True))
    assert (options["--models"], int(options["--port"])) == (server["modelRepository"]["mountPath"], ports["grpc"])
    assert int(options["--http-port"]) == ports["http"] == ports["metrics"]

    http_port = free_port()
    here = {"--models": models, "--device": "golden", "--host": "127.0.0.1", "--http-port": http_port}
    arguments = [word for key, value in (options | here).items() if key != "--port" for word in (key, value)]
    with serving(arguments, tmp_path / "service.log") as service:
        with RemoteNpu(service.address) as npu:
            npu.run(np.zeros((SIZE, SIZE, 3), np.uint8))
        for probe in ("readinessProbe", "startupProbe"):
            assert server[probe]["httpGet"]["port"] == "http"
            with urllib.request.urlopen(f"http://127.0.0.1:{http_port}{server[probe]['httpGet']['path']}") as answer:
                assert answer.status == 200
        with urllib.request.urlopen(f"http://127.0.0.1:{http_port}/metrics") as answer:
            metrics = answer.read().decode()
    names = {word.split("[")[0] for word in values()["serverLoadMetric"].replace("(", " ").split() if "nv_" in word}
    assert len(names) == 2
    for name in names:
        assert f"\n{name}{{" in metrics, name


def probe(given: dict[str, Any]) -> dict[str, Any]:
    """What the chart makes of a probe: one handler, the times, nothing of its own."""
    return {key: value for key, value in given.items() if key != "reset" and value is not None}


def manifests(server: dict[str, Any]) -> list[dict[str, Any]]:
    """The deployment and the service that SuperSONIC's chart fills with the values of ``inferenceServer``, most of them as they stand."""
    labels = {"app.kubernetes.io/component": "inference-server"}
    repository, ports = server["modelRepository"], server["service"]["ports"]
    container = {
        "name": "inference-server",
        "image": server["image"],
        "command": server["command"],
        "args": server["args"],
        "resources": server["resources"],
        "ports": [{"name": p["name"], "containerPort": p["port"], "protocol": p["protocol"]} for p in ports],
        "volumeMounts": [{"name": "model-repository", "mountPath": repository["mountPath"], "readOnly": True}],
        "startupProbe": probe(server["startupProbe"]),
        "readinessProbe": probe(server["readinessProbe"]),
    }
    assert repository["storageType"] == "pvc"
    volume = {"name": "model-repository", "persistentVolumeClaim": {"claimName": repository["pvc"]["claimName"]}}
    pod = {"metadata": {"labels": labels}, "spec": {"containers": [container], "volumes": [volume]}}
    deployment = {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "quarkwave"},
        "spec": {"replicas": server["replicas"], "selector": {"matchLabels": labels}, "template": pod},
    }
    service = {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {k: server["service"][k] for k in ("labels", "annotations")} | {"name": "quarkwave"},
        "spec": {"selector": labels, "ports": ports},
    }
    return [deployment, service]


def test_kubernetes_takes_what_the_chart_makes_of_the_values():
    server = values()["inferenceServer"]
    for manifest in manifests(server):
        kubernetes_validate.validate(manifest, KUBERNETES, strict=True)
    (http,) = [port for port in server["service"]["ports"] if port["name"] == "http"]
    assert http["port"] == http["targetPort"], "the chart gives the container the former, which probes ask"


@pytest.mark.parametrize(
    ("where", "key", "wrong"),
    [
        ("readinessProbe", "httpGet", {"path": "/v2/health/ready"}),
        ("startupProbe", "periodSecond", 2),
        ("resources", "limits", ["cpu"]),
        ("service", "ports", [{"name": "grpc", "port": "8001", "targetPort": 8001, "protocol": "TCP"}]),
    ],
)
def test_a_wrong_value_would_be_found(where: str, key: str, wrong: object):
    server = deepcopy(values()["inferenceServer"])
    server[where][key] = wrong
    with pytest.raises(kubernetes_validate.ValidationError):
        for manifest in manifests(server):
            kubernetes_validate.validate(manifest, KUBERNETES, strict=True)
