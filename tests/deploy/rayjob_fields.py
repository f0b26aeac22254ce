"""The fields of a RayJob that KubeRay and Kubernetes document, for the kinds of objects that ours has.

KubeRay's are those of its API reference (ray.io/v1), Kubernetes' those of its API reference, core/v1. A field is a type
of JSON, a kind of this page, a list of a kind `[kind]`, or a map to texts or quantities.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

TEXTS, QUANTITIES = "texts", "quantities"

KINDS: dict[str, dict[str, Any]] = {
    "RayJobSpec": {
        "activeDeadlineSeconds": int,
        "backoffLimit": int,
        "clusterSelector": TEXTS,
        "entrypoint": str,
        "entrypointNumCpus": float,
        "entrypointNumGpus": float,
        "entrypointResources": str,
        "jobId": str,
        "managedBy": str,
        "metadata": TEXTS,
        "rayClusterSpec": "RayClusterSpec",
        "runtimeEnvYAML": str,
        "shutdownAfterJobFinishes": bool,
        "submissionMode": str,
        "suspend": bool,
        "ttlSecondsAfterFinished": int,
    },
    "RayClusterSpec": {
        "authOptions": "AuthOptions",
        "autoscalerOptions": "AutoscalerOptions",
        "enableInTreeAutoscaling": bool,
        "headGroupSpec": "HeadGroupSpec",
        "headServiceAnnotations": TEXTS,
        "managedBy": str,
        "rayVersion": str,
        "suspend": bool,
        "workerGroupSpecs": ["WorkerGroupSpec"],
    },
    "AuthOptions": {"mode": {"disabled", "token"}, "secretName": str},
    "AutoscalerOptions": {
        "idleTimeoutSeconds": int,
        "image": str,
        "imagePullPolicy": str,
        "upscalingMode": {"Default", "Aggressive", "Conservative"},
        "version": {"v1", "v2"},
    },
    "HeadGroupSpec": {
        "enableIngress": bool,
        "rayStartParams": TEXTS,
        "serviceType": str,
        "template": "PodTemplateSpec",
    },
    "WorkerGroupSpec": {
        "groupName": str,
        "idleTimeoutSeconds": int,
        "maxReplicas": int,
        "minReplicas": int,
        "numOfHosts": int,
        "rayStartParams": TEXTS,
        "replicas": int,
        "suspend": bool,
        "template": "PodTemplateSpec",
    },
    "PodTemplateSpec": {"metadata": "ObjectMeta", "spec": "PodSpec"},
    "ObjectMeta": {"annotations": TEXTS, "labels": TEXTS, "name": str, "namespace": str},
    "PodSpec": {
        "containers": ["Container"],
        "nodeSelector": TEXTS,
        "securityContext": "PodSecurityContext",
        "serviceAccountName": str,
        "terminationGracePeriodSeconds": int,
        "tolerations": ["Toleration"],
        "volumes": ["Volume"],
    },
    "PodSecurityContext": {"fsGroup": int, "runAsGroup": int, "runAsNonRoot": bool, "runAsUser": int},
    "Container": {
        "args": [str],
        "command": [str],
        "image": str,
        "imagePullPolicy": str,
        "name": str,
        "ports": ["ContainerPort"],
        "resources": "ResourceRequirements",
        "volumeMounts": ["VolumeMount"],
    },
    "ContainerPort": {"containerPort": int, "name": str, "protocol": str},
    "ResourceRequirements": {"limits": QUANTITIES, "requests": QUANTITIES},
    "VolumeMount": {"mountPath": str, "name": str, "readOnly": bool, "subPath": str},
    "Volume": {"configMap": "ConfigMapVolumeSource", "name": str},
    "ConfigMapVolumeSource": {"defaultMode": int, "name": str, "optional": bool},
    "Toleration": {"effect": str, "key": str, "operator": str, "tolerationSeconds": int, "value": str},
}

REQUIRED = {
    "RayClusterSpec": ("headGroupSpec",),
    "HeadGroupSpec": ("template",),
    "WorkerGroupSpec": ("groupName", "maxReplicas", "minReplicas", "template"),
    "PodSpec": ("containers",),
    "Container": ("name",),
    "ContainerPort": ("containerPort",),
    "VolumeMount": ("mountPath", "name"),
    "Volume": ("name",),
}


def faults(kind: Any, value: Any, place: str) -> Iterator[str]:
    """What of `value` is not as documented for its kind, as sentences."""
    if isinstance(kind, list):
        if not isinstance(value, list):
            yield f"{place}: a list is wanted"
            return
        for index, each in enumerate(value):
            yield from faults(kind[0], each, f"{place}[{index}]")
    elif isinstance(kind, set):
        if value not in kind:
            yield f"{place}: {value!r} is none of {sorted(kind)}"
    elif isinstance(kind, type):
        if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
            yield f"{place}: {value!r} is no {kind.__name__}"
    elif not isinstance(value, dict):
        yield f"{place}: an object is wanted"
    elif kind in (TEXTS, QUANTITIES):
        yield from (f"{place}.{name}: {each!r} is no text" for name, each in value.items() if not isinstance(each, str))
    else:
        yield from (f"{place}.{name}: missing" for name in REQUIRED.get(kind, ()) if name not in value)
        for name, each in value.items():
            if name in KINDS[kind]:
                yield from faults(KINDS[kind][name], each, f"{place}.{name}")
            else:
                yield f"{place}.{name}: a {kind} has no such field"
