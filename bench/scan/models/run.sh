#!/usr/bin/env bash
# Verdicts of darkmirror's rules for model files beside picklescan, modelscan
# and fickling, over a labelled corpus: bench/scan/models/run.sh CORPUS
# [--verbose]. CORPUS is a folder with LABELS.tsv: path and label, with tabs,
# a line of heads first. Each scanner is started once a file, so the seconds
# hold as many starts as there are files.
#
# The peers come from the package index that pip is configured for, into
# .cache/peers, by exact version.
set -euo pipefail
[ $# -ge 1 ] && [ -f "$1/LABELS.tsv" ] || { echo "usage: bench/scan/models/run.sh CORPUS [--verbose]" >&2; exit 2; }
corpus=$(cd "$1" && pwd)
shift
cd "$(dirname "$0")/../../.."
command -v python3 >/dev/null || { echo "bench-scan-models: python3 is missing" >&2; exit 1; }

venv=.cache/peers/model-scanners-1
if [ ! -x "$venv/bin/fickling" ]; then
	rm -rf "$venv"
	python3 -m venv "$venv"
	# fickling needs typing_extensions on Python 3.11 and does not ask for it.
	"$venv/bin/python" -m pip install -q --disable-pip-version-check \
		picklescan==1.0.5 modelscan==0.8.8 fickling==0.1.12 typing_extensions==4.15.0
fi

work=$(mktemp -d "${BENCH_DIR:-/tmp}/bench-scan-models.XXXXXX")
trap 'rm -rf "$work"' EXIT
CGO_ENABLED=0 go build -trimpath -o "$work/models" ./bench/scan/models
python3 bench/scan/models/compare.py --corpus "$corpus" --bin "$PWD/$venv/bin" --darkmirror "$work/models" --work "$work" "$@"
