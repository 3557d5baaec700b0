"""The Helm chart: what it makes is what deploy/kubernetes has, and its values change what they say."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from exporter import __version__
from tests.support.processes import ROOT
from tests.support.tools import need

Yaml = dict[str, Any]

KUBERNETES = ROOT / "deploy" / "kubernetes"
CHART = ROOT / "deploy" / "helm" / "mobizon-exporter"
README = (CHART / "README.md").read_text("utf-8")
IMAGE = "ghcr.io/mobizon-exporter/mobizon-exporter"
RELEASE = "mobizon-exporter"
ALL_ON = {name: {"enabled": True} for name in ("serviceMonitor", "rules", "dashboards")}
# What Helm asks for besides the labels of the base.
OF_HELM = {"helm.sh/chart", *(f"app.kubernetes.io/{name}" for name in ("instance", "managed-by", "version"))}


def helm(*arguments: str, values: Yaml | None = None) -> subprocess.CompletedProcess[str]:
    command = [need("helm"), *arguments, str(CHART), "--values=-"]
    given = json.dumps(values or {})
    return subprocess.run(command, input=given, capture_output=True, text=True, check=False)


def rendered(values: Yaml | None = None, release: str = RELEASE) -> dict[tuple[str, str], Yaml]:
    """What the chart makes, by kind and name."""
    done = helm("template", release, values=values)
    assert done.returncode == 0, done.stderr
    found = [document for document in yaml.safe_load_all(done.stdout) if document]
    return {(document["kind"], document["metadata"]["name"]): document for document in found}


def base(path: str) -> Yaml:
    manifest: Yaml = yaml.safe_load((KUBERNETES / path).read_text("utf-8"))
    return manifest


def without_helm(value: Any) -> Any:
    """The same without the labels of Helm."""
    if isinstance(value, dict):
        return {key: without_helm(item) for key, item in value.items() if key not in OF_HELM}
    return [without_helm(item) for item in value] if isinstance(value, list) else value


def leaves(values: Yaml, path: str = "") -> set[str]:
    """The names of all values, as `helm --set` takes them."""
    return {
        name
        for key, value in values.items()
        for name in (leaves(value, f"{path}{key}.") if isinstance(value, dict) and value else {path + key})
    }


@pytest.mark.parametrize("values", [{}, ALL_ON], ids=["as-it-is", "all-on"])
def test_the_official_linter_has_nothing_to_say(values: Yaml) -> None:
    done = helm("lint", "--strict", values=values)
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize(
    ("kind", "path"),
    [
        ("Service", "exporter/service.yaml"),
        ("NetworkPolicy", "exporter/networkpolicy.yaml"),
        ("PersistentVolumeClaim", "exporter/persistentvolumeclaim.yaml"),
        ("ServiceMonitor", "monitoring/servicemonitor.yaml"),
        ("PrometheusRule", "monitoring/prometheusrule.yaml"),
    ],
)
def test_a_manifest_of_the_chart_is_that_of_the_base(kind: str, path: str) -> None:
    assert without_helm(rendered(ALL_ON)[kind, RELEASE]["spec"]) == base(path)["spec"]


def test_the_deployment_of_the_chart_is_that_of_the_base() -> None:
    spec = without_helm(rendered()["Deployment", RELEASE]["spec"])
    wanted = base("exporter/deployment.yaml")["spec"]
    wanted["template"]["spec"]["containers"][0]["image"] = f"{IMAGE}:{__version__}"
    wanted["template"]["metadata"]["labels"]["app.kubernetes.io/part-of"] = "mobizon"
    assert spec == wanted


def test_the_config_maps_hold_what_those_of_the_base_hold() -> None:
    made = rendered(ALL_ON)
    config = (KUBERNETES / "exporter" / "config" / "config.yaml").read_text("utf-8")
    assert made["ConfigMap", f"{RELEASE}-config"]["data"] == {"config.yaml": config}
    assert made["ConfigMap", f"{RELEASE}-tasks"]["data"] == {"tasks.yaml": "[]\n"}
    dashboards = base("monitoring/dashboards.yaml")
    made_of_them = made["ConfigMap", f"{RELEASE}-dashboards"]
    assert made_of_them["data"] == dashboards["data"]
    assert made_of_them["metadata"]["annotations"] == dashboards["metadata"]["annotations"]
    assert dashboards["metadata"]["labels"].items() <= made_of_them["metadata"]["labels"].items()


def test_nothing_of_the_operator_or_grafana_is_made_unless_asked_for() -> None:
    kinds = sorted(kind for kind, _ in rendered())
    assert kinds == [
        *("ConfigMap", "ConfigMap", "Deployment", "NetworkPolicy", "PersistentVolumeClaim", "Service")
    ]


def test_every_object_has_the_labels_of_its_release_and_the_name_of_the_job() -> None:
    for document in rendered(ALL_ON, "sms").values():
        labels = document["metadata"]["labels"]
        assert labels["app.kubernetes.io/instance"] == "sms"
        assert labels["app.kubernetes.io/name"] == "mobizon-exporter"
        assert labels["app.kubernetes.io/part-of"] == "mobizon"
        assert labels["app.kubernetes.io/version"] == __version__


def test_two_releases_share_no_object_and_no_pod() -> None:
    one, two = rendered(ALL_ON, "one"), rendered(ALL_ON, "two")
    assert not set(one) & set(two)
    for name, other, made in (("one", "two", one), ("two", "one", two)):
        assert other not in re.findall(
            r"[a-z]+", json.dumps([made["Deployment", name], made["Service", name]])
        )
        pod = made["Deployment", name]["spec"]["template"]["metadata"]["labels"]
        for selector in (
            made["Deployment", name]["spec"]["selector"]["matchLabels"],
            made["Service", name]["spec"]["selector"],
            made["NetworkPolicy", name]["spec"]["podSelector"]["matchLabels"],
        ):
            assert selector["app.kubernetes.io/instance"] == name
            assert selector.items() <= pod.items()


def test_values_change_what_they_say() -> None:
    tasks = [123456789012, {"id": 124, "name": "spring-sale", "labels": {"team": "crm"}}]
    made = rendered(
        {
            "image": {"repository": "registry.example.org/exporter", "tag": "1.2.3"},
            "secretName": "mine",
            "config": {"api": {"url": "https://api.mobizon.ua", "request_interval": "2s"}},
            "tasks": tasks,
            "extraArgs": ["--log.format=json"],
            "resources": {"limits": {"memory": "1Gi"}},
            "pod": {"nodeSelector": {"disk": "ssd"}, "securityContext": {"fsGroup": 7}},
            "persistence": {"size": "1Gi", "storageClassName": "fast"},
            "serviceMonitor": {
                "enabled": True,
                "interval": "1m",
                "scrapeTimeout": "57s",
                "labels": {"release": "prometheus"},
            },
            "rules": {"enabled": True, "labels": {"release": "prometheus"}, "content": "groups: []"},
            "dashboards": {"enabled": True, "labels": {"folder": "sms"}},
        }
    )
    pod = made["Deployment", RELEASE]["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    assert container["image"] == "registry.example.org/exporter:1.2.3"
    assert container["args"][-1] == "--log.format=json"
    assert container["resources"] == {"limits": {"memory": "1Gi"}}
    assert pod["nodeSelector"] == {"disk": "ssd"}
    assert pod["securityContext"] | {"fsGroup": 7, "runAsNonRoot": True} == pod["securityContext"]
    volumes = {volume["name"]: volume for volume in pod["volumes"]}
    assert volumes["secret"]["secret"]["secretName"] == "mine"
    config = yaml.safe_load(made["ConfigMap", f"{RELEASE}-config"]["data"]["config.yaml"])
    assert config == {"api": {"url": "https://api.mobizon.ua", "request_interval": "2s"}}
    assert yaml.safe_load(made["ConfigMap", f"{RELEASE}-tasks"]["data"]["tasks.yaml"]) == tasks
    claim = made["PersistentVolumeClaim", RELEASE]["spec"]
    assert claim["resources"]["requests"] == {"storage": "1Gi"}
    assert claim["storageClassName"] == "fast"
    monitor = made["ServiceMonitor", RELEASE]
    assert monitor["spec"]["endpoints"] == [{"port": "metrics", "interval": "1m", "scrapeTimeout": "57s"}]
    assert made["PrometheusRule", RELEASE]["spec"] == {"groups": []}
    for document in (monitor, made["PrometheusRule", RELEASE]):
        assert document["metadata"]["labels"]["release"] == "prometheus"
    labels = made["ConfigMap", f"{RELEASE}-dashboards"]["metadata"]["labels"]
    assert labels["folder"] == "sms"
    assert labels["grafana_dashboard"] == "1"


@pytest.mark.parametrize(
    ("persistence", "volume"),
    [
        ({"existingClaim": "mine"}, {"persistentVolumeClaim": {"claimName": "mine"}}),
        ({"enabled": False}, {"emptyDir": {"sizeLimit": "64Mi"}}),
    ],
)
def test_the_volume_is_a_claim_of_ones_own_or_lasts_as_long_as_the_pod(
    persistence: Yaml, volume: Yaml
) -> None:
    made = rendered({"persistence": persistence, "networkPolicy": {"enabled": False}})
    assert not {"PersistentVolumeClaim", "NetworkPolicy"} & {kind for kind, _ in made}
    volumes = made["Deployment", RELEASE]["spec"]["template"]["spec"]["volumes"]
    assert {"name": "state", **volume} in volumes


@pytest.mark.parametrize("values", [{"task": [1]}, {"persistence": {"enable": False}}, {"tasks": 123}])
def test_values_that_there_are_not_are_refused(values: Yaml) -> None:
    done = helm("template", RELEASE, values=values)
    assert done.returncode != 0
    assert next(iter(values)) in done.stderr


def test_the_readme_explains_every_value_and_its_example_is_valid() -> None:
    values = yaml.safe_load((CHART / "values.yaml").read_text("utf-8"))
    assert set(re.findall(r"^\| `([\w.]+)` \|", README, re.MULTILINE)) == leaves(values)
    (example,) = re.findall(r"```yaml\n(.*?)```", README, re.DOTALL)
    kinds = {kind for kind, _ in rendered(yaml.safe_load(example))}
    assert {"ServiceMonitor", "PrometheusRule"} <= kinds


def test_the_chart_has_the_version_of_the_exporter() -> None:
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text("utf-8"))
    assert (chart["version"], chart["appVersion"]) == (__version__, __version__)


def test_links_of_the_readme_lead_somewhere() -> None:
    for target in re.findall(r"\]\(([^)]+)\)", README):
        assert (CHART / target).exists(), target


def test_a_packed_chart_needs_no_repository(tmp_path: Path) -> None:
    done = subprocess.run(
        [need("helm"), "package", str(CHART), "--destination", str(tmp_path)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    (packed,) = tmp_path.glob("*.tgz")
    made = subprocess.run(
        [need("helm"), "template", RELEASE, str(packed)], capture_output=True, text=True, check=False
    )
    assert made.returncode == 0, made.stderr
    assert "symbolic link" not in made.stderr
    assert made.stdout == helm("template", RELEASE).stdout
