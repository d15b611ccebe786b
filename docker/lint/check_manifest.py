"""Checks a Kubernetes manifest without a cluster: `python check_manifest.py MANIFEST`.

Kinds of Kubernetes itself are compared with its JSON schemas, strictly: a key that they do not know
is an error. There is no schema of a TFJob in a package. Its fields and their types come from the
client of the training operator, which is generated from the same Go types as the operator's own
definition; the pod that it describes is compared with the schema of a Pod.
"""

import sys

import kubernetes_validate
import yaml
from kubeflow.training import models

KUBERNETES = "1.33"
SCALARS = {"str": str, "int": int, "float": (int, float), "bool": bool, "object": object}


def problems(value, kind, path):
    """What does not fit a type of the client: a model of its, `list[…]` or `dict(str, …)`."""
    if kind.startswith("list["):
        if not isinstance(value, list):
            return [f"{path}: expected a list, received {value!r}"]
        items = [(f"{path}[{i}]", item) for i, item in enumerate(value)]
        return [line for where, item in items for line in problems(item, kind[5:-1], where)]
    if kind.startswith("dict("):
        if not isinstance(value, dict):
            return [f"{path}: expected a mapping, received {value!r}"]
        inner = kind[5:-1].split(", ", 1)[1]
        return [line for k, v in value.items() for line in problems(v, inner, f"{path}.{k}")]
    if kind in SCALARS:
        wrong = not isinstance(value, SCALARS[kind]) or (kind == "int" and isinstance(value, bool))
        return [f"{path}: expected {kind}, received {value!r}"] if wrong else []
    return _problems_of_model(value, kind, path)


def _problems_of_model(value, kind, path):
    model = getattr(models, kind, None)
    if model is None or path.endswith(".template") or path.endswith(".metadata"):
        return []  # a type of Kubernetes: checked with its schema
    if not isinstance(value, dict):
        return [f"{path}: expected a mapping, received {value!r}"]
    names = {key: attribute for attribute, key in model.attribute_map.items()}
    lines = [f"{path}: unknown key {key!r}" for key in value if key not in names]
    for key, inner in value.items():
        if key in names:
            lines += problems(inner, model.openapi_types[names[key]], f"{path}.{key}")
    return lines


def check(document):
    """All that is wrong with a document, a line each."""
    if document["kind"] != "TFJob":
        return list(_against_schema(document))
    lines = problems(document, "KubeflowOrgV1TFJob", "TFJob")
    for name, replicas in document["spec"]["tfReplicaSpecs"].items():
        template = replicas["template"]
        metadata = {"name": name.lower(), **template.get("metadata", {})}
        pod = {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": template["spec"]}
        lines += _against_schema(pod)
    return lines


def _against_schema(document):
    try:
        kubernetes_validate.validate(document, KUBERNETES, strict=True)
    except kubernetes_validate.ValidationError as error:
        yield f"{document['kind']}: {'.'.join(map(str, error.path))}: {error.message}"


def main(path):
    with open(path, encoding="utf-8") as file:
        documents = list(yaml.safe_load_all(file))
    lines = [line for document in documents for line in check(document)]
    print("\n".join(lines) or f"{path}: {len(documents)} documents, nothing wrong")
    return bool(lines)


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
