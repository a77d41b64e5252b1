#!/usr/bin/env bash
# How fast a thousand small wheels go into a real devpi-server, beside what the
# server allows and beside its own client: bench/devpi/run.sh [--quick]. What is
# measured, and how, stands in bench/devpi/README.md. It exits 1 if a bound is
# missed or a file is not there afterwards. BENCH_DIR names another folder for
# its data, which is removed at the end.
set -euo pipefail
cd "$(dirname "$0")/../.."
here=$PWD
flags=()
for arg; do
	case $arg in
	--quick) flags+=("$arg") ;;
	*) echo "usage: bench/devpi/run.sh [--quick]" >&2; exit 2 ;;
	esac
done
[ "$(uname -s)" = Linux ] || { echo "bench-devpi: /proc/PID/io is needed, which only Linux has" >&2; exit 1; }
for need in python3 go; do
	command -v "$need" >/dev/null || { echo "bench-devpi: $need is missing" >&2; exit 1; }
done
[ -x bin/darkmirror ] || make build

mkdir -p bench/results .cache/peers
work=$(mktemp -d "${BENCH_DIR:-${TMPDIR:-/tmp}}/bench-devpi.XXXXXX")
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

# Server and peers, by exact version.
venv=.cache/peers/devpi-6.19.1
if [ ! -x "$venv/bin/twine" ]; then
	rm -rf "$venv"
	python3 -m venv "$venv"
	"$venv/bin/python" -m pip install -q --disable-pip-version-check devpi-server==6.19.1 devpi-client==7.3.0 twine==7.0.0
fi
CGO_ENABLED=0 go build -trimpath -o "$work/" ./bench/devpi/bare ./bench/devpi/publish ./bench/pypi-serve/serve

export PYTHONDONTWRITEBYTECODE=1
python3 bench/devpi/bench.py ${flags[@]+"${flags[@]}"} --work "$work" --darkmirror "$here/bin/darkmirror" --bare "$work/bare" \
	--publish "$work/publish" --serve "$work/serve" --venv "$here/$venv" --results "$here/bench/results" &
bench=$!
code=0
wait "$bench" || code=$?
bench=
exit "$code"
