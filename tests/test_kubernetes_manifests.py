"""What is copied from kubernetes/: valid in every version, restricted, and of one piece."""

import re
from pathlib import Path
from typing import Any

import kubernetes_validate  # type: ignore[import-untyped]  # it has no annotations
import pytest
import yaml

from healthagent.config import Settings, load
from healthagent.haproxy.lint import lint, read_configuration
from healthagent.kubernetes.label import PRIMARY, REPLICA
from healthagent.server.answers import CHECKS
from tests.bed.command import ran
from tests.bed.manifests import (
    FOLDER,
    KUSTOMIZATIONS,
    containers,
    environment,
    found,
    one,
    pod_specs,
    rendered,
)

VERSIONS = ("1.25", "1.29", "1.33", "1.37")
PODS = ["pg-0", "pg-1", "pg-2"]
THEIRS = {"ConfigMap": {"kube-root-ca.crt"}, "Secret": {"postgresql", "healthagent"}}  # not made by us
BITNAMI = yaml.safe_load((FOLDER / "bitnami-postgresql-ha-values.yaml").read_text())
every = pytest.mark.parametrize("kustomization", KUSTOMIZATIONS)


def complaints(manifest: dict[str, Any], version: str) -> list[str]:
    try:
        kubernetes_validate.validate(manifest, version, strict=True)
    except kubernetes_validate.ValidationError as error:
        return [f"{manifest['kind']} {manifest['metadata']['name']}: {error.message} at {list(error.path)}"]
    return []


@every
@pytest.mark.parametrize("version", VERSIONS)
def test_every_object_is_valid(kustomization: str, version: str) -> None:
    found_wrong = [line for each in rendered(kustomization) for line in complaints(each, version)]
    assert found_wrong == []


def test_validation_bites() -> None:
    broken = {**one("base", "Service", "pg-nodes"), "spec": {"ports": [{"port": "many"}], "selektor": {}}}
    assert complaints(broken, VERSIONS[0])


# What each pod may do, and is told.


@every
def test_every_container_is_restricted(kustomization: str) -> None:
    for _, spec in pod_specs(kustomization):
        pod = spec["securityContext"]
        assert pod["runAsNonRoot"] is True
        assert pod["seccompProfile"] == {"type": "RuntimeDefault"}
        assert spec["automountServiceAccountToken"] is False
        for container in containers(spec):
            own = container["securityContext"]
            assert own.get("runAsUser", pod["runAsUser"]) > 0
            assert own["allowPrivilegeEscalation"] is False
            assert own["readOnlyRootFilesystem"] is True
            assert own["capabilities"] == {"drop": ["ALL"]}
            assert {"cpu", "memory"} <= set(container["resources"]["requests"])
            assert "memory" in container["resources"]["limits"]


@every
def test_images_have_a_version_and_no_registry(kustomization: str) -> None:
    for _, spec in pod_specs(kustomization):
        for container in containers(spec):
            assert re.fullmatch(
                r"(postgres:\d+|haproxy:\d\.\d|healthagent:\d+\.\d+\.\d+)", container["image"]
            )


@every
def test_only_the_agent_has_a_token_and_only_where_it_labels(kustomization: str) -> None:
    for _, spec in pod_specs(kustomization):
        for container in containers(spec):
            paths = [mount["mountPath"] for mount in container.get("volumeMounts", [])]
            has_token = any(path.startswith("/var/run/secrets") for path in paths)
            assert has_token == (kustomization == "labels" and container["name"] == "healthagent")


# What refers to what.


@every
def test_every_volume_is_there(kustomization: str) -> None:
    for _, spec in pod_specs(kustomization):
        volumes = {volume["name"]: volume for volume in spec["volumes"]}
        claimed = {"data"} if "data" not in volumes else set()
        for container in containers(spec):
            for mount in container.get("volumeMounts", []):
                assert mount["name"] in volumes.keys() | claimed
        for volume in volumes.values():
            for key, kind, name in (
                ("configMap", "ConfigMap", "name"),
                ("secret", "Secret", "secretName"),
            ):
                if key in volume:
                    wanted = volume[key][name]
                    assert found(kustomization, kind, wanted) or wanted in THEIRS[kind]


@every
def test_services_budgets_and_policies_select_pods_that_exist(kustomization: str) -> None:
    pods = list(pod_specs(kustomization))

    def selected(labels: dict[str, str]) -> list[dict[str, Any]]:
        plain = {key: value for key, value in labels.items() if key != "healthagent.io/role"}
        return [spec for its, spec in pods if plain.items() <= its.items()]

    for service in found(kustomization, "Service"):
        [spec] = selected(service["spec"]["selector"])
        ports = {port["name"] for container in spec["containers"] for port in container.get("ports", [])}
        assert {port["targetPort"] for port in service["spec"]["ports"]} <= ports
    for budget in found(kustomization, "PodDisruptionBudget"):
        assert selected(budget["spec"]["selector"]["matchLabels"])
    for policy in found(kustomization, "NetworkPolicy"):
        [spec] = selected(policy["spec"]["podSelector"]["matchLabels"])
        ports = {port["containerPort"] for container in spec["containers"] for port in container["ports"]}
        for rule in policy["spec"].get("ingress", []):
            assert {port["port"] for port in rule["ports"]} <= ports


@every
def test_probes_ask_what_the_agent_answers(kustomization: str) -> None:
    spec = one(kustomization, "StatefulSet", "pg")["spec"]["template"]["spec"]
    for container in spec["containers"]:
        for probe in ("readinessProbe", "livenessProbe", "startupProbe"):
            if container["name"] == "healthagent":
                assert container[probe]["httpGet"]["path"] in CHECKS
            else:
                assert probe not in container, "nothing may kill a slow PostgreSQL"


def test_peers_find_one_another_before_they_are_ready() -> None:
    assert one("base", "Service", "pg-nodes")["spec"]["publishNotReadyAddresses"] is True
    assert one("base", "StatefulSet", "pg")["spec"]["podManagementPolicy"] == "Parallel"


# The agent's configuration.


def agent_settings(kustomization: str, pod: str, tmp_path: Path) -> Settings:
    """As the agent in this pod reads it."""
    spec = one(kustomization, "StatefulSet", "pg")["spec"]["template"]["spec"]
    [agent] = [each for each in spec["containers"] if each["name"] == "healthagent"]
    [config] = [each for each in found(kustomization, "ConfigMap") if "healthagent.yaml" in each["data"]]
    for secret in ("password", "peer-secret"):
        (tmp_path / secret).write_text("a secret of sixteen or more")
    text = config["data"]["healthagent.yaml"].replace("/etc/healthagent-secret", str(tmp_path))
    (tmp_path / "healthagent.yaml").write_text(text)
    return load(tmp_path / "healthagent.yaml", environment=environment(agent, name=pod, uid="a-uid")).settings


@every
@pytest.mark.parametrize("pod", PODS)
def test_the_agents_configuration(kustomization: str, pod: str, tmp_path: Path) -> None:
    read = agent_settings(kustomization, pod, tmp_path)
    assert read.name == pod
    assert [entry.name for entry in read.peers] == PODS
    assert [entry.url for entry in read.peers] == [f"http://{one}.pg-nodes:8008" for one in PODS]
    assert str(read.postgres.address) == f"{pod}.pg-nodes:5432"
    assert one(kustomization, "StatefulSet", "pg")["spec"]["replicas"] == len(PODS)
    labelled = (read.kubernetes.role_label, read.kubernetes.pod, read.kubernetes.uid)
    if kustomization == "labels":
        assert labelled == ("healthagent.io/role", pod, "a-uid")
    else:
        assert read.kubernetes.role_label is None
    assert (read.agent_check.listen is not None) == (kustomization == "haproxy")


def test_services_select_what_the_agents_write() -> None:
    values = {
        service["metadata"]["name"]: service["spec"]["selector"]["healthagent.io/role"]
        for service in found("labels", "Service")
        if service["metadata"]["name"] != "pg-nodes"
    }
    assert values == {"pg-primary": PRIMARY, "pg-replica": REPLICA}


def test_the_account_may_do_what_the_agent_does_and_nothing_else() -> None:
    rules = one("labels", "Role", "healthagent")["rules"]
    assert rules == [
        {"apiGroups": [""], "resources": ["pods"], "resourceNames": PODS, "verbs": ["get", "patch"]}
    ]
    [binding] = found("labels", "RoleBinding")
    assert binding["subjects"] == [{"kind": "ServiceAccount", "name": "healthagent", "namespace": "pg"}]
    assert found("labels", "ClusterRole") == found("labels", "ClusterRoleBinding") == []
    for other in ("base", "haproxy"):
        assert found(other, "Role") == []


def test_haproxy_is_configured_as_healthagent_would() -> None:
    nodes = [f"--node={pod}={pod}.pg-nodes.pg.svc.cluster.local:5432" for pod in PODS]
    written = ran("haproxy", "config", *nodes, "--nameserver", "resolv.conf", "--user", "")
    file = FOLDER / "haproxy" / "haproxy.cfg"
    assert (written.returncode, written.stdout) == (0, file.read_text())
    assert lint(read_configuration(file)) == []


# Bitnami's chart.


@pytest.mark.parametrize("version", VERSIONS)
def test_the_sidecar_for_bitnamis_chart(version: str) -> None:
    values = BITNAMI["postgresql"]
    pod = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "pg-postgresql-0"},
        "spec": {"containers": values["sidecars"], "volumes": values["extraVolumes"]},
    }
    policy = {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": {"name": "pg-postgresql"},
        "spec": {
            "podSelector": {},
            "ingress": values["networkPolicy"]["extraIngress"],
            "egress": values["networkPolicy"]["extraEgress"],
        },
    }
    assert complaints(pod, version) + complaints(policy, version) == []


def test_the_settings_for_bitnamis_chart(tmp_path: Path) -> None:
    [sidecar] = BITNAMI["postgresql"]["sidecars"]
    variables = environment(sidecar, name="pg-postgresql-1")
    for name in ("HEALTHAGENT_POSTGRES_PASSWORD_FILE", "HEALTHAGENT_PEER_SECRET_FILE"):
        (tmp_path / name).write_text("a secret of sixteen or more")
        variables[name] = str(tmp_path / name)
    read = load(environment=variables).settings
    assert read.name == "pg-postgresql-1"
    assert len(read.peers) == BITNAMI["postgresql"]["replicaCount"]
    assert {entry.url for entry in read.peers} == {
        f"http://{entry.name}.pg-postgresql-headless:8008" for entry in read.peers
    }
