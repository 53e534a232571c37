"""Deployment files: valid by their own schemas, and in agreement with the program that they start."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from dataclasses import fields
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

import diffusion_core
from diffusion_core.cli.serve import merge_config, read_config_file
from diffusion_core.config import EngineConfig, ServerConfig, from_environment

DEPLOY = Path(diffusion_core.__file__).parent / "deploy"
ROOT = DEPLOY.parents[1]
DOCKERFILES = (DEPLOY / "docker" / "Dockerfile", DEPLOY / "docker" / "Dockerfile.cuda")
# The oldest release that its makers still support, and the newest that the schemas know.
KUBERNETES = ("1.32.0", kubernetes_validate.latest_version())


def run(*command: object) -> str:
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def tool(name: str) -> Path:
    """A program of this environment."""
    return Path(sys.executable).with_name(name)


def compose() -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load((DEPLOY / "docker" / "compose.yaml").read_text())
    return found


def manifests() -> dict[str, Any]:
    documents = yaml.safe_load_all((DEPLOY / "kubernetes" / "cpu" / "unmask.yaml").read_text())
    return {document["kind"]: document for document in documents}


def test_dockerfiles_pass_their_linter() -> None:
    run(tool("hadolint"), *DOCKERFILES)


@pytest.mark.parametrize("dockerfile", DOCKERFILES, ids=lambda path: path.name)
def test_an_image_holds_what_it_needs_and_runs_without_privileges(dockerfile: Path) -> None:
    text = dockerfile.read_text()
    pinned = re.search(r"^torch==(\S+)", (ROOT / "constraints.txt").read_text(), re.MULTILINE)
    assert pinned
    assert f"TORCH_VERSION={pinned[1]}\n" in text
    for copied in re.findall(r"^COPY ([^-].*) \S+$", text, re.MULTILINE):
        assert all((ROOT / name).exists() for name in copied.split()), copied
        ignored = dockerfile.with_name(f"{dockerfile.name}.dockerignore").read_text().splitlines()
        assert all(f"!{name}" in ignored for name in copied.split()), copied
    assert re.search(r"^USER 10001:10001$", text, re.MULTILINE)
    assert "/readyz" in text
    assert 'ENTRYPOINT ["unmask"]' in text


def test_the_compose_file_is_valid() -> None:
    run(tool("check-jsonschema"), "--builtin-schema", "vendor.compose-spec", DEPLOY / "docker" / "compose.yaml")
    found = compose()
    for name, service in found["services"].items():
        for source in sources(service):
            assert source.startswith("..") or source in found["volumes"] or (DEPLOY / "docker" / source).exists()
        for mapping in service.get("ports", []):
            assert mapping.startswith("127.0.0.1:"), f"{name} listens for everybody"
        assert name == "engine" or ":" in service["image"]
    asked = set(re.findall(r"\$\{(\w+)", (DEPLOY / "docker" / "compose.yaml").read_text()))
    asked.add(found["secrets"]["metrics_token"]["environment"])
    given = set(re.findall(r"^(\w+)=", (DEPLOY / "docker" / "example.env").read_text(), re.MULTILINE))
    assert asked == given


def test_a_read_only_service_has_secrets_from_files_only() -> None:
    """Compose mounts a file, but copies what comes from a variable into the container: it refuses where it cannot."""
    found = compose()
    read_only = {name: each for name, each in found["services"].items() if each.get("read_only")}
    assert read_only
    for name, service in read_only.items():
        for secret in service.get("secrets", []):
            source = secret if isinstance(secret, str) else secret["source"]
            assert "file" in found["secrets"][source], f"{name}: {source}"


def test_the_engine_of_the_compose_file_starts_with_nothing_but_secrets_chosen(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, text in compose()["services"]["engine"]["environment"].items():
        # Those with a default stay empty, those without one are asked for.
        monkeypatch.setenv(name, re.sub(r"\$\{\w+:-\}", "", re.sub(r"\$\{\w+:\?[^}]*\}", "chosen" * 6, text)))
    config = from_environment(ServerConfig, "server")
    assert (config.users, config.metrics_token, config.metrics_token_file) == ("database", "chosen" * 6, "")
    assert config.trusted_proxies == config.allowed_hosts == ()
    monkeypatch.setenv("UNMASK_SERVER_TRUSTED_PROXIES", "172.16.0.0/12,10.0.0.7")
    assert from_environment(ServerConfig, "server").trusted_proxies == ("172.16.0.0/12", "10.0.0.7")


def sources(service: dict[str, Any]) -> list[str]:
    return [volume.split(":")[0] for volume in service.get("volumes", [])]


def test_what_the_compose_file_mounts_of_others_is_there() -> None:
    for service in compose()["services"].values():
        for source in sources(service):
            assert not source.startswith("..") or (DEPLOY / "docker" / source).exists(), source


def test_variables_are_settings() -> None:
    files = [*DOCKERFILES, DEPLOY / "docker" / "compose.yaml", DEPLOY / "systemd" / "unmask.service"]
    for file in files:
        for section, name in re.findall(r"\bUNMASK_(SERVER|ENGINE)_([A-Z_]+)\b", file.read_text()):
            cls = ServerConfig if section == "SERVER" else EngineConfig
            assert name.lower() in {field.name for field in fields(cls)}, f"{file.name}: {section}_{name}"


@pytest.mark.parametrize("version", KUBERNETES)
def test_manifests_are_valid(version: str) -> None:
    for document in manifests().values():
        kubernetes_validate.validate(document, version, strict=True)


@pytest.mark.skipif(shutil.which("kubectl") is None, reason="kubectl is not installed")
@pytest.mark.parametrize("kind", ["cpu", "gpu"])
def test_overlays_render_to_valid_manifests(kind: str) -> None:
    documents = list(yaml.safe_load_all(run("kubectl", "kustomize", DEPLOY / "kubernetes" / kind)))
    assert ("HorizontalPodAutoscaler" in {each["kind"] for each in documents}) == (kind == "cpu")
    for document in documents:
        kubernetes_validate.validate(document, KUBERNETES[0], strict=True)


def test_manifests_agree_with_the_server(tmp_path: Path) -> None:
    found = manifests()
    path = tmp_path / "unmask.toml"
    path.write_text(found["ConfigMap"]["data"]["unmask.toml"])
    tables = read_config_file(path)
    server = merge_config(ServerConfig, "server", tables)
    pod = found["Deployment"]["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    wait_s = int(container["lifecycle"]["preStop"]["exec"]["command"][1])
    assert pod["terminationGracePeriodSeconds"] > wait_s + server.drain_s
    assert merge_config(EngineConfig, "engine", tables).model == pod["initContainers"][0]["args"][1]
    assert container["ports"][0]["containerPort"] == server.port == found["Service"]["spec"]["ports"][0]["port"]
    probes = {name: container[f"{name}Probe"]["httpGet"]["path"] for name in ("startup", "readiness", "liveness")}
    # A server that loads for long must not be killed for it: readiness alone waits for the model.
    assert probes == {"startup": "/livez", "readiness": "/readyz", "liveness": "/livez"}
    mounts = {mount["name"] for mount in container["volumeMounts"]}
    assert mounts == {volume["name"] for volume in pod["volumes"]}


def test_replicas_on_ray_can_write_where_models_are() -> None:
    """The first load of a GGUF file leaves a lock and what it was converted to in the cache folder."""
    service = yaml.safe_load((DEPLOY / "kubernetes" / "ray-service.yaml").read_text())
    cluster = service["spec"]["rayClusterConfig"]
    for group in (cluster["headGroupSpec"], *cluster["workerGroupSpecs"]):
        pod = group["template"]["spec"]
        assert pod["securityContext"]["fsGroup"]
        (volume,) = (each for each in pod["volumes"] if each["name"] == "models")
        mounts = [mount for each in pod["containers"] for mount in each["volumeMounts"] if mount["name"] == "models"]
        assert mounts and not any(each.get("readOnly") for each in (volume["persistentVolumeClaim"], *mounts))


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd is not installed")
def test_the_systemd_unit_is_valid_and_hardened(tmp_path: Path) -> None:
    unit = (DEPLOY / "systemd" / "unmask.service").read_text()
    # The verifier looks whether the program is there.
    path = tmp_path / "unmask.service"
    path.write_text(unit.replace("/opt/unmask/bin/unmask", "/bin/true"))
    assert run("systemd-analyze", "verify", "--man=no", path) == ""
    score = re.search(r"exposure level for unmask.service: (\d+\.\d)", run(
        "systemd-analyze", "security", "--offline=true", path
    ))  # fmt: skip
    assert score
    assert float(score[1]) <= 2.0
    stop_s = re.search(r"^TimeoutStopSec=(\d+)s$", unit, re.MULTILINE)
    assert stop_s
    assert int(stop_s[1]) > ServerConfig().drain_s
