import json
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

from schemas.config import load_config, load_overrides_file
from tests.deploy.command_line import ROOT, assert_is_command
from tests.servers.missing import missing

CHART = ROOT / "helm" / "spanmill"
VALUES = Path(__file__).parent / "values"
VALUE_SETS = [None, *sorted(VALUES.glob("*.yaml"))]
KUBERNETES = "1.37"

Manifest = dict[str, Any]


@pytest.fixture(scope="session")
def helm() -> str:
    found = shutil.which("helm", path=str(ROOT / ".cache" / "bin")) or shutil.which("helm")
    if found is None:
        missing("helm", "make check-deploy (it needs Go)")
    return found


def rendered(helm: str, values: Path | None = None, *options: str, release: str = "traces") -> list[Manifest]:
    files = [] if values is None else ["--values", str(values)]
    command = [helm, "template", release, str(CHART), "--namespace", "observability", *files, *options]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return [each for each in yaml.safe_load_all(done.stdout) if each is not None]


def of_kind(manifests: list[Manifest], *kinds: str) -> dict[str, Manifest]:
    return {each["metadata"]["name"]: each for each in manifests if each["kind"] in kinds}


def workloads(manifests: list[Manifest]) -> dict[str, Manifest]:
    return of_kind(manifests, "Deployment", "StatefulSet", "Job")


def pod_spec(workload: Manifest) -> Manifest:
    return workload["spec"]["template"]["spec"]


def containers(workload: Manifest) -> Iterator[Manifest]:
    yield from pod_spec(workload).get("initContainers", [])
    yield from pod_spec(workload)["containers"]


def refusal(helm: str, *options: str) -> str:
    """What helm says of values that it must not render."""
    command = [helm, "template", "traces", str(CHART), *options]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode != 0
    return done.stderr


def config_text(manifests: list[Manifest], name: str) -> str:
    return of_kind(manifests, "ConfigMap")[name]["data"]["spanmill.yaml"]


@pytest.fixture(params=VALUE_SETS, ids=lambda path: "default" if path is None else path.stem)
def values(request: pytest.FixtureRequest) -> Path | None:
    return request.param


def test_lint_finds_nothing(helm, values):
    files = [] if values is None else ["--values", str(values)]
    done = subprocess.run([helm, "lint", "--strict", str(CHART), *files], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_manifests_are_what_kubernetes_takes(helm, values):
    for manifest in rendered(helm, values):
        kubernetes_validate.validate(manifest, KUBERNETES, strict=True)


def test_each_container_runs_a_command_of_ours(helm, values):
    for workload in workloads(rendered(helm, values)).values():
        (container,) = pod_spec(workload)["containers"]
        assert_is_command(container["args"])
        assert (
            container["args"][0] == container["name"] == workload["metadata"]["labels"]["app.kubernetes.io/component"]
        )


def test_mounts_have_volumes_and_selectors_find_their_pods(helm, values):
    for workload in workloads(rendered(helm, values)).values():
        volumes = {each["name"] for each in pod_spec(workload)["volumes"]}
        for container in containers(workload):
            assert {each["name"] for each in container["volumeMounts"]} <= volumes
        if workload["kind"] != "Job":
            labels = workload["spec"]["template"]["metadata"]["labels"]
            assert workload["spec"]["selector"]["matchLabels"].items() <= labels.items()


def test_containers_have_no_rights_that_they_do_not_need(helm, values):
    for workload in workloads(rendered(helm, values)).values():
        assert pod_spec(workload)["securityContext"]["runAsNonRoot"] is True
        assert pod_spec(workload)["automountServiceAccountToken"] is (workload["kind"] == "StatefulSet")
        for container in containers(workload):
            assert container["securityContext"] == {
                "allowPrivilegeEscalation": False,
                "readOnlyRootFilesystem": True,
                "capabilities": {"drop": ["ALL"]},
            }
            assert container["resources"]["requests"].keys() == {"cpu", "memory"}


def test_services_point_at_ports_that_containers_have(helm, values):
    manifests = rendered(helm, values)
    for service in of_kind(manifests, "Service").values():
        selector = service["spec"]["selector"].items()
        matching = [
            each
            for each in workloads(manifests).values()
            if selector <= each["spec"]["template"]["metadata"]["labels"].items()
        ]
        assert len(matching) == 1
        ports = {port["name"] for port in pod_spec(matching[0])["containers"][0]["ports"]}
        assert {port["targetPort"] for port in service["spec"]["ports"]} <= ports


@pytest.mark.parametrize("values", [None, VALUES / "everything.yaml"], ids=["default", "everything"])
def test_the_configuration_is_valid_and_listens_where_the_containers_say(helm, values):
    manifests = rendered(helm, values)
    text = config_text(manifests, "traces-spanmill")
    assert config_text(manifests, "traces-spanmill-topics") == text
    config = load_config(None, text=text)
    assert config.notes == ()
    protocols = config.distributor.receivers.otlp.protocols
    listening = {
        "http": f"{config.server.http_listen_address}:{config.server.http_listen_port}",
        "otlp-grpc": protocols.grpc.endpoint,
        "otlp-http": protocols.http.endpoint,
    }
    container = pod_spec(workloads(manifests)["traces-spanmill-distributor"])["containers"][0]
    assert listening == {port["name"]: f"0.0.0.0:{port['containerPort']}" for port in container["ports"]}
    data_dirs = {str(config.spanmill.generator.data_dir), str(config.spanmill.sink.data_dir)}
    assert data_dirs == {"/var/lib/spanmill"}


def test_settings_are_merged_into_the_configuration_and_keep_their_digits(helm):
    manifests = rendered(helm, VALUES / "everything.yaml")
    config = load_config(None, text=config_text(manifests, "traces-spanmill"))
    assert config.ingest.kafka.address == "kafka-0:9092,kafka-1:9092"
    assert config.ingest.kafka.producer_max_record_size_bytes == 1_000_000
    assert config.metrics_generator.storage.remote_write[0].url == "http://prometheus:9090/api/v1/write"
    assert "max_active_series: 12345678" in config_text(manifests, "traces-spanmill")


def test_every_stage_has_a_workload(helm):
    found = workloads(rendered(helm, VALUES / "everything.yaml"))
    assert {name: (each["kind"], each["spec"].get("replicas")) for name, each in found.items()} == {
        "traces-spanmill-topics": ("Job", None),
        "traces-spanmill-distributor": ("Deployment", 5),
        "traces-spanmill-generator": ("StatefulSet", 8),
        "traces-spanmill-sink": ("StatefulSet", 4),
        "traces-spanmill-ingester": ("Deployment", 2),
    }


def test_generators_and_sinks_are_static_members_by_their_pods_names(helm):
    found = workloads(rendered(helm, VALUES / "everything.yaml"))
    by_pod_name = {"name": "SPANMILL_INSTANCE_ID", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}}
    members = {name for name, each in found.items() if by_pod_name in pod_spec(each)["containers"][0]["env"]}
    assert members == {"traces-spanmill-generator", "traces-spanmill-sink"}


def test_members_may_read_their_own_sets_and_nothing_else(helm, values):
    """They ask whether they were scaled away; see agents/kubernetes.py."""
    manifests = rendered(helm, values)
    (role,) = of_kind(manifests, "Role").values()
    (binding,) = of_kind(manifests, "RoleBinding").values()
    (account,) = of_kind(manifests, "ServiceAccount").values()
    assert binding["roleRef"]["name"] == role["metadata"]["name"]
    assert binding["subjects"] == [
        {"kind": "ServiceAccount", "name": account["metadata"]["name"], "namespace": "observability"}
    ]
    sets = of_kind(manifests, "StatefulSet")
    assert role["rules"] == [
        {"apiGroups": ["apps"], "resources": ["statefulsets"], "resourceNames": sorted(sets), "verbs": ["get"]}
    ]
    for name, each in sets.items():
        assert pod_spec(each)["serviceAccountName"] == account["metadata"]["name"]
        assert {"name": "SPANMILL_STATEFULSET", "value": name} in pod_spec(each)["containers"][0]["env"]


def test_members_need_not_ask(helm):
    manifests = rendered(helm, None, "--set", "leaveOnScaleDown=false")
    assert of_kind(manifests, "Role", "RoleBinding", "ServiceAccount") == {}
    for workload in workloads(manifests).values():
        assert pod_spec(workload)["automountServiceAccountToken"] is False
        assert "serviceAccountName" not in pod_spec(workload)
        names = {each["name"] for each in pod_spec(workload)["containers"][0].get("env", [])}
        assert "SPANMILL_STATEFULSET" not in names


def test_a_secret_takes_the_place_of_the_configuration(helm):
    manifests = rendered(helm, VALUES / "secret.yaml")
    assert of_kind(manifests, "ConfigMap", "Job") == {}
    for workload in workloads(manifests).values():
        volume = next(each for each in pod_spec(workload)["volumes"] if each["name"] == "config")
        assert volume == {"name": "config", "secret": {"secretName": "spanmill-config"}}


def test_another_configuration_replaces_the_pods(helm):
    def checksum(*options: str) -> str:
        workload = workloads(rendered(helm, None, *options))["traces-spanmill-sink"]
        return workload["spec"]["template"]["metadata"]["annotations"]["checksum/config"]

    assert checksum() == checksum()
    assert checksum() != checksum("--set", "config.ingest.kafka.address=other:9092")


def test_an_ingester_without_a_trace_store_is_refused(helm):
    said = refusal(helm, "--set", "ingester.enabled=true")
    assert "ingester.enabled needs config.spanmill.ingester.endpoint" in said


def tenants(series: int) -> tuple[str, str]:
    """Options for a chart with a tenant of so many series."""
    return "--set-json", "tenants=" + json.dumps({"shop": {"metrics_generator": {"max_active_series": series}}})


def test_the_file_of_tenants_lies_where_the_configuration_looks_for_it(helm):
    """Wherever that configuration is: the job reads it too."""
    manifests = rendered(helm, VALUES / "everything.yaml")
    maps = of_kind(manifests, "ConfigMap")
    assert set(maps) == {"traces-spanmill", "traces-spanmill-topics"}
    for workload in workloads(manifests).values():
        (volume,) = (each for each in pod_spec(workload)["volumes"] if each["name"] == "config")
        (container,) = pod_spec(workload)["containers"]
        (mount,) = (each for each in container["volumeMounts"] if each["name"] == "config")
        data = maps[volume["configMap"]["name"]]["data"]
        config = load_config(None, text=data["spanmill.yaml"])
        place = Path(config.overrides.per_tenant_override_config)
        assert str(place.parent) == mount["mountPath"]
        config = config.with_runtime(load_overrides_file(place, data[place.name], config))
        assert config.notes == ()
        assert config.tenant_overrides("shop").metrics_generator.max_active_series == 20_000_000
        assert config.tenant_overrides("other").metrics_generator.processors == ("service-graphs",)


def test_without_tenants_there_is_no_file_of_them(helm):
    manifests = rendered(helm)
    assert set(of_kind(manifests, "ConfigMap")["traces-spanmill"]["data"]) == {"spanmill.yaml"}
    assert "per_tenant_override_config" not in config_text(manifests, "traces-spanmill")


def test_other_tenants_replace_no_pod(helm):
    before, after = rendered(helm, None, *tenants(1)), rendered(helm, None, *tenants(2))
    assert workloads(before) == workloads(after)
    assert of_kind(before, "ConfigMap") != of_kind(after, "ConfigMap")


def test_kubelet_brings_running_pods_what_has_changed(helm, values):
    """It doesn't for files that are mounted one by one."""
    for workload in workloads(rendered(helm, values)).values():
        assert not any("subPath" in mount for each in containers(workload) for mount in each["volumeMounts"])


def test_two_files_of_tenants_are_refused(helm):
    said = refusal(helm, *tenants(1), "--set", "config.overrides.per_tenant_override_config=/elsewhere")
    assert "tenants is the file that config.overrides.per_tenant_override_config names; set one of them" in said


def test_tenants_beside_a_secret_are_refused(helm):
    said = refusal(helm, *tenants(1), "--set", "configSecret=spanmill-config")
    assert "tenants needs config; with configSecret, put their file into the Secret" in said


def test_names_stay_within_kubernetes_limits(helm):
    # 63 is the limit of a label, and a StatefulSet's pods add a revision of 11 characters to its name.
    for manifest in rendered(helm, release="a-release-with-a-name-of-fifty-two-characters-in-all"):
        assert len(manifest["metadata"]["name"]) <= 52
