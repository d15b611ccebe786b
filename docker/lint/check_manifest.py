"""Checks a Kubernetes manifest without a cluster: `python check_manifest.py MANIFEST…`.

Kinds of Kubernetes itself are compared with its JSON schemas, strictly: a key that they do not know
is an error. There is no schema of a TFJob or an InferenceService in a package. Their fields and
types come from the clients of the training operator and of KServe, which are generated from the
same Go types as the definitions in a cluster; the pod that they describe is compared with the
schema of a Pod.
"""

import sys

import kserve.models
import kubeflow.training.models
import kubernetes_validate
import yaml
from kubernetes.client import V1Container

KUBERNETES = "1.33"
# The model of a client that describes a kind.
MODELS = {
    "TFJob": (kubeflow.training.models, "KubeflowOrgV1TFJob"),
    "InferenceService": (kserve.models, "V1beta1InferenceService"),
}
SCALARS = {"str": str, "int": int, "float": (int, float), "bool": bool, "object": object}


def problems(value, kind, path, models):
    """What does not fit a type of a client: one of its models, `list[…]` or `dict(str, …)`."""
    if kind.startswith("list["):
        if not isinstance(value, list):
            return [f"{path}: expected a list, received {value!r}"]
        items = [(f"{path}[{i}]", item) for i, item in enumerate(value)]
        return [line for where, item in items for line in problems(item, kind[5:-1], where, models)]
    if kind.startswith("dict("):
        if not isinstance(value, dict):
            return [f"{path}: expected a mapping, received {value!r}"]
        inner = kind[5:-1].split(", ", 1)[1]
        items = [(f"{path}.{key}", item) for key, item in value.items()]
        return [line for where, item in items for line in problems(item, inner, where, models)]
    if kind in SCALARS:
        wrong = not isinstance(value, SCALARS[kind]) or (kind == "int" and isinstance(value, bool))
        return [f"{path}: expected {kind}, received {value!r}"] if wrong else []
    return _problems_of_model(value, kind, path, models)


def _problems_of_model(value, kind, path, models):
    model = getattr(models, kind, None)
    if model is None or path.endswith(".template") or path.endswith(".metadata"):
        return []  # a type of Kubernetes: checked with its schema
    if not isinstance(value, dict):
        return [f"{path}: expected a mapping, received {value!r}"]
    names = {key: attribute for attribute, key in model.attribute_map.items()}
    lines = [f"{path}: unknown key {key!r}" for key in value if key not in names]
    for key, inner in value.items():
        if key in names:
            lines += problems(inner, model.openapi_types[names[key]], f"{path}.{key}", models)
    return lines


def check(document):
    """All that is wrong with a document, a line each."""
    kind = document["kind"]
    if kind not in MODELS:
        return list(_against_schema(document))
    models, model = MODELS[kind]
    lines = problems(document, model, kind, models)
    for metadata, spec in (_pods_of_job if kind == "TFJob" else _pod_of_service)(document["spec"]):
        pod = {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec}
        lines += _against_schema(pod)
    return lines


def _pods_of_job(spec):
    for name, replicas in spec["tfReplicaSpecs"].items():
        template = replicas["template"]
        yield {"name": name.lower(), **template.get("metadata", {})}, template["spec"]


def _pod_of_service(spec):
    """What the predictor says of its pod, and the model of its container."""
    predictor, container = spec["predictor"], V1Container.attribute_map.values()
    keys = kserve.models.V1beta1PodSpec.attribute_map.values()
    pod = {key: value for key, value in predictor.items() if key in keys}
    model = {key: value for key, value in predictor["model"].items() if key in container}
    yield {"name": "predictor"}, {**pod, "containers": [{"name": "model", "image": "one", **model}]}


def _against_schema(document):
    try:
        kubernetes_validate.validate(document, KUBERNETES, strict=True)
    except kubernetes_validate.ValidationError as error:
        yield f"{document['kind']}: {'.'.join(map(str, error.path))}: {error.message}"


def main(*paths):
    wrong = False
    for path in paths:
        with open(path, encoding="utf-8") as file:
            documents = list(yaml.safe_load_all(file))
        lines = [line for document in documents for line in check(document)]
        print("\n".join(lines) or f"{path}: {len(documents)} documents, nothing wrong")
        wrong = wrong or bool(lines)
    return wrong


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
