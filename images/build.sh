#!/usr/bin/env bash
# Builds the container images. Arguments: which ones (runtime operator redis); runtime and operator if none is given.
#
#   BUILDER   docker, podman or buildah; the first one that is usable if unset
#   PREFIX    what comes before the names, for example registry.example.com/team/ (default: nothing)
#   TAG       tag of the images (default: dev)
#   BASE      base image (default: the Dockerfile's; one made from Debian packages where that cannot be pulled)
set -euo pipefail
cd "$(dirname "$0")/.."

prefix=${PREFIX:-}
tag=${TAG:-dev}
images=("$@")
[ $# -gt 0 ] || images=(runtime operator)

usable() {
  case $1 in
    docker) command -v docker >/dev/null && docker info >/dev/null 2>&1 ;;
    *) command -v "$1" >/dev/null ;;
  esac
}

builder=${BUILDER:-}
if [ -z "$builder" ]; then
  for candidate in docker podman buildah; do
    if usable "$candidate"; then builder=$candidate; break; fi
  done
fi
if [ -z "$builder" ]; then
  echo "No image builder: install docker, podman or buildah, and make sure that its engine runs." >&2
  exit 1
fi

base=${BASE:-}
if [ -z "$base" ]; then
  base=$(sed -n 's/^ARG BASE=//p' images/Dockerfile)
  if ! "$builder" pull --quiet "docker.io/library/$base" >/dev/null 2>&1; then
    echo "$base cannot be pulled: making a base image from Debian packages (once, about a minute)"
    base=localhost/kubeagents-base:1
    images/base.sh "$builder" "$base"
  fi
fi
arguments=(--file images/Dockerfile --build-arg "BASE=$base")

# Where the machine trusts certificates of its own, the build must trust them, too.
certificates=/etc/ssl/certs/ca-certificates.crt
case $builder in
  docker) command=(docker build "${arguments[@]}") ;;
  podman) command=(podman build "${arguments[@]}" --network host) ;;
  buildah) command=(buildah build "${arguments[@]}" --layers --network host) ;;
  *) echo "BUILDER=$builder is none of docker, podman and buildah." >&2; exit 1 ;;
esac
if [ "$builder" != docker ] && [ -e "$certificates" ]; then
  command+=(--volume "$certificates:$certificates:ro")
  command+=(--build-arg "PIP_CERT=$certificates" --build-arg "SSL_CERT_FILE=$certificates")
fi
# Without user namespaces and a cgroup v2 hierarchy (a container, a sandbox) buildah must not try for them.
if [ "$builder" = buildah ] && [ "$(id -u)" = 0 ]; then
  command+=(--isolation oci --storage-driver overlay)
fi

for image in "${images[@]}"; do
  name="${prefix}kubeagents-$image:$tag"
  echo "Building $name with $builder"
  "${command[@]}" --target "$image" --tag "$name" .
done
