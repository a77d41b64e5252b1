#!/usr/bin/env bash
# Figures of resolving and fetching Python packages, beside pip, uv and
# bandersnatch: bench/pypi/run.sh [--quick]. What is measured, and how, stands in
# bench/pypi/README.md. It exits 1 if a bound is missed or a byte is not there.
#
# The peers come from this host's own index, by exact version; all else happens
# on loopback. BENCH_DIR names the folder for the data; the default is memory.
set -euo pipefail
cd "$(dirname "$0")/../.."
here=$PWD
flags=(--runs 5 --results "$here/bench/results")
case ${1:-} in
'') ;;
--quick) flags=(--runs 1) ;;
*) echo "usage: bench/pypi/run.sh [--quick]" >&2; exit 2 ;;
esac
[ -x bin/darkmirror ] || make build
parent=${BENCH_DIR:-/dev/shm}
mkdir -p "$parent" bench/results .cache/peers
work=$(mktemp -d "$parent/bench-pypi.XXXXXX")
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
venv=.cache/peers/pypi
if [ ! -x "$venv/bin/bandersnatch" ]; then
	rm -rf "$venv"
	python3 -m venv "$venv"
	"$venv/bin/python" -m pip install -q --disable-pip-version-check pip==26.3 uv==0.13.9 bandersnatch==6.8.0
fi
CGO_ENABLED=0 go build -trimpath -o "$work/index" ./bench/pypi/index
port=$(python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')
export PYTHONDONTWRITEBYTECODE=1
python3 bench/pypi/bench.py "${flags[@]}" --work "$work" --darkmirror "$here/bin/darkmirror" --index "$work/index" --port "$port" \
	--python "$here/$venv/bin/python" --uv "$here/$venv/bin/uv" --bandersnatch "$here/$venv/bin/bandersnatch" &
bench=$!
code=0
wait "$bench" || code=$?
bench=
exit "$code"
