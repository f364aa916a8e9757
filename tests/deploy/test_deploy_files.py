"""The files that put the server on a cluster: they fit the operator's schemas, and all that they name exists."""

from __future__ import annotations

import argparse
import ast
import copy
import importlib
import json
import re
import shlex
import shutil
import subprocess
import threading
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import yaml

from deploy.keys import add_key, new_key
from deploy.pin_images import main as pin_images
from deploy.settings import RequestLimits
from flowtts_core import __version__

ROOT = Path(__file__).resolve().parents[2]
DEPLOY, KUBERAY = ROOT / "deploy", ROOT / "deploy" / "kuberay"
ALERTS = KUBERAY / "monitoring" / "alerts.yaml"
RUNBOOK = (ROOT / "docs" / "serving.md").read_text(encoding="utf-8")
OVERLAYS = ("small", "gpu", "high-availability")
RAY_FILES = {"base/rayservice.yaml": "RayService", "raycluster.yaml": "RayCluster", "rayjob.yaml": "RayJob"}
FREE_MAPS = {
    "labels",
    "matchLabels",
    "annotations",
    "rayStartParams",
    "requests",
    "limits",
}  # any key is allowed in them
# Seen in the metrics of Ray 2.60.0 while it served the application.
RAY_METRICS = {
    "ray_node_cpu_utilization",
    "ray_node_mem_total",
    "ray_node_mem_used",
    "ray_serve_application_status",
    "ray_serve_autoscaling_target_replicas",
    "ray_serve_deployment_replica_healthy",
    "ray_serve_deployment_replica_starts_total",
    "ray_serve_http_request_latency_ms_bucket",
    "ray_serve_num_ongoing_http_requests",
    "ray_serve_proxy_status",
}


def documents(path: Path) -> list[dict[str, Any]]:
    return list(yaml.safe_load_all(path.read_text(encoding="utf-8")))


def manifest(name: str) -> dict[str, Any]:
    [document] = documents(KUBERAY / name)
    return dict(document)


def closed(schema: Any) -> Any:
    """A CRD's schema under which an unknown field fails, as the API server's strict validation has it."""
    if isinstance(schema, list):
        return [closed(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    new = {key: closed(value) for key, value in schema.items()}
    if isinstance(new.get("properties"), dict) and not new.get("x-kubernetes-preserve-unknown-fields"):
        new.setdefault("additionalProperties", False)
    return new


@pytest.fixture(scope="session")
def validators() -> dict[str, Any]:
    jsonschema = pytest.importorskip("jsonschema", reason="needs jsonschema")
    folder = ROOT.parent / "shared" / "kuberay"
    if not folder.exists():
        pytest.skip("needs shared/kuberay, the operator's schemas, beside the repository")
    return {
        kind: jsonschema.Draft202012Validator(closed(json.loads((folder / f"{kind}.v1.schema.json").read_text())))
        for kind in RAY_FILES.values()
    }


def misspellings(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The path of every key whose misspelling must be noticed."""
    if isinstance(value, list):
        for index, item in enumerate(value):
            yield from misspellings(item, (*path, index))
    elif isinstance(value, dict):
        for key, item in value.items():
            if not path or path[-1] not in FREE_MAPS:
                yield (*path, key)
            yield from misspellings(item, (*path, key))


def misspelt(value: Any, path: tuple[Any, ...]) -> Any:
    new = copy.deepcopy(value)
    inner = new
    for step in path[:-1]:
        inner = inner[step]
    inner[f"{path[-1]}x"] = inner.pop(path[-1])
    return new


@pytest.mark.parametrize("name", RAY_FILES)
def test_manifests_fit_the_operators_schema(validators: dict[str, Any], name: str) -> None:
    document = manifest(name)
    assert (document["apiVersion"], document["kind"]) == ("ray.io/v1", RAY_FILES[name])
    errors = [f"{list(e.absolute_path)}: {e.message}" for e in validators[RAY_FILES[name]].iter_errors(document)]
    assert errors == []


@pytest.mark.parametrize("name", RAY_FILES)
def test_every_misspelling_would_be_noticed(validators: dict[str, Any], name: str) -> None:
    spec = manifest(name)["spec"]
    validator = validators[RAY_FILES[name]]
    paths = list(misspellings(spec))
    assert len(paths) > 60
    validator = validator.evolve(schema=validator.schema["properties"]["spec"])
    unnoticed = [path for path in paths if validator.is_valid(misspelt(spec, path))]
    assert unnoticed == []


def dropped(config: Any, taken: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """The paths of what Serve did not take from a config: it ignores a name that it does not know."""
    if isinstance(config, list):
        return [p for i, (c, t) in enumerate(zip(config, taken, strict=True)) for p in dropped(c, t, (*path, i))]
    if not isinstance(config, dict):
        return []
    missing = [(*path, key) for key in config if key not in taken]
    return missing + [p for key in config if key in taken for p in dropped(config[key], taken[key], (*path, key))]


def test_serve_takes_all_of_its_config() -> None:
    from ray.serve.schema import ServeDeploySchema

    [config] = documents(DEPLOY / "serve.yaml")

    def taken(values: Any) -> Any:
        return ServeDeploySchema.model_validate(values).model_dump(exclude_unset=True)

    assert dropped(config, taken(config)) == []
    wrong = misspelt(config, ("http_options", "host"))
    assert dropped(wrong, taken(wrong)) == [("http_options", "hostx")]


def test_the_service_carries_the_same_config() -> None:
    assert (
        yaml.safe_load(manifest("base/rayservice.yaml")["spec"]["serveConfigV2"]) == documents(DEPLOY / "serve.yaml")[0]
    )


def test_the_application_is_built_from_the_config(tmp_path: Path) -> None:
    """As `serve deploy` builds it, which hands over what stands in the file."""
    from pydantic import ValidationError
    from ray.serve import Application
    from ray.serve._private.api import call_user_app_builder_with_args_if_necessary as built

    [config] = documents(DEPLOY / "serve.yaml")
    [app] = config["applications"]
    module, name = app["import_path"].split(":")
    deploy_app: Any = importlib.import_module(module)
    add_key(tmp_path / "keys.jsonl", new_key("test")[1])
    args = {**app["args"], "keys": str(tmp_path / "keys.jsonl")}
    assert isinstance(built(getattr(deploy_app, name), args), Application)
    assert app["name"] == deploy_app.NAME
    for key in args:
        with pytest.raises(ValidationError):
            built(deploy_app.build, misspelt(args, (key,)))


def pods(name: str) -> dict[str, tuple[dict[str, Any], dict[str, Any]]]:
    """The group and pod template of the head and each worker group of a manifest."""
    spec = manifest(name)["spec"]
    cluster = spec.get("rayClusterConfig") or spec.get("rayClusterSpec") or spec
    groups = [("head", cluster["headGroupSpec"]), *((g["groupName"], g) for g in cluster["workerGroupSpecs"])]
    return {label: (group, group["template"]) for label, group in groups}


ALL_PODS = [(name, label) for name in RAY_FILES for label in pods(name)]


@pytest.mark.parametrize(("name", "label"), ALL_PODS)
def test_pods_are_what_the_image_and_the_policies_expect(name: str, label: str) -> None:
    group, template = pods(name)[label]
    [container] = template["spec"]["containers"]
    security = {**template["spec"]["securityContext"], **container["securityContext"]}
    user, group_id = re.findall(r"^USER (\d+):(\d+)$", DOCKERFILE, re.M)[-1]
    assert (security["runAsUser"], security["runAsGroup"], security["runAsNonRoot"]) == (int(user), int(group_id), True)
    assert security["allowPrivilegeEscalation"] is False and security["readOnlyRootFilesystem"] is True
    assert security["capabilities"] == {"drop": ["ALL"]} and security["seccompProfile"] == {"type": "RuntimeDefault"}
    assert template["spec"]["automountServiceAccountToken"] is False
    device = "gpu" if "nvidia.com/gpu" in container["resources"]["limits"] else "cpu"
    image = container["image"].partition("@")[0].rpartition("/")[2]  # pinned or not
    assert image == f"flowtts-{device}:{__version__}"
    assert f"-t {image}" in DOCKERFILE
    assert container["resources"]["limits"]["memory"] == container["resources"]["requests"]["memory"]
    ports = {port["name"]: port["containerPort"] for port in container["ports"]}
    assert str(ports["metrics"]) == group["rayStartParams"]["metrics-export-port"]
    assert container["livenessProbe"]["httpGet"]["port"] in (*ports, *ports.values(), 52365)
    component = "head" if label == "head" else "server" if "rayservice" in name else "worker"
    assert template["metadata"]["labels"] == {"app": "flowtts", "app.kubernetes.io/component": component}
    mounts = {mount["name"]: mount["mountPath"] for mount in container["volumeMounts"]}
    home = re.findall(r"^WORKDIR (\S+)$", DOCKERFILE, re.M)[-1]
    assert {"/tmp", "/dev/shm", home} <= set(mounts.values()), "Ray and ONNX Runtime write there"
    volumes = {volume["name"]: volume for volume in template["spec"]["volumes"]}
    assert mounts.keys() == volumes.keys() - {"kubernetes"}
    assert ("kubernetes" in volumes) == (label == "head"), "the autoscaler's token"
    if label == "head":
        assert group["rayStartParams"]["num-cpus"] == "0", "nothing runs on the head, so that it stays alive"


@pytest.mark.parametrize("name", RAY_FILES)
def test_clusters_ask_for_the_token_and_have_our_ray(name: str) -> None:
    spec = manifest(name)["spec"]
    cluster = spec.get("rayClusterConfig") or spec.get("rayClusterSpec") or spec
    assert cluster["authOptions"] == {"mode": "token", "secretName": "flowtts-ray-token"}
    pinned = re.search(r"^ray==(.+)$", (ROOT / "constraints.txt").read_text(), re.M)
    assert pinned and cluster["rayVersion"] == pinned[1]
    assert cluster["enableInTreeAutoscaling"] is True
    for group in cluster["workerGroupSpecs"]:
        assert group["minReplicas"] <= group["replicas"] <= group["maxReplicas"]


@pytest.mark.parametrize("name", RAY_FILES)
def test_the_autoscaler_alone_has_a_token_of_kubernetes(name: str) -> None:
    spec = manifest(name)["spec"]
    cluster = spec.get("rayClusterConfig") or spec.get("rayClusterSpec") or spec
    options = cluster["autoscalerOptions"]
    assert options["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    mounts = {mount["name"]: mount["mountPath"] for mount in options["volumeMounts"]}
    assert mounts.pop("kubernetes") == "/var/run/secrets/kubernetes.io/serviceaccount"
    volumes = cluster["headGroupSpec"]["template"]["spec"]["volumes"]
    [token] = [volume["projected"]["sources"] for volume in volumes if volume["name"] == "kubernetes"]
    assert [next(iter(source)) for source in token] == ["serviceAccountToken", "configMap", "downwardAPI"]
    assert mounts.keys() <= {volume["name"] for volume in volumes}


@pytest.mark.parametrize("name", RAY_FILES)
def test_what_a_policy_checker_finds_has_reasons(name: str) -> None:
    """checkov reads no custom resources: it was given their pods (docs/serving.md)."""
    for _, template in pods(name).values():
        reasons = template["metadata"]["annotations"]
        assert all(re.fullmatch(r"CKV_K8S_\d+=\w.{10,}", value) for value in reasons.values()), reasons


def has_room(service: dict[str, Any]) -> None:
    """Processors of all workers at their most hold all speakers at their most, and at their least the least."""
    args = yaml.safe_load(service["spec"]["serveConfigV2"])["applications"][0]["args"]
    groups = {group["groupName"]: group for group in service["spec"]["rayClusterConfig"]["workerGroupSpecs"]}
    speakers = groups["gpu" if args.get("speaker_gpus") else "cpu"]
    limits = speakers["template"]["spec"]["containers"][0]["resources"]["limits"]
    fronts = args["fronts"] * args["front_cpus"] if speakers is groups["cpu"] else 0
    for replicas, workers in (("max_replicas", "maxReplicas"), ("min_replicas", "minReplicas")):
        assert args[replicas] * args["speaker_cpus"] + fronts <= speakers[workers] * float(limits["cpu"])
        if gpus := args.get("speaker_gpus"):
            assert args[replicas] * gpus <= speakers[workers] * float(limits["nvidia.com/gpu"])
    cpus = float(groups["cpu"]["template"]["spec"]["containers"][0]["resources"]["limits"]["cpu"])
    assert args["fronts"] * args["front_cpus"] <= groups["cpu"]["minReplicas"] * cpus


def test_the_service_has_room_for_its_replicas() -> None:
    has_room(manifest("base/rayservice.yaml"))


@pytest.fixture(scope="module")
def rendered() -> dict[str, list[dict[str, Any]]]:
    """What `kubectl apply -k` would apply, by the overlay."""
    kubectl = shutil.which("kubectl")
    if kubectl is None:
        pytest.skip("no kubectl: Debian's package kubernetes-client has it")
    version = subprocess.run([kubectl, "version", "--client", "--output", "json"], capture_output=True, text=True)
    kustomize = json.loads(version.stdout or "{}").get("kustomizeVersion", "")
    if not kustomize.startswith("v5"):
        pytest.skip(f"kubectl has kustomize {kustomize or 'before v4'}, the overlays need v5 (kubectl 1.27)")
    found = {}
    for name in OVERLAYS:
        done = subprocess.run([kubectl, "kustomize", str(KUBERAY / name)], capture_output=True, text=True)
        assert (done.returncode, done.stderr) == (0, ""), name
        found[name] = list(yaml.safe_load_all(done.stdout))
    return found


def of_kind(documents: list[dict[str, Any]], kind: str) -> dict[str, dict[str, Any]]:
    return {document["metadata"]["name"]: document for document in documents if document["kind"] == kind}


@pytest.mark.parametrize("name", OVERLAYS)
def test_overlays_are_whole(
    rendered: dict[str, list[dict[str, Any]]], validators: dict[str, Any], name: str, tmp_path: Path
) -> None:
    from ray.serve import Application
    from ray.serve.schema import ServeDeploySchema

    documents_of = rendered[name]
    assert {d["metadata"].get("namespace") for d in documents_of if d["kind"] != "Namespace"} == {"flowtts"}
    [service] = of_kind(documents_of, "RayService").values()
    assert [f"{list(e.absolute_path)}: {e.message}" for e in validators["RayService"].iter_errors(service)] == []
    has_room(service)
    config = yaml.safe_load(service["spec"]["serveConfigV2"])
    assert dropped(config, ServeDeploySchema.model_validate(config).model_dump(exclude_unset=True)) == []
    [base] = documents(DEPLOY / "serve.yaml")
    [app], [base_app] = config.pop("applications"), base.pop("applications")
    args, base_args = app.pop("args"), base_app.pop("args")
    assert (config, app) == (base, base_app), "an overlay changes the application's args alone"
    assert (args["keys"], args["voices"]) == (base_args["keys"], base_args["voices"])
    add_key(tmp_path / "keys.jsonl", new_key("test")[1])
    build: Any = importlib.import_module("deploy.app").build
    assert isinstance(build({**args, "keys": str(tmp_path / "keys.jsonl")}), Application)

    cluster = service["spec"]["rayClusterConfig"]
    redis = of_kind(documents_of, "StatefulSet")
    assert ("gcsFaultToleranceOptions" in cluster) == bool(redis) == (name != "small")
    budgets = of_kind(documents_of, "PodDisruptionBudget")
    workers = cluster["workerGroupSpecs"][0]
    for budget in budgets.values():
        assert 0 < budget["spec"]["minAvailable"] < workers["minReplicas"]
        assert budget["spec"]["selector"]["matchLabels"] == workers["template"]["metadata"]["labels"]
    assert bool(budgets) == (name != "small")
    head = cluster["headGroupSpec"]["template"]["spec"]
    assert cluster["enableInTreeAutoscaling"] == ("kubernetes" in {volume["name"] for volume in head["volumes"]})
    monitored = {kind for kind in ("PodMonitor", "PrometheusRule") if of_kind(documents_of, kind)}
    assert monitored == (set() if name == "small" else {"PodMonitor", "PrometheusRule"})


@pytest.mark.parametrize("name", OVERLAYS)
def test_overlays_refer_to_what_is_there(rendered: dict[str, list[dict[str, Any]]], name: str) -> None:
    documents_of = rendered[name]
    [service] = of_kind(documents_of, "RayService").values()
    cluster = service["spec"]["rayClusterConfig"]
    templates = [group["template"] for group in (cluster["headGroupSpec"], *cluster["workerGroupSpecs"])]
    templates += [redis["spec"]["template"] for redis in of_kind(documents_of, "StatefulSet").values()]
    labels = [template["metadata"]["labels"].items() for template in templates]
    ports = {p["name"] for t in templates for c in t["spec"]["containers"] for p in c["ports"]}
    policies = of_kind(documents_of, "NetworkPolicy")
    for policy in policies.values():
        chosen = policy["spec"]["podSelector"]["matchLabels"].items()
        jobs = ("app.kubernetes.io/component", "worker") in chosen
        assert jobs or any(chosen <= label for label in labels), policy["metadata"]["name"]
    for template in templates:  # nobody is reached, or reaches out, but as a policy says
        chosen_by = [
            policy["spec"]["policyTypes"]
            for policy in policies.values()
            if policy["spec"]["podSelector"]["matchLabels"].items() <= template["metadata"]["labels"].items()
        ]
        assert ["Ingress", "Egress"] in chosen_by
    for monitor in of_kind(documents_of, "PodMonitor").values():
        assert {endpoint["port"] for endpoint in monitor["spec"]["podMetricsEndpoints"]} <= ports
    [ingress] = of_kind(documents_of, "Ingress").values()
    [rule] = ingress["spec"]["rules"]
    [secured] = ingress["spec"]["tls"]
    backend = rule["http"]["paths"][0]["backend"]["service"]
    assert secured["hosts"] == [rule["host"]]
    assert backend == {"name": f"{service['metadata']['name']}-serve-svc", "port": {"number": 8000}}
    waits = {k.partition("/")[2]: v for k, v in ingress["metadata"]["annotations"].items()}
    assert int(waits["timeout-http-request"].rstrip("s")) <= 10
    assert int(waits["timeout-server"].rstrip("s")) > RequestLimits().answer_s
    assert int(waits["timeout-tunnel"].rstrip("s")) > RequestLimits().answer_s
    assert int(waits["proxy-body-size"].rstrip("m")) << 20 > RequestLimits().prompt_bytes * 4 / 3


def test_keys_are_mounted_where_the_config_looks() -> None:
    [app] = documents(DEPLOY / "serve.yaml")[0]["applications"]
    keys = Path(app["args"]["keys"])
    for _, template in pods("base/rayservice.yaml").values():
        mounts = {m["name"]: m for m in template["spec"]["containers"][0]["volumeMounts"]}
        assert mounts["keys"]["mountPath"] == str(keys.parent)
        assert mounts["keys"]["readOnly"] is True
    assert f"create secret generic flowtts-keys --from-file={keys.name}" in RUNBOOK


def test_every_secret_is_made_in_the_runbook() -> None:
    text = "".join(path.read_text(encoding="utf-8") for path in KUBERAY.rglob("*.yaml"))
    secrets = set(re.findall(r"(?:secretName: |secretKeyRef: \{ name: |secretRef: \{ name: )([\w-]+)", text))
    assert secrets == {"flowtts-ray-token", "flowtts-redis", "flowtts-keys", "flowtts-storage", "flowtts-tls"}
    for secret in secrets:
        kind = "tls" if secret == "flowtts-tls" else "generic"
        assert f"kubectl create secret {kind} {secret} " in RUNBOOK


def test_policies_and_redis_name_what_exists() -> None:
    policies = {
        document["metadata"]["name"]: document["spec"]
        for document in documents(KUBERAY / "base" / "network-policy.yaml")
    }
    service, redis = documents(KUBERAY / "base" / "redis.yaml")
    labels = redis["spec"]["template"]["metadata"]["labels"]
    assert service["spec"]["selector"] == labels == redis["spec"]["selector"]["matchLabels"]
    assert policies["flowtts-redis"]["podSelector"]["matchLabels"] == labels
    assert policies["flowtts"]["podSelector"]["matchLabels"] == {"app": "flowtts"}
    assert all("from" in rule for rule in policies["flowtts"]["ingress"]), "nothing is open to all"
    assert all(policy["policyTypes"][-1] == "Egress" for policy in policies.values())
    assert all("to" in rule for rule in policies["flowtts"]["egress"]), "what all pods may reach is named"
    known = {p["containerPort"] for n, lb in ALL_PODS for p in pods(n)[lb][1]["spec"]["containers"][0]["ports"]} | {
        52365
    }
    assert {p["port"] for rule in policies["flowtts"]["ingress"] for p in rule.get("ports", [])} <= known
    for name in ("base/rayservice.yaml", "raycluster.yaml"):
        spec = manifest(name)["spec"]
        options = spec.get("rayClusterConfig", spec)["gcsFaultToleranceOptions"]
        assert options["redisAddress"] == f"{service['metadata']['name']}:{service['spec']['ports'][0]['port']}"


def parsed(words: list[str]) -> argparse.Namespace:
    """What the command line makes of a command; SystemExit for an option that it does not have."""
    assert words[0] == "flowtts"
    parser = argparse.ArgumentParser()
    modules = {"serve": "deploy.serve", "synthesize": "jobs.synthesize"}
    importlib.import_module(modules[words[1]]).add_parser(parser.add_subparsers())
    return parser.parse_args(words[1:])


def test_the_job_is_a_command_of_ours() -> None:
    args = parsed(shlex.split(manifest("rayjob.yaml")["spec"]["entrypoint"]))
    assert args.address == "auto"
    with pytest.raises(SystemExit):
        parsed(["flowtts", "synthesize", "book.epub", "-o", "out", "--addresss", "auto"])


DOCKERFILE = (DEPLOY / "Dockerfile").read_text(encoding="utf-8")


def test_the_image_runs_a_command_of_ours_and_asks_for_its_health() -> None:
    from deploy.guard import OPEN_PATHS

    found = re.search(r"^CMD (\[.*\])$", DOCKERFILE, re.M)
    assert found
    args = parsed(json.loads(found[1]))
    assert args.keys is not None, "others can reach it, so there are keys"
    health = re.search(r"http://127\.0\.0\.1:(\d+)(/\w+) ", DOCKERFILE)
    assert health and (int(health[1]), health[2] in OPEN_PATHS) == (args.port, True)
    assert re.findall(r"^EXPOSE (\d+)$", DOCKERFILE, re.M) == [str(args.port)]
    assert documents(DEPLOY / "serve.yaml")[0]["http_options"]["port"] == args.port


def test_the_image_is_pinned_whole_and_small() -> None:
    """Every install is held by the constraints, every copied path exists and is let through, keys and voices are not."""
    installs = re.findall(r"pip install ([^\n]*)", DOCKERFILE)
    assert len(installs) == 3
    assert all("-c constraints.txt" in line or "constraints.txt)" in line for line in installs)
    copied = [name for line in re.findall(r"^COPY (?!--from)(.*) \S+$", DOCKERFILE, re.M) for name in line.split()]
    allowed = (DEPLOY / "Dockerfile.dockerignore").read_text(encoding="utf-8").splitlines()
    assert "**" in allowed
    for name in copied:
        assert (ROOT / name).exists(), name
        assert f"!{name}" in allowed, f"{name} is kept from the builder"
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    packages = {name.rstrip("*") for name in project["tool"]["setuptools"]["packages"]["find"]["include"]}
    assert packages <= set(copied)
    data = project["tool"]["setuptools"]["package-data"]
    assert any(Path("page/index.html").match(pattern) for pattern in data.get("deploy", [])), (
        "the page must be installed"
    )


@contextmanager
def registry(digests: dict[str, str]) -> Iterator[str]:
    """A registry on this machine that tells digests to who brings the token that anybody gets; gives HOST:PORT."""

    class Handler(BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            if self.headers["Authorization"] != "Bearer anybody":
                self.send_response(401)
                realm = f"http://{self.headers['Host']}/token"
                self.send_header("WWW-Authenticate", f'Bearer realm="{realm}",service="here",scope="pull"')
            elif (known := digests.get(self.path.replace("/manifests/", ":").removeprefix("/v2/"))) is None:
                self.send_response(404)
            else:
                self.send_response(200)
                self.send_header("Docker-Content-Digest", known)
            self.end_headers()

        def do_GET(self) -> None:
            assert self.path == "/token?service=here&scope=pull"
            self.send_response(200)
            self.end_headers()
            self.wfile.write(b'{"token": "anybody"}')

        def log_message(self, *_: Any) -> None: ...

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"127.0.0.1:{server.server_port}"
        server.shutdown()


def test_images_are_pinned_by_their_digests(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    cpu, gpu, base = (f"sha256:{digit * 64}" for digit in "abc")
    known = {f"speech/flowtts-cpu:{__version__}": cpu, f"speech/flowtts-gpu:{__version__}": gpu, "base:1": base}
    with registry(known) as here:
        (tmp_path / "kuberay").mkdir()
        job = tmp_path / "kuberay" / "rayjob.yaml"
        job.write_text((KUBERAY / "raycluster.yaml").read_text(encoding="utf-8"), encoding="utf-8")
        docker = tmp_path / "Dockerfile"
        docker.write_text(f"FROM {here}/base:1 AS build\nFROM {here}/base:1\n", encoding="utf-8")
        assert pin_images([], tmp_path) == 1  # ours are nowhere
        assert f"flowtts-cpu:{__version__}: not pinned" in capsys.readouterr().err
        assert docker.read_text() == f"FROM {here}/base:1@{base} AS build\nFROM {here}/base:1@{base}\n"
        assert pin_images([f"{here}/speech"], tmp_path) == 0
        assert set(re.findall(r"image: (\S+)", job.read_text())) == {
            f"{here}/speech/flowtts-cpu:{__version__}@{cpu}",
            f"{here}/speech/flowtts-gpu:{__version__}@{gpu}",
        }
        known[f"speech/flowtts-cpu:{__version__}"] = gpu  # pushed again
        assert pin_images([], tmp_path) == 0 and cpu not in job.read_text()
        before = job.read_text()
        del known[f"speech/flowtts-gpu:{__version__}"]
        assert pin_images([], tmp_path) == 1
        assert "answers 404" in capsys.readouterr().err
    assert pin_images([], tmp_path) == 1  # the registry is gone
    assert "cannot be reached" in capsys.readouterr().err and job.read_text() == before


def test_every_image_would_be_pinned() -> None:
    from deploy.pin_images import _NAMED

    named = [DEPLOY / "Dockerfile", *KUBERAY.rglob("*.yaml")]
    lines = [line for file in named for line in re.findall(r"(?m)^.*(?:image: |^FROM ).*$", file.read_text("utf-8"))]
    assert len(lines) >= 10
    assert [line for line in lines if not _NAMED.search(line)] == []


def own_metrics() -> dict[str, tuple[str, set[str]]]:
    """What deploy/metrics.py defines: the kind and tags of each, by its name."""
    found = {}
    for node in ast.walk(ast.parse((DEPLOY / "metrics.py").read_text(encoding="utf-8"))):
        if (
            isinstance(node, ast.Call)
            and isinstance(node.func, ast.Name)
            and node.func.id in ("Counter", "Gauge", "Histogram")
        ):
            name = ast.literal_eval(node.args[0])
            tags = [ast.literal_eval(a) for a in node.args[1:] if isinstance(a, ast.Tuple)]
            found[name] = (node.func.id, set(tags[0]) if tags else set())
    return found


def exported() -> dict[str, set[str]]:
    """The names as Prometheus sees them, with their labels."""
    suffixes = {"Counter": ("_total",), "Gauge": ("",), "Histogram": ("_bucket", "_count", "_sum")}
    return {f"ray_{n}{s}": tags for n, (kind, tags) in own_metrics().items() for s in suffixes[kind]}


def alerts() -> list[dict[str, Any]]:
    [rules] = documents(ALERTS)
    return [rule for group in rules["spec"]["groups"] for rule in group["rules"]]


def expressions() -> list[str]:
    dashboard = json.loads((DEPLOY / "grafana-dashboard.json").read_text(encoding="utf-8"))
    panels = [target["expr"] for panel in dashboard["panels"] for target in panel.get("targets", [])]
    return panels + [rule["expr"] for rule in alerts()]


@pytest.mark.parametrize("expression", expressions())
def test_every_metric_that_is_looked_at_exists(expression: str) -> None:
    names = set(re.findall(r"\bray_\w+", expression))
    ours = exported()
    assert names
    assert names <= ours.keys() | RAY_METRICS
    assert all(expression.count(a) == expression.count(b) for a, b in ("()", "{}", "[]"))
    for name, matchers in re.findall(r"\b(ray_flowtts_\w+)\{([^}]*)\}", expression):
        assert set(re.findall(r"(\w+)\s*[=!]", matchers)) <= ours[name]
    if len(names) == 1 and (tags := ours.get(next(iter(names)))) is not None:
        by = {label.strip() for group in re.findall(r"by \(([^)]*)\)", expression) for label in group.split(",")}
        assert by <= tags | {"le"}


def test_prometheus_reads_every_expression(tmp_path: Path) -> None:
    promtool = shutil.which("promtool")
    if promtool is None:
        pytest.skip("no promtool: Debian's package prometheus has it")
    looked_at = [
        {"record": f"looked_at:{n}", "expr": expression.replace("$__rate_interval", "1m")}
        for n, expression in enumerate(expressions())
    ]
    for name, groups in (
        ("alerts", documents(ALERTS)[0]["spec"]["groups"]),
        ("dashboard", [{"name": "dashboard", "rules": looked_at}]),
    ):
        file = tmp_path / f"{name}.yaml"
        file.write_text(yaml.safe_dump({"groups": groups}), encoding="utf-8")
        done = subprocess.run([promtool, "check", "rules", str(file)], capture_output=True, text=True)
        assert done.returncode == 0, done.stderr


def test_every_metric_of_ours_is_looked_at() -> None:
    assert len(own_metrics()) >= 8
    seen = " ".join(expressions())
    unseen = [name for name in own_metrics() if not re.search(rf"\bray_{name}(_total|_bucket|)\b", seen)]
    assert unseen == []


def test_the_dashboard_is_laid_out_without_overlap() -> None:
    dashboard = json.loads((DEPLOY / "grafana-dashboard.json").read_text(encoding="utf-8"))
    assert len({panel["id"] for panel in dashboard["panels"]}) == len(dashboard["panels"])
    cells = [
        (x, y)
        for place in (panel["gridPos"] for panel in dashboard["panels"])
        for x in range(place["x"], place["x"] + place["w"])
        for y in range(place["y"], place["y"] + place["h"])
    ]
    assert len(cells) == len(set(cells))
    assert max(x for x, _ in cells) < 24


def test_every_alert_is_explained() -> None:
    headings = re.findall(r"^#{2,4} (\w+)$", RUNBOOK, re.M)
    for rule in alerts():
        assert rule["labels"]["severity"] in ("page", "warn")
        assert rule["annotations"]["runbook"] == f"docs/serving.md#{rule['alert'].lower()}"
        assert rule["alert"] in headings, f"{rule['alert']} has no heading in the runbook"


def test_the_runbook_names_files_and_commands_that_exist() -> None:
    for name in re.findall(r"(?<![\w/.-])((?:deploy|docs|tests|flowtts_core)/[\w./-]+\.\w+)", RUNBOOK):
        assert (ROOT / name).exists(), name
    commands = re.findall(r"^(flowtts serve(?: [^\n#>]*)?)(?: > \S+)?$", RUNBOOK, re.M)
    assert len(commands) >= 3
    for command in commands:
        parsed(shlex.split(command))
