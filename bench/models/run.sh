#!/usr/bin/env bash
# Figures of darkmirror beside hf download, and of its hub beside nginx, on
# loopback: bench/models/run.sh [--quick] [--readme]. make bench-models runs
# it. What is measured, and how, stands in bench/models/README.md.
#
# --readme puts the figures into the README. It exits 1 if a bound is missed.
# BENCH_DIR names the folder for its data, which is removed at the end; the
# default is memory, /dev/shm.
set -euo pipefail
cd "$(dirname "$0")/../.."
here=$PWD

flags=()
for arg; do
	case $arg in
	--quick | --readme) flags+=("$arg") ;;
	*) echo "usage: bench/models/run.sh [--quick] [--readme]" >&2; exit 2 ;;
	esac
done
[ "$(uname -s)" = Linux ] || { echo "bench-models: /proc/PID/io is needed, which only Linux has" >&2; exit 1; }
for need in python3 curl; do
	command -v "$need" >/dev/null || { echo "bench-models: $need is missing" >&2; exit 1; }
done
[ -x bin/darkmirror ] || make build

parent=${BENCH_DIR:-/dev/shm}
mkdir -p "$parent" bench/results .cache/peers
work=$(mktemp -d "$parent/bench-models.XXXXXX")
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

# The peers, by exact version; nginx is the system's and is left out where
# there is none and none can be installed.
hub=2.4.0
venv=.cache/peers/huggingface_hub-$hub
if [ ! -x "$venv/bin/hf" ]; then
	rm -rf "$venv"
	python3 -m venv "$venv"
	"$venv/bin/python" -m pip install -q --disable-pip-version-check "huggingface_hub==$hub" "hf_xet==1.8.0"
fi
if ! command -v nginx >/dev/null && [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
	{ apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends nginx-light; } >"$work/apt.log" 2>&1 || tail -3 "$work/apt.log" >&2
fi
if nginx=$(command -v nginx); then flags+=(--nginx "$nginx"); fi
CGO_ENABLED=0 go build -trimpath -o "$work/" ./bench/hub ./bench/headload

export PYTHONDONTWRITEBYTECODE=1
python3 bench/models/bench.py ${flags[@]+"${flags[@]}"} --work "$work" --darkmirror "$here/bin/darkmirror" --hub "$work/hub" \
	--headload "$work/headload" --python "$here/$venv/bin/python" --results "$here/bench/results" &
bench=$!
code=0
wait "$bench" || code=$?
bench=
exit "$code"
