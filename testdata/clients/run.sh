#!/usr/bin/env bash
# The client matrix: pip from 20 to the newest and uv (pip install, lock,
# sync) against the inside index, with real packages from this host's own
# index. make clients runs it. Each line says what the client did; the script
# fails if one of them failed.
set -euo pipefail
cd "$(dirname "$0")/../.."
here=$PWD
dm=$here/bin/darkmirror
work=$(mktemp -d "${TMPDIR:-/tmp}/darkmirror-clients.XXXXXX")
serve_pid=
cleanup() {
	status=$?
	[ -z "$serve_pid" ] || kill "$serve_pid" 2>/dev/null || :
	wait 2>/dev/null || :
	rm -rf "$work"
	exit $status
}
trap cleanup EXIT
fail() { echo "clients: $*" >&2; exit 1; }
passed=0
ok() { passed=$((passed + 1)); printf 'ok    %s\n' "$*"; }

case $(uname -m) in
x86_64) arch=x86_64 ;;
aarch64) arch=aarch64 ;;
*) fail "no wheels are published for $(uname -m)" ;;
esac
minor=$(python3 -c 'import sys; print(sys.version_info.minor)')

# A set with compiled wheels, dependencies and a marker.
mkdir -p "$work/outside" "$work/inside"
cd "$work/outside"
"$dm" init --role outside --config darkmirror.yaml >/dev/null 2>init.log
awk '/^[a-z]/ { keep = ($0 ~ /^(pyyaml|requests|charset-normalizer|idna|urllib3|certifi|cffi|pycparser)==/) } keep' "$here/testdata/demo/requirements.txt" >requirements.txt
sed -i -e "s|^    locks: \[\].*|    locks: [{file: requirements.txt}]|" \
	-e "s|^    targets: \[\].*|    targets: [cp3$minor-manylinux_2_34_$arch]|" darkmirror.yaml
"$dm" key generate --name exporter-clients >/dev/null
"$dm" export -q --only pypi/main
cd "$work/inside"
"$dm" init --role inside --config darkmirror.yaml >/dev/null 2>init.log
sed -i -e "s|^state_dir:.*|state_dir: state|" -e "s|^inbox:.*|inbox: [$work/outside/state/outbox]|" darkmirror.yaml
"$dm" key trust "$(ls "$work"/outside/*.pub)" >/dev/null
"$dm" import -q
"$dm" serve --listen 127.0.0.1:0 >serve.log 2>&1 &
serve_pid=$!
for _ in $(seq 100); do grep -q ^ready serve.log && break; sleep 0.1; done
index=$(awk '$1 == "pypi/main" { print $2 }' serve.log)
[ -n "$index" ] || fail "serve did not start: $(cat serve.log)"

# The clients come from this host's own index; what they install comes from
# the inside index alone.
alone() { env -u PIP_FIND_LINKS -u PIP_INDEX_URL -u PIP_EXTRA_INDEX_URL PIP_CONFIG_FILE=/dev/null PIP_DISABLE_PIP_VERSION_CHECK=1 "$@"; }
newest=$(python3 -m venv "$work/new" && "$work/new/bin/python" -m pip install -q -U pip && "$work/new/bin/python" -m pip --version | awk '{ print $2 }')
want=$(grep -c '==' "$work/outside/requirements.txt")
for v in 20.0.2 20.3.4 21.3.1 22.3.1 23.3.2 24.3.1 25.3 "$newest"; do
	py=$work/pip-$v/bin/python
	python3 -m venv "$work/pip-$v"
	"$py" -m pip install -q "pip==$v" setuptools wheel 2>"$work/log" || fail "pip $v could not be installed: $(tail -1 "$work/log")"
	got=$("$py" -m pip --version | awk '{ print $2 }')
	[ "$got" = "$v" ] || fail "asked for pip $v, have $got"
	alone "$py" -m pip install -q --no-cache-dir --require-hashes --only-binary :all: --index-url "$index" -r "$work/outside/requirements.txt" 2>"$work/log" || fail "pip $v: $(cat "$work/log")"
	n=$("$py" -c 'import requests, yaml, cffi; print(len([requests, yaml, cffi]))')
	[ "$n" = 3 ] || fail "pip $v: the packages do not import"
	# by name, dependencies found by the client itself
	alone "$py" -m pip download -q --no-cache-dir --only-binary :all: --index-url "$index" -d "$work/dl-$v" requests 2>"$work/log" || fail "pip $v download: $(cat "$work/log")"
	files=$(find "$work/dl-$v" -name '*.whl' | wc -l)
	[ "$files" = 5 ] || fail "pip $v downloaded $files files for requests, want 5"
	if alone "$py" -m pip install -q --no-cache-dir --index-url "$index" darkmirror-no-such-project 2>/dev/null; then
		fail "pip $v installed a project that is not there"
	fi
	ok "pip $v: $want hashed requirements, requests with its dependencies, a missing project refused"
done

"$work/new/bin/python" -m pip install -q uv
uv=$work/new/bin/uv
alone_uv() { env -u UV_INDEX_URL -u UV_DEFAULT_INDEX -u UV_INDEX UV_NO_CONFIG=1 UV_CACHE_DIR="$work/uvcache" UV_PYTHON_DOWNLOADS=never "$@"; }
uvv=$("$uv" --version | awk '{ print $2 }')
python3 -m venv "$work/uvenv"
alone_uv "$uv" pip install -q --python "$work/uvenv/bin/python" --require-hashes --default-index "$index" -r "$work/outside/requirements.txt" || fail "uv pip install"
"$work/uvenv/bin/python" -c 'import requests, yaml, cffi'
ok "uv $uvv pip install: $want hashed requirements"
mkdir "$work/project"
cd "$work/project"
cat >pyproject.toml <<TOML
[project]
name = "inside"
version = "1"
requires-python = "==3.$minor.*"
dependencies = ["requests", "pyyaml"]
TOML
alone_uv "$uv" lock -q --default-index "$index" || fail "uv lock"
locked=$(grep -c '^name = ' uv.lock)
[ "$locked" = 7 ] || fail "uv locked $locked packages, want 7"
ok "uv $uvv lock: $locked packages"
alone_uv "$uv" sync -q --frozen --default-index "$index" || fail "uv sync"
.venv/bin/python -c 'import requests, yaml'
ok "uv $uvv sync --frozen"
echo "$passed passed, 0 failed"
