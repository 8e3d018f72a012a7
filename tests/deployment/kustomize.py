"""What `kubectl apply --kustomize` would send: as much of kustomize as our files use.

What they do not use raises, so that nothing here is passed over that kustomize would do.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

Manifest = dict[str, Any]

FILE = "kustomization.yaml"
_KNOWN = {
    "apiVersion",
    "kind",
    "namespace",
    "resources",
    "configMapGenerator",
    "generatorOptions",
    "images",
    "patches",
}
_OF_NO_NAMESPACE = {"Namespace"}


def render(folder: Path) -> list[Manifest]:
    """Return the folder's manifests. Raises ValueError where one is missing or left out."""
    said = yaml.safe_load((folder / FILE).read_text())
    if unknown := set(said) - _KNOWN:
        raise ValueError(f"{folder.name}: {', '.join(sorted(unknown))} is not rendered here.")
    named = {path for path in said.get("resources", []) if path.endswith(".yaml")}
    if named != (there := {path.name for path in folder.glob("*.yaml")} - {FILE}):
        raise ValueError(f"{folder.name}: named but not there, or the other way: {named ^ there}")
    manifests: list[Manifest] = []
    for path in said.get("resources", []):
        found = folder / path
        manifests += render(found) if found.is_dir() else _documents(found)
    manifests += _config_maps(folder, said)
    for patch in said.get("patches", []):
        _patch(manifests, patch)
    for manifest in manifests:
        if "namespace" in said and manifest["kind"] not in _OF_NO_NAMESPACE:
            manifest["metadata"]["namespace"] = said["namespace"]
        for container in containers(manifest):
            _rename(container, said.get("images", []))
    return manifests


def containers(manifest: Manifest) -> list[Manifest]:
    """Return the containers of what runs some, those that run first included."""
    pod = manifest.get("spec", {}).get("template", {}).get("spec", {})
    return [*pod.get("initContainers", []), *pod.get("containers", [])]


def _documents(path: Path) -> Iterator[Manifest]:
    yield from yaml.safe_load_all(path.read_text())


def _config_maps(folder: Path, said: Manifest) -> Iterator[Manifest]:
    generated = said.get("configMapGenerator", [])
    if generated and said.get("generatorOptions") != {"disableNameSuffixHash": True}:
        raise ValueError(f"{folder.name}: names with a hash are not rendered here.")
    for one in generated:
        yield {
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": {"name": one["name"]},
            "data": {name: (folder / name).read_text() for name in one["files"]},
        }


def _patch(manifests: list[Manifest], patch: Manifest) -> None:
    """Apply a JSON patch (RFC 6902) to the one manifest that it is for."""
    kind, name = patch["target"]["kind"], patch["target"]["name"]
    [target] = [it for it in manifests if (it["kind"], it["metadata"]["name"]) == (kind, name)]
    for step in yaml.safe_load(patch["patch"]):
        *way, last = step["path"].removeprefix("/").split("/")
        place: Any = target
        for part in way:
            place = place[int(part) if isinstance(place, list) else part]
        key = int(last) if isinstance(place, list) else last
        there = isinstance(place, list) or key in place
        if step["op"] not in {"add", "replace"} or (step["op"] == "add") == there:
            raise ValueError(f"{kind} {name}: {step} cannot be done.")
        place[key] = step["value"]


def _rename(container: Manifest, images: list[Manifest]) -> None:
    for image in images:
        if container["image"].partition(":")[0] == image["name"]:
            container["image"] = f"{image['newName']}:{image['newTag']}"
