#!/bin/sh
# Compare package provenance with pypi-attestations, the index's own verifier.
# It is installed from the index that this host is configured for, into a
# temporary folder; nothing else is contacted.
set -eu
cd "$(dirname "$0")/.."
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT INT TERM
python3 -m venv "$dir/venv"
"$dir/venv/bin/pip" install -q --disable-pip-version-check pypi-attestations==0.0.30 sigstore==4.5.1
DARKMIRROR_PYPI_ATTESTATIONS="$dir/venv/bin/python" go test -count=1 -run '^TestPeers$' "$@" .
