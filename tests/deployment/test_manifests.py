"""The manifests: valid for Kubernetes, complete, held in bounds, and as the compose file."""

from __future__ import annotations

import copy
import re
import shutil
import subprocess
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml
from django.conf import settings

from soulbox.celery import QUEUES
from soulbox.environment import VARIABLES
from tests.deployment.kustomize import Manifest, containers, render
from tests.deployment.test_compose import NOT_IN_A_CONTAINER, SERVICES
from tests.soulbox.processes import PROJECT

K8S = PROJECT / "deploy" / "k8s"
FOLDERS = [K8S / "base", *sorted((K8S / "overlays").iterdir())]
OLDEST, NEWEST = "1.30", kubernetes_validate.latest_version()
# The Prometheus operator's, of which Kubernetes has no schema.
OF_OTHERS = {"ServiceMonitor"}
# Each container's own, from its node; FLOWER_BASIC_AUTH is Flower's.
NOT_IN_THE_CODE = {"FLOWER_BASIC_AUTH"}
NEEDED = {"DATABASE_URL", "DATABASE_OWNER_URL", "REDIS_URL", "SECRET_KEY", "METRICS_TOKEN"}
WORKLOADS = {"Deployment", "DaemonSet", "Job"}
NAME = "app.kubernetes.io/name"


@cache
def _base() -> list[Manifest]:
    return render(K8S / "base")


def _of(kind: str) -> dict[str, Manifest]:
    return {it["metadata"]["name"]: it for it in _base() if it["kind"] == kind}


def _workloads() -> Iterator[tuple[str, Manifest]]:
    for manifest in _base():
        if manifest["kind"] in WORKLOADS:
            yield manifest["metadata"]["name"], manifest["spec"]["template"]


def _containers() -> dict[str, Manifest]:
    return {
        f"{it['metadata']['name']}/{container['name']}": container
        for it in _base()
        for container in containers(it)
    }


def _ours() -> dict[str, Manifest]:
    return {name: it for name, it in _containers().items() if it["image"] == "soulbox-billing"}


def _problems(manifests: list[Manifest], version: str) -> list[str]:
    found = []
    for manifest in manifests:
        if manifest["kind"] in OF_OTHERS:
            continue
        try:
            kubernetes_validate.validate(manifest, version, strict=True)
        except kubernetes_validate.ValidationError as error:
            found.append(f"{manifest['kind']} {manifest['metadata']['name']}: {error.message}")
    return found


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name)
@pytest.mark.parametrize("version", [OLDEST, NEWEST])
def test_kubernetes_takes_them(folder: Path, version: str) -> None:
    manifests = render(folder)
    assert len(manifests) > 20
    assert _problems(manifests, version) == []
    assert {it["metadata"].get("namespace", "soulbox") for it in manifests} == {"soulbox"}


BREAKS: dict[str, Any] = {
    "a word that is none": lambda it: it["spec"].update(replica=3),
    "a number that is text": lambda it: it["spec"].update(replicas="3"),
    "nothing to run": lambda it: it["spec"]["template"]["spec"].pop("containers"),
    "a probe of an unknown kind": lambda it: containers(it)[0].update(readinessProbe={"http": {}}),
    "a limit that is a list": lambda it: containers(it)[0]["resources"].update(limits=["1Gi"]),
    "no selector": lambda it: it["spec"].pop("selector"),
}


@pytest.mark.parametrize("broken", BREAKS)
def test_a_broken_one_is_found(broken: str) -> None:
    manifest = copy.deepcopy(_of("Deployment")["web"])
    BREAKS[broken](manifest)
    assert _problems([manifest], NEWEST) != []


@pytest.mark.parametrize(
    ("line", "instead"),
    [
        ("  - beat.yaml\n", ""),
        ("  - beat.yaml\n", "  - beat.yaml\n  - beet.yaml\n"),
        ("namespace: soulbox", "namespace: soulbox\nnamePrefix: a-"),
    ],
)
def test_a_file_that_is_missing_or_left_out_is_found(
    line: str, instead: str, tmp_path: Path
) -> None:
    shutil.copytree(PROJECT / "deploy", tmp_path / "deploy")
    folder = tmp_path / "deploy" / "k8s" / "base"
    assert render(folder)
    text = (folder / "kustomization.yaml").read_text()
    (folder / "kustomization.yaml").write_text(text.replace(line, instead))
    with pytest.raises(ValueError, match="base: "):
        render(folder)


def test_what_an_overlay_changes_is_changed() -> None:
    manifests = render(K8S / "overlays" / "example")
    by_name = {(it["kind"], it["metadata"]["name"]): it for it in manifests}
    assert by_name["ConfigMap", "soulbox"]["data"]["ALLOWED_HOSTS"] == "billing.example.org"
    assert by_name["Ingress", "web"]["spec"]["rules"][0]["host"] == "billing.example.org"
    [web] = containers(by_name["Deployment", "web"])
    assert web["image"] == "registry.example.com/soulbox-billing:1.0.0"
    assert "example.com" not in yaml.safe_dump([it for it in manifests if it["kind"] == "Ingress"])


def test_they_give_the_settings_that_the_code_reads() -> None:
    given = set(_of("ConfigMap")["soulbox"]["data"])
    example = (K8S / "base" / "secret.env.example").read_text()
    secret = set(re.findall(r"^([A-Z_]+)=", example, re.MULTILINE))
    assert given & secret == set()
    assert given | secret <= set(VARIABLES) - NOT_IN_A_CONTAINER | NOT_IN_THE_CODE | NEEDED
    assert secret >= NEEDED | NOT_IN_THE_CODE
    # What is in a ConfigMap is in nobody's confidence.
    assert not [name for name in given if re.search("PASSWORD|SECRET|TOKEN|KEY|AUTH", name)]


@pytest.mark.parametrize("name", sorted(_ours()))
def test_each_of_our_containers_gets_them_by_reference(name: str) -> None:
    it = _ours()[name]
    assert it["envFrom"] == [
        {"configMapRef": {"name": "soulbox"}},
        {"secretRef": {"name": "soulbox"}},
    ]
    assert {entry["name"] for entry in it.get("env", [])} <= {"NODE_NAME"}


def test_each_queue_has_a_worker_as_in_the_compose_file() -> None:
    served = {}
    for name, it in _containers().items():
        if "worker" in it.get("args", []):
            served[it["args"][it["args"].index("--queues") + 1]] = name
            assert it["args"] == SERVICES[name.split("/")[0]]["command"]
    assert sorted(served) == sorted(QUEUES)


@pytest.mark.parametrize("name", ["beat", "flower"])
def test_other_processes_run_as_in_the_compose_file(name: str) -> None:
    assert _containers()[f"{name}/{name}"]["args"] == SERVICES[name]["command"]


def test_the_proxy_before_the_engines_socket_is_the_compose_files() -> None:
    configuration = (PROJECT / "deploy" / "haproxy" / "docker-socket.cfg").read_text()
    assert _of("ConfigMap")["docker-socket"]["data"] == {"docker-socket.cfg": configuration}
    proxy = _containers()["collector/docker-socket"]
    assert proxy["image"] == SERVICES["docker-socket"]["image"]
    # Of the pod alone, whose other container asks there.
    assert {"name": "LISTEN", "value": "127.0.0.1:2375"} in proxy["env"]
    assert "tcp://127.0.0.1:2375" in _containers()["collector/register"]["command"][-1]
    mounts = {
        name: [mount["name"] for mount in it["volumeMounts"]] for name, it in _containers().items()
    }
    assert [name for name, of_it in mounts.items() if "engine" in of_it] == [
        "collector/docker-socket"
    ]


@pytest.mark.parametrize("name", sorted(_containers()))
def test_every_container_is_held_in_bounds(name: str) -> None:
    it = _containers()[name]
    security = it["securityContext"]
    assert security["allowPrivilegeEscalation"] is False
    assert security["readOnlyRootFilesystem"] is True
    assert security["capabilities"] == {"drop": ["ALL"]}
    for bound in ("requests", "limits"):
        assert set(it["resources"][bound]) == {"memory", "cpu"}
    lasts = not name.startswith("migrate/") and not name.endswith("/register")
    assert ("livenessProbe" in it) == lasts


@pytest.mark.parametrize("name", sorted(dict(_workloads())))
def test_every_pod_is_nobody_special(name: str) -> None:
    template = dict(_workloads())[name]
    pod = template["spec"]
    assert pod["automountServiceAccountToken"] is False
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["securityContext"]["runAsUser"] == 10001
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert template["metadata"]["labels"]["app.kubernetes.io/part-of"] == "soulbox"
    if name.startswith("worker-") or name == "collector":
        assert pod["terminationGracePeriodSeconds"] > settings.CELERY_TASK_TIME_LIMIT
    paths = {volume["hostPath"]["path"] for volume in pod["volumes"] if "hostPath" in volume}
    assert paths == ({"/var/run/docker.sock"} if name == "collector" else set())


def test_web_is_as_large_and_grows_as_is_wanted() -> None:
    web = _of("Deployment")["web"]
    assert web["spec"]["replicas"] == 3
    [container] = containers(web)
    assert container["resources"] == {
        "requests": {"memory": "256Mi", "cpu": "200m"},
        "limits": {"memory": "512Mi", "cpu": "500m"},
    }
    assert container["livenessProbe"]["httpGet"]["path"] == "/health"
    assert container["readinessProbe"]["httpGet"]["path"] == "/ready"
    grows = _of("HorizontalPodAutoscaler")["web"]["spec"]
    assert (grows["minReplicas"], grows["maxReplicas"]) == (2, 10)
    wanted = {
        it["resource"]["name"]: it["resource"]["target"]["averageUtilization"]
        for it in grows["metrics"]
    }
    assert wanted == {"cpu": 70, "memory": 80}


def test_what_selects_pods_finds_some() -> None:
    pods = {template["metadata"]["labels"][NAME] for _, template in _workloads()}
    selectors = [
        *(it["spec"]["selector"] for it in _of("Service").values()),
        *(it["spec"]["selector"]["matchLabels"] for it in _of("PodDisruptionBudget").values()),
        *(it["spec"]["selector"]["matchLabels"] for it in _of("Deployment").values()),
        *(it["spec"]["selector"]["matchLabels"] for it in _of("ServiceMonitor").values()),
    ]
    assert {selector[NAME] for selector in selectors} <= pods
    for policy in _of("NetworkPolicy").values():
        chosen = policy["spec"]["podSelector"]
        names = [chosen.get("matchLabels", {}).get(NAME)]
        names += [name for it in chosen.get("matchExpressions", []) for name in it["values"]]
        assert set(names) - {None} <= pods
    # Two of each that has more than one may not go at once.
    several = {name for name, it in _of("Deployment").items() if it["spec"]["replicas"] > 1}
    assert set(_of("PodDisruptionBudget")) == several


def test_services_lead_to_ports_that_there_are() -> None:
    for name, service in _of("Service").items():
        ports = {port["name"] for port in _containers()[f"{name}/{name}"]["ports"]}
        assert {port["targetPort"] for port in service["spec"]["ports"]} <= ports
    [rule] = _of("Ingress")["web"]["spec"]["rules"]
    backend = rule["http"]["paths"][0]["backend"]["service"]
    offered = {port["name"] for port in _of("Service")[backend["name"]]["spec"]["ports"]}
    assert backend["port"]["name"] in offered
    for name, monitor in _of("ServiceMonitor").items():
        labels = _of("Service")[name]["metadata"]["labels"]
        assert monitor["spec"]["selector"]["matchLabels"].items() <= labels.items()
        of_service = {port["name"] for port in _of("Service")[name]["spec"]["ports"]}
        assert {endpoint["port"] for endpoint in monitor["spec"]["endpoints"]} <= of_service


def test_prometheus_knows_each_job_by_the_same_name_as_on_one_machine() -> None:
    text = (PROJECT / "deploy" / "prometheus" / "prometheus.yml").read_text()
    targets = {
        job["job_name"]: job["static_configs"][0]["targets"][0].split(":")[0]
        for job in yaml.safe_load(text)["scrape_configs"]
    }
    labels = {name: it["metadata"]["labels"] for name, it in _of("Service").items()}
    monitors = _of("ServiceMonitor")
    assert targets == {
        labels[name][monitor["spec"]["jobLabel"]]: name for name, monitor in monitors.items()
    }
    assert monitors["web"]["spec"]["endpoints"][0]["authorization"]["credentials"] == {
        "name": "soulbox",
        "key": "METRICS_TOKEN",
    }


def test_what_the_page_says_makes_a_rule_of_the_alerts() -> None:
    page = (PROJECT / "docs" / "deployment.md").read_text()
    [command] = re.findall(r"```sh\n(\{ cat <<.*?)```", page, re.DOTALL)
    made = command.replace(" | kubectl apply --filename -", "")
    assert made != command
    done = subprocess.run(
        ["sh", "-euc", made], cwd=PROJECT, check=True, capture_output=True, text=True
    )
    rule = yaml.safe_load(done.stdout)
    assert rule["kind"] == "PrometheusRule"
    alerts = (PROJECT / "deploy" / "prometheus" / "alerts.yml").read_text()
    assert rule["spec"] == yaml.safe_load(alerts)


def test_nothing_passes_that_no_policy_lets_through() -> None:
    policies = _of("NetworkPolicy")
    assert policies["nothing"]["spec"] == {
        "podSelector": {},
        "policyTypes": ["Ingress", "Egress"],
    }
    reached = [name for name, it in policies.items() if it["spec"].get("ingress")]
    assert sorted(reached) == ["browsers-reach-web", "prometheus-reaches-what-it-scrapes"]
    for name in reached:
        assert all(rule["from"] for rule in policies[name]["spec"]["ingress"])
