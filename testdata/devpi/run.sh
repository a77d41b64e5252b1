#!/usr/bin/env bash
# A real devpi-server and a real pypiserver as targets: every case in which
# DevPI damages what it gets, its mirrors, and pip from both. The programs come
# from this host's own index; everything runs on loopback.
set -euo pipefail
cd "$(dirname "$0")/../.."
here=$PWD
work=$(mktemp -d "${TMPDIR:-/tmp}/darkmirror-devpi.XXXXXX")
pids=()
cleanup() {
	status=$?
	for p in "${pids[@]:-}"; do [ -z "$p" ] || kill "$p" 2>/dev/null || :; done
	wait 2>/dev/null || :
	rm -rf "$work"
	exit $status
}
trap cleanup EXIT
fail() { echo "devpi: $*" >&2; exit 1; }
ok() { printf 'ok    %s\n' "$*"; }
port() { python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])'; }
answers() { # waits for a server
	for _ in $(seq 120); do
		curl -sf -o /dev/null "$1" && return
		sleep 0.5
	done
	fail "$1 does not answer: $(tail -3 "$2")"
}

python3 -m venv "$work/venv"
"$work/venv/bin/pip" install -q "devpi-server==${DEVPI:-6.19.1}" "pypiserver==${PYPISERVER:-2.4.2}" || fail "devpi-server and pypiserver cannot be installed"
head -c 48 /dev/urandom | base64 -w0 >"$work/secret"
chmod 600 "$work/secret"
"$work/venv/bin/devpi-init" --serverdir "$work/devpi" --no-root-pypi >"$work/init.log" 2>&1 || fail "$(tail -3 "$work/init.log")"
d=$(port)
"$work/venv/bin/devpi-server" --serverdir "$work/devpi" --host 127.0.0.1 --port "$d" --secretfile "$work/secret" >"$work/devpi.log" 2>&1 &
pids+=($!)
mkdir "$work/packages"
s=$(port)
"$work/venv/bin/pypi-server" run -i 127.0.0.1 -p "$s" -a . -P . "$work/packages" >"$work/pypiserver.log" 2>&1 &
pids+=($!)
answers "http://127.0.0.1:$d/+api" "$work/devpi.log"
answers "http://127.0.0.1:$s/" "$work/pypiserver.log"
DEVPI_URL=http://127.0.0.1:$d PYPISERVER_URL=http://127.0.0.1:$s go test -count=1 -v -tags devpi -run Real ./pypi/devpi ./pypi >"$work/test.log" || fail "$(cat "$work/test.log")"
ok "devpi-server ${DEVPI:-6.19.1}: $(grep -c '^ *--- PASS' "$work/test.log") cases end right or refused, pypiserver ${PYPISERVER:-2.4.2} among them"

# The whole road: a bundle is imported, and pip gets it from DevPI.
mkdir "$work/road"
cd "$work/road"
: >password
index=$(python3 -c 'from pip._internal.models.index import PyPI as p; print(p.simple_url)')
index=$(pip config get global.index-url 2>/dev/null || echo "$index")
hosts=$(python3 "$here/testdata/devpi/file_host.py" "$index")
cat >outside.yaml <<Y
version: 1
role: outside
state_dir: $work/road/out
signing_key: $work/road/exporter.key
pypi:
  - name: main
    index: $index
    allow_hosts: [$hosts]
    allow_http: true
    targets: [cp3$(python3 -c 'import sys; print(sys.version_info[1])')-manylinux_2_28_$(uname -m)]
    packages: [jinja2, idna]
Y
cat >inside.yaml <<Y
version: 1
role: inside
state_dir: $work/road/in
inbox: [$work/road/out/outbox]
pypi:
  - name: main
    devpi: {index: "http://127.0.0.1:$d/root/site", user: root, password_file: $work/road/password, create: true, allow_http: true}
Y
dm=$here/bin/darkmirror
$dm --config outside.yaml key generate >/dev/null 2>&1 || fail "no key"
$dm --config outside.yaml export >export.log 2>&1 || fail "$(cat export.log)"
$dm --config inside.yaml key trust exporter.key.pub >/dev/null 2>&1 || fail "the key is not trusted"
$dm --config inside.yaml import >import.log 2>&1 || fail "$(cat import.log)"
grep -q 'devpi http' import.log || fail "$(cat import.log)"
"$work/venv/bin/pip" install -q --no-cache-dir --target "$work/road/site" --index-url "http://127.0.0.1:$d/root/site/+simple/" jinja2 idna || fail "pip cannot install from DevPI"
PYTHONPATH=$work/road/site python3 -c 'import jinja2, idna' || fail "what pip installed cannot be imported"
ok "$(grep -o 'devpi http.*' import.log | sed 's#http://[^ ]*##'); pip installs it from there"
