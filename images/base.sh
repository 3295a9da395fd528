#!/usr/bin/env bash
# Makes a base image from Debian packages, where no registry can be reached. Arguments: docker, podman or buildah; a name.
# Needs mmdebstrap. About 35 s; does nothing if the image is there.
set -euo pipefail
builder=$1
name=$2

if [ "$builder" = buildah ]; then
  buildah inspect --type image "$name" >/dev/null 2>&1 && exit 0
else
  "$builder" image inspect "$name" >/dev/null 2>&1 && exit 0
fi
if ! command -v mmdebstrap >/dev/null; then
  echo "No base image can be pulled, and mmdebstrap, which makes one from Debian packages, is not installed." >&2
  exit 1
fi

root=$(mktemp --suffix=.tar)
trap 'rm -f "$root"' EXIT
mmdebstrap --quiet --variant=minbase --include=python3,python3-venv,ca-certificates bookworm "$root"
path=PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
if [ "$builder" = buildah ]; then
  container=$(buildah from scratch)
  buildah add --quiet "$container" "$root" / >/dev/null
  buildah config --env "$path" "$container"
  buildah commit --quiet --rm "$container" "$name" >/dev/null
else
  "$builder" import --change "ENV $path" "$root" "$name" >/dev/null
fi
