#!/usr/bin/env bash
# Figures of darkmirror beside pip download and aptly, from a made upstream on
# loopback: bench/run.sh [--quick]. make bench runs it. What is measured, and
# how, stands in bench/README.md.
#
# It exits 1 if a bound is missed. BENCH_DIR names a folder for its data, which
# must be on a disk and is removed at the end; the default is in .cache.
set -euo pipefail
cd "$(dirname "$0")/.."
here=$PWD

quick=
case ${1:-} in
'') ;;
--quick) quick=--quick ;;
*) echo "usage: bench/run.sh [--quick]" >&2; exit 2 ;;
esac
[ "$(uname -s)" = Linux ] || { echo "bench: /proc/PID/io is needed, which only Linux has" >&2; exit 1; }
command -v python3 >/dev/null || { echo "bench: python3 is missing" >&2; exit 1; }
[ -x bin/darkmirror ] || make build

parent=${BENCH_DIR:-$here/.cache}
mkdir -p "$parent" bench/results
work=$(mktemp -d "$parent/bench.XXXXXX")
# A short path: the sockets of gpg-agent must fit into 108 bytes.
GNUPGHOME=$(mktemp -d /tmp/bench-gpg.XXXXXX)
export GNUPGHOME
cleanup() {
	status=$?
	gpgconf --kill all >/dev/null 2>&1 || :
	rm -rf "$work" "$GNUPGHOME"
	exit $status
}
trap cleanup EXIT
trap 'exit 130' INT TERM

# The peers. What is missing and cannot be installed is left out and said so.
if ! { command -v aptly && command -v gpg && command -v nginx; } >/dev/null && [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
	{ apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends aptly gpg gpg-agent nginx-light; } >"$work/apt.log" 2>&1 || tail -3 "$work/apt.log" >&2
fi
python3 -m venv "$work/venv" >"$work/venv.log" 2>&1 || { cat "$work/venv.log" >&2; echo "bench: no venv, so no pip (as root: apt-get install python3-venv)" >&2; }
CGO_ENABLED=0 go build -trimpath -o "$work/upstream" ./bench/upstream

export PYTHONDONTWRITEBYTECODE=1
python3 bench/bench.py $quick --work "$work" --darkmirror "$here/bin/darkmirror" --results "$here/bench/results"
