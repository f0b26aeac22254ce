"""Cluster, RayJob and settings: against the schema that Ray ships, the documented fields, and the command itself."""

from __future__ import annotations

import copy
import json
import re
import shlex
import tomllib
from pathlib import Path
from typing import Any

import click
import pytest
from rayjob_fields import faults
from test_images import DEPLOY, locked

from pilc_stream import __version__
from pilc_stream.cli.compress import compress
from workers.settings import JobSettings

yaml = pytest.importorskip("yaml")


@pytest.fixture
def cluster() -> dict[str, Any]:
    loaded: dict[str, Any] = yaml.safe_load((DEPLOY / "cluster.yaml").read_text())
    return loaded


@pytest.fixture
def rayjob() -> tuple[dict[str, Any], dict[str, Any]]:
    """The ConfigMap and the RayJob."""
    config, job = yaml.safe_load_all((DEPLOY / "rayjob.yaml").read_text())
    return config, job


def settings_of(path: Path) -> JobSettings:
    """What the command makes of a settings file."""
    given = compress.make_context("compress", ["--settings", str(path)]).params
    given = {name: value for name, value in given.items() if name not in ("failed_ok", "dry_run", "as_json")}
    return JobSettings(**{**given, "max_pixels": given["max_pixels"] or 1, "max_streamed_pixels": 0})


def test_the_cluster_is_as_ray_wants_it(cluster: dict[str, Any]) -> None:
    pytest.importorskip("ray")
    from jsonschema import ValidationError
    from ray.autoscaler._private.util import prepare_config, validate_config

    validate_config(prepare_config(copy.deepcopy(cluster)))
    with pytest.raises(ValidationError, match="upscaling_sped"):
        validate_config(prepare_config({**copy.deepcopy(cluster), "upscaling_sped": 1.0}))


def test_the_cluster_starts_small_and_has_both_kinds_of_cards(cluster: dict[str, Any]) -> None:
    types = cluster["available_node_types"]
    head = types[cluster["head_node_type"]]
    assert head["resources"] == {"CPU": 0}, "the head codes nothing"
    assert "--num-cpus=0" in " ".join(cluster["head_start_ray_commands"])
    workers = {name: kind for name, kind in types.items() if name != cluster["head_node_type"]}
    assert {kind["resources"]["GPU"] for kind in workers.values()} == {1}
    assert all(kind["min_workers"] == 0 for kind in workers.values())
    assert all(kind["max_workers"] <= cluster["max_workers"] for kind in workers.values())
    assert workers["v100"]["docker"]["worker_image"].endswith("-cuda12")
    assert cluster["docker"]["image"].endswith("-cuda13")


def test_the_settings_make_a_job_that_the_cluster_can_run(cluster: dict[str, Any]) -> None:
    settings = settings_of(DEPLOY / "job.toml")
    gpu = cluster["available_node_types"]["gpu"]
    assert settings.device == "cuda"
    assert settings.storage_options == {"client_kwargs": {"region_name": cluster["provider"]["region"]}}
    assert settings.threads is not None
    assert settings.threads <= gpu["resources"]["CPU"]
    assert settings.gpus_per_worker == gpu["resources"]["GPU"]
    assert settings.workers is not None
    assert settings.workers <= gpu["max_workers"]


def test_the_rayjob_has_documented_fields_only(rayjob: tuple[dict[str, Any], dict[str, Any]]) -> None:
    config, job = rayjob
    assert (config["apiVersion"], config["kind"]) == ("v1", "ConfigMap")
    assert (job["apiVersion"], job["kind"]) == ("ray.io/v1", "RayJob")
    assert set(job) == {"apiVersion", "kind", "metadata", "spec"}
    assert list(faults("ObjectMeta", job["metadata"], "metadata")) == []
    assert list(faults("RayJobSpec", job["spec"], "spec")) == []


@pytest.mark.parametrize(
    ("change", "found"),
    [
        ({"entrypont": "pilc"}, "spec.entrypont: a RayJobSpec has no such field"),
        ({"backoffLimit": "3"}, "spec.backoffLimit: '3' is no int"),
        ({"backoffLimit": True}, "spec.backoffLimit: True is no int"),
        ({"rayClusterSpec": {}}, "spec.rayClusterSpec.headGroupSpec: missing"),
        ({"metadata": {"a": 1}}, "spec.metadata.a: 1 is no text"),
    ],
)
def test_a_wrong_field_is_found(
    rayjob: tuple[dict[str, Any], dict[str, Any]], change: dict[str, Any], found: str
) -> None:
    assert list(faults("RayJobSpec", {**rayjob[1]["spec"], **change}, "spec")) == [found]


def test_the_rayjob_runs_the_settings_of_its_config_map(
    rayjob: tuple[dict[str, Any], dict[str, Any]], tmp_path: Path
) -> None:
    config, job = rayjob
    (tmp_path / "job.toml").write_text(config["data"]["job.toml"])
    settings = settings_of(tmp_path / "job.toml")
    spec = job["spec"]["rayClusterSpec"]
    head = spec["headGroupSpec"]["template"]["spec"]
    [workers] = spec["workerGroupSpecs"]
    [worker] = workers["template"]["spec"]["containers"]

    [mount] = head["containers"][0]["volumeMounts"]
    [volume] = head["volumes"]
    assert mount["name"] == volume["name"]
    assert volume["configMap"]["name"] == config["metadata"]["name"]
    words = shlex.split(job["spec"]["entrypoint"])
    assert words[words.index("--settings") + 1] == f"{mount['mountPath']}/job.toml"
    assert settings.workers is not None
    assert workers["minReplicas"] <= workers["replicas"] <= settings.workers <= workers["maxReplicas"]
    assert settings.threads is not None
    assert settings.threads <= int(worker["resources"]["requests"]["cpu"])
    assert settings.gpus_per_worker == int(worker["resources"]["limits"]["nvidia.com/gpu"])
    assert worker["resources"]["requests"] == worker["resources"]["limits"]
    # A retried job must resume, and one with broken files must not be retried.
    assert settings.on_existing == "resume"
    assert tomllib.loads(config["data"]["job.toml"])["failed-ok"] is True
    for pod in (head, workers["template"]["spec"]):
        assert pod["securityContext"] == {"runAsNonRoot": True, "runAsUser": 1000}


def test_releases_agree(cluster: dict[str, Any], rayjob: tuple[dict[str, Any], dict[str, Any]]) -> None:
    release = __version__.rpartition(".")[0]
    text = "".join((DEPLOY / name).read_text() for name in ("cluster.yaml", "rayjob.yaml", "README.md"))
    images = set(re.findall(r"pilc-stream:(\S+?)-cuda1[23]", text))
    assert images == {release}
    assert {str(locked(image)["ray"]) for image in ("cuda12", "cuda13")} == {
        rayjob[1]["spec"]["rayClusterSpec"]["rayVersion"]
    }


def test_the_page_names_every_file_and_its_commands_are_known() -> None:
    page = (DEPLOY / "README.md").read_text()
    files = {path.name for path in DEPLOY.iterdir() if path.is_file()} - {"README.md"}
    assert files == set(re.findall(r"\]\(([^)]+)\)", page))
    from pilc_stream.cli import cli

    for block in re.findall(r"```\n(.*?)```", page, flags=re.DOTALL):
        for name, rest in re.findall(r"\bpilc ([a-z]+)([^\n]*)", block):
            flags = {flag for each in cli.commands[name].params for flag in each.opts}
            assert set(re.findall(r"--[a-z-]+", rest)) <= flags, (name, rest)


def test_the_policy_is_json_with_known_actions_alone() -> None:
    policy = json.loads((DEPLOY / "s3-policy.json").read_text())
    actions = {action for statement in policy["Statement"] for action in statement["Action"]}
    assert not any("*" in action for action in actions)
    assert all(statement["Effect"] != "Deny" for statement in policy["Statement"])


def test_a_settings_file_with_an_error_does_not_pass(tmp_path: Path) -> None:
    (tmp_path / "job.toml").write_text((DEPLOY / "job.toml").read_text().replace("workers", "wrkers"))
    with pytest.raises(click.BadParameter, match="wrkers"):
        settings_of(tmp_path / "job.toml")
