"""`make pin-images`: write into the Dockerfile and the manifests which image each tag is now, by its digest.

A tag may come to mean another image, a digest never does. Tags are looked up at their registries without logging in; what cannot
be looked up is named and left as it is. With `REGISTRY=registry.example.com/speech` our own images get that before their names.
"""

from __future__ import annotations

import json
import re
import sys
import urllib.error
import urllib.request
from pathlib import Path
from urllib.parse import urlencode

DEPLOY = Path(__file__).parent
OWN = ("flowtts-cpu", "flowtts-gpu")
MANIFESTS = (
    "application/vnd.oci.image.index.v1+json",
    "application/vnd.docker.distribution.manifest.list.v2+json",
    "application/vnd.oci.image.manifest.v1+json",
    "application/vnd.docker.distribution.manifest.v2+json",
)
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
# `image: NAME:TAG@DIGEST` of manifests and `FROM NAME:TAG@DIGEST` of the Dockerfile; the digest may be missing
_NAMED = re.compile(r"(?m)^(\s*(?:- )?image: |FROM )([^\s@]+):([\w.-]+)(@sha256:[0-9a-f]{64})?(?= AS |$)")


class Unknown(Exception):
    """Why an image was not found."""


def main(argv: list[str] | None = None, folder: Path = DEPLOY) -> int:
    """Pin the images of all files below `folder`; 1 where one is missing."""
    given = sys.argv[1:] if argv is None else argv
    own = given[0].rstrip("/") if given and given[0] else ""
    files = [folder / "Dockerfile", *sorted((folder / "kuberay").rglob("*.yaml"))]
    found: dict[str, str | None] = {}
    for file in files:
        text = file.read_text(encoding="utf-8")
        pinned = _NAMED.sub(lambda match: _pinned(match, own, found), text)
        if pinned != text:
            file.write_text(pinned, encoding="utf-8")
            print(f"wrote {file}")
    return 1 if None in found.values() else 0


def _pinned(match: re.Match[str], own: str, found: dict[str, str | None]) -> str:
    before, name, tag = match[1], match[2], match[3]
    ours = name.rpartition("/")[2] in OWN
    if ours and own:
        name = f"{own}/{name.rpartition('/')[2]}"
    image = f"{name}:{tag}"
    if image not in found:
        try:
            if ours and "/" not in name:  # a stranger's image of that name must not be taken for ours
                raise Unknown("push it, then give REGISTRY=, for example registry.example.com/speech")
            found[image] = digest(name, tag)
            print(f"{image}: {found[image]}")
        except Unknown as error:
            found[image] = None
            print(f"{image}: not pinned: {error}", file=sys.stderr)
    return match[0] if found[image] is None else f"{before}{image}@{found[image]}"


def digest(name: str, tag: str) -> str:
    """The digest of a tag.

    Raises:
        Unknown: where the registry cannot be reached, has no such tag, or wants a login.
    """
    host, repository = _place(name)
    scheme = "http" if host.partition(":")[0] in ("localhost", "127.0.0.1") else "https"
    request = urllib.request.Request(f"{scheme}://{host}/v2/{repository}/manifests/{tag}", method="HEAD")
    request.add_header("Accept", ", ".join(MANIFESTS))
    try:
        try:
            answer = urllib.request.urlopen(request, timeout=20)
        except urllib.error.HTTPError as error:
            if error.code != 401:
                raise
            request.add_header("Authorization", f"Bearer {_token(error.headers.get('WWW-Authenticate', ''))}")
            answer = urllib.request.urlopen(request, timeout=20)
        with answer:
            told = answer.headers.get("Docker-Content-Digest", "")
    except urllib.error.HTTPError as error:
        if error.code in (401, 403):
            raise Unknown(f"{host} wants a login: write the digest that `docker push` printed after the tag") from None
        raise Unknown(f"{host} answers {error.code} {error.reason}") from None
    except (OSError, ValueError) as error:
        raise Unknown(f"the registry {host} cannot be reached ({error})") from None
    if not _DIGEST.fullmatch(told):
        raise Unknown(f"{host} tells no digest")
    return told


def _place(name: str) -> tuple[str, str]:
    """Registry and repository of an image's name; without a registry it is Docker Hub's."""
    first, slash, rest = name.partition("/")
    if slash and ("." in first or ":" in first or first == "localhost"):
        return first, rest
    return "registry-1.docker.io", name if slash else f"library/{name}"


def _token(challenge: str) -> str:
    """An anonymous token, as a registry's challenge asks for it."""
    asked = dict(re.findall(r'(\w+)="([^"]*)"', challenge))
    if "realm" not in asked:
        raise ValueError("it asks for a login that is not known here")
    wanted = urlencode({key: value for key, value in asked.items() if key in ("service", "scope")})
    with urllib.request.urlopen(f"{asked['realm']}?{wanted}", timeout=20) as answer:
        values = json.load(answer)
    return str(values.get("token") or values["access_token"])


if __name__ == "__main__":
    sys.exit(main())
