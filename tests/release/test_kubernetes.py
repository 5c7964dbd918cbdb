"""deploy/kubernetes against the schemas that Kubernetes publishes, by kubeconform.

The schemas come from the package kubernetes-validate, which has those of each version.
"""

import importlib.util
import json
import re
import subprocess
from pathlib import Path

import pytest

from tests.deploy.files import DEPLOY
from tests.release.tools import built

FILES = sorted((DEPLOY / "kubernetes").glob("*.yaml"))


def versions() -> list[Path]:
    """The oldest and the newest that there is; folders of schemas."""
    spec = importlib.util.find_spec("kubernetes_validate")
    if spec is None or not spec.submodule_search_locations:
        return []
    (package,) = map(Path, spec.submodule_search_locations)
    found = sorted(
        package.glob("kubernetes-json-schema/v*-local-strict"),
        key=lambda folder: [int(number) for number in re.findall(r"\d+", folder.name)],
    )
    return [found[0], found[-1]]


@pytest.fixture(scope="module", params=[0, -1], ids=["oldest", "newest"])
def schemas(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A version's schemas, which refer to each other by name only."""
    if not (found := versions()):
        pytest.skip("kubernetes-validate, which has the schemas, is not installed")
    source = found[request.param]
    folder = tmp_path_factory.mktemp("schemas")
    for path in source.glob("*.json"):
        schema = json.loads(
            path.read_text().replace('"/api/_definitions.json#', '"_definitions.json#')
        )
        schema.pop("$id", None)
        (folder / path.name).write_text(json.dumps(schema))
    return folder


def conform(schemas: Path, *paths: Path) -> "subprocess.CompletedProcess[str]":
    where = f"{schemas}/{{{{.ResourceKind}}}}{{{{.KindSuffix}}}}.json"
    command = [built()["kubeconform"], "-strict", "-summary", "-schema-location", where, *paths]
    return subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)


def test_kubeconform_has_nothing_against_them(schemas: Path) -> None:
    done = conform(schemas, *FILES)
    documents = sum(len(re.findall(r"(?m)^kind: ", path.read_text())) for path in FILES)
    assert done.returncode == 0, done.stdout
    assert f"Valid: {documents}, Invalid: 0, Errors: 0, Skipped: 0" in done.stdout


def test_mistakes_are_found(schemas: Path, tmp_path: Path) -> None:
    wrong = tmp_path / "mesh.yaml"
    text = (DEPLOY / "kubernetes/mesh.yaml").read_text()
    wrong.write_text(text.replace("clusterIP", "clusterIp").replace("replicas: 2", "replicas: two"))
    done = conform(schemas, wrong)
    assert done.returncode == 1
    assert "clusterIp" in done.stdout
    assert "/spec/replicas" in done.stdout
