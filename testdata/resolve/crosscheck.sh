#!/usr/bin/env bash
# Resolves the sets in sets/ with darkmirror, uv and pip, for four targets each:
#
#	testdata/resolve/crosscheck.sh [SET...]
#
# All of them: about an hour, most of it uv's. The index is this host's own, as
# it was on BEFORE; only its pages and metadata are read. It exits 1 where an
# answer differs and no rule was seen to explain it, or where pip or uv cannot
# install the answer from the chosen wheels alone.
set -euo pipefail
cd "$(dirname "$0")/../.."
export BEFORE=${BEFORE:-2026-11-01}
work=$(mktemp -d "${TMPDIR:-/tmp}/darkmirror-crosscheck.XXXXXX")
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install -q --disable-pip-version-check pip==26.3 uv==0.13.9 packaging==26.3
index=$(python3 -c 'from pip._internal.models.index import PyPI as p; print(p.simple_url)')
index=$("$work/venv/bin/pip" config get global.index-url 2>/dev/null || echo "$index")
INDEX=${index%/}/
FILE_HOSTS=$(python3 testdata/devpi/file_host.py "$INDEX")
export INDEX FILE_HOSTS
go build -o "$work/ours" ./testdata/resolve/ours
mkdir "$work/store"
python=$work/venv/bin/python
"$python" testdata/resolve/crosscheck.py "$work/ours" "$work/venv/bin/uv" "$python" "$work/store" "$@"
