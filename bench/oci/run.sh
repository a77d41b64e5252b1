#!/usr/bin/env bash
# Figures of darkmirror beside crane, regctl, skopeo and oras, on one image and
# with registries on loopback: bench/oci/run.sh [--quick] [--peers] [--readme]
# [--layers MB,MB...]. make bench-oci runs it. What is measured, and how,
# stands in bench/oci/README.md.
#
# --peers leaves darkmirror out; --readme puts the figures into the README.
# It exits 1 if a bound is missed. BENCH_DIR names the folder for its data,
# which is removed at the end; the default is memory, /dev/shm.
set -euo pipefail
cd "$(dirname "$0")/../.."
here=$PWD

flags=()
ours=1
while [ $# -gt 0 ]; do
	case $1 in
	--quick | --readme) flags+=("$1") ;;
	--layers) flags+=("$1" "${2:?--layers MB,MB...}") && shift ;;
	--peers) ours= ;;
	*) echo "usage: bench/oci/run.sh [--quick] [--peers] [--readme] [--layers MB,MB...]" >&2; exit 2 ;;
	esac
	shift
done
[ "$(uname -s)" = Linux ] || { echo "bench-oci: /proc/PID/io is needed, which only Linux has" >&2; exit 1; }
command -v python3 >/dev/null || { echo "bench-oci: python3 is missing" >&2; exit 1; }

peers=$here/.cache/peers
parent=${BENCH_DIR:-/dev/shm}
mkdir -p "$parent" "$peers" bench/results
work=$(mktemp -d "$parent/bench-oci.XXXXXX")
bench=
cleanup() {
	status=$?
	if [ -n "$bench" ]; then # it ends what it started
		kill -TERM "$bench" 2>/dev/null || :
		wait "$bench" 2>/dev/null || :
	fi
	rm -rf "$work"
	exit "$status"
}
trap cleanup EXIT
trap 'exit 130' INT TERM HUP

# The peers, by exact version; what cannot be had is left out and said so. A
# program that is in the folder is not installed again.
peer() { # peer NAME VERSION PACKAGE
	[ ! -x "$peers/$1-$2" ] || return 0
	mkdir -p "$work/bin"
	if GOFLAGS=-mod=mod GOBIN=$work/bin CGO_ENABLED=0 go install -trimpath "$3@$2" >"$work/go.log" 2>&1; then
		mv "$work/bin/$1" "$peers/$1-$2"
	else
		tail -3 "$work/go.log" >&2
	fi
}
peer crane v0.22.1 github.com/google/go-containerregistry/cmd/crane
peer regctl v0.11.7 github.com/regclient/regclient/cmd/regctl
peer oras v1.3.6 oras.land/oras/cmd/oras
peer registry v3.1.2 github.com/distribution/distribution/v3/cmd/registry

# Debian's docker-registry is unpacked and not installed: its package would
# start a service.
debian() {
	local deb
	mkdir -p "$work/deb"
	cd "$work/deb"
	apt-get download -qq docker-registry
	deb=$(echo docker-registry_*.deb)
	dpkg -x "$deb" .
	mv usr/bin/docker-registry "$peers/docker-registry-v$(dpkg-deb -f "$deb" Version)"
}
if command -v apt-get >/dev/null; then
	fresh=
	update() { [ -n "$fresh" ] || [ "$(id -u)" != 0 ] || apt-get update -qq >"$work/apt.log" 2>&1 || tail -3 "$work/apt.log" >&2; fresh=1; }
	if ! command -v docker-registry >/dev/null && ! compgen -G "$peers/docker-registry-v*" >/dev/null; then
		update
		(debian) >"$work/deb.log" 2>&1 || tail -3 "$work/deb.log" >&2
	fi
	if ! command -v skopeo >/dev/null && [ "$(id -u)" = 0 ]; then
		update
		DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends skopeo >"$work/apt.log" 2>&1 || tail -3 "$work/apt.log" >&2
	fi
fi

if [ -n "$ours" ]; then
	[ -x bin/darkmirror ] || make build
	CGO_ENABLED=0 go build -trimpath -o "$work/ocicopy" ./bench/ocicopy
	flags+=(--darkmirror "$here/bin/darkmirror" --ocicopy "$work/ocicopy")
fi

export PYTHONDONTWRITEBYTECODE=1
python3 bench/oci/bench.py ${flags[@]+"${flags[@]}"} --work "$work" --peers "$peers" --results "$here/bench/results" &
bench=$!
code=0
wait "$bench" || code=$?
bench=
exit "$code"
