#!/usr/bin/env bash
# The index server and its static tree under real clients, and how fast they
# are: bench/pypi-serve/run.sh [--quick] [--check]. What is measured, and how,
# stands in bench/pypi-serve/README.md. --check runs the clients alone.
#
# The packages and the clients come from this host's own index; everything
# else happens on loopback. It exits 1 if a client fails or a request does.
set -euo pipefail
cd "$(dirname "$0")/../.."
here=$PWD
rounds=5 sessions=5 clients=2000 load=1
for arg; do
	case $arg in
	--quick) rounds=2 sessions=1 ;;
	--check) load= ;;
	*) echo "usage: bench/pypi-serve/run.sh [--quick] [--check]" >&2; exit 2 ;;
	esac
done
for need in python3 curl openssl go; do
	command -v "$need" >/dev/null || { echo "pypi-serve: $need is missing" >&2; exit 1; }
done
if ! command -v nginx >/dev/null && [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
	apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends nginx-light >/dev/null
fi
command -v nginx >/dev/null || { echo "pypi-serve: nginx is missing" >&2; exit 1; }

work=$(mktemp -d "${BENCH_DIR:-${TMPDIR:-/tmp}}/pypi-serve.XXXXXX")
pids=()
cleanup() {
	status=$?
	for p in ${pids[@]+"${pids[@]}"}; do kill "$p" 2>/dev/null || :; done
	wait 2>/dev/null || :
	rm -rf "$work"
	exit $status
}
trap cleanup EXIT
trap 'exit 130' INT TERM HUP
fail() { echo "pypi-serve: $*" >&2; exit 1; }
passed=0
ok() { passed=$((passed + 1)); printf 'ok    %s\n' "$*"; }
ulimit -n 16384 2>/dev/null || ulimit -n "$(ulimit -Hn)"

# Peers and packages, by exact version, kept for the next run.
peers=.cache/peers/pypi-serve
wheels=$peers/wheels
mkdir -p "$peers"
[ -x "$peers/venv/bin/uv" ] || { python3 -m venv "$peers/venv" && "$peers/venv/bin/python" -m pip install -q pip==26.3 uv==0.13.9; }
py=$here/$peers/venv/bin/python uv=$here/$peers/venv/bin/uv
if [ ! -d "$wheels" ]; then
	"$py" -m pip download -q --only-binary :all: --no-deps -d "$work/wheels" -r bench/pypi-serve/requirements.txt
	mv "$work/wheels" "$wheels"
fi
n=$(find "$wheels" -name '*.whl' | wc -l)
CGO_ENABLED=0 go build -trimpath -o "$work/" ./bench/pypi-serve/serve ./bench/pypi-serve/load

# A lock file of the outside, with the addresses of this host's own index.
mkdir "$work/project"
cat >"$work/project/pyproject.toml" <<TOML
[project]
name = "inside"
version = "1"
requires-python = "==$(python3 -c 'import sys; print("%d.%d" % sys.version_info[:2])').*"
dependencies = ["requests", "pyyaml", "flask"]
TOML
outside=
(cd "$work/project" && UV_PYTHON_DOWNLOADS=never UV_CACHE_DIR="$work/uv-outside" UV_CONSTRAINT="$here/bench/pypi-serve/requirements.txt" \
	"$uv" lock -q 2>"$work/lock.log" && "$uv" export -q --frozen --no-hashes --no-emit-project -o "$work/locked.txt") && outside=1 || echo "pypi-serve: NOT RUN: uv.lock of the outside: $(tail -1 "$work/lock.log")" >&2
hosts=$(grep -Eo '(url|registry) = "https://[^/"]+' "$work/project/uv.lock" 2>/dev/null | sed 's|.*//||' | sort -u) || hosts=
if [ -n "$outside" ] && ! grep -Eq 'https://[^/"]+/packages/[0-9a-f]{2}/[0-9a-f]{2}/[0-9a-f]{60}/' "$work/project/uv.lock"; then
	echo "pypi-serve: NOT RUN: this host's index has paths of its own: the lock file says nothing of /packages/" >&2
	outside=
fi
folder=$work/folder
mkdir "$folder"
cp "$wheels"/*.whl "$folder/"
if [ -n "$outside" ]; then # what the lock names in other versions
	awk 'NF && $1 ~ /==/ { print $1 }' "$work/locked.txt" >"$work/pins.txt"
	"$py" -m pip download -q --only-binary :all: --no-deps -d "$folder" -r "$work/pins.txt"
fi

# A certificate for the hosts of the lock, of an authority of our own.
openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=site-ca -keyout "$work/ca.key" -out "$work/ca.pem" 2>/dev/null
san=DNS:localhost
for h in $hosts; do san=$san,DNS:$h; done
openssl req -newkey rsa:2048 -nodes -subj /CN=mirror -keyout "$work/tls.key" -out "$work/tls.csr" 2>/dev/null
openssl x509 -req -in "$work/tls.csr" -CA "$work/ca.pem" -CAkey "$work/ca.key" -CAcreateserial -days 2 \
	-extfile <(printf 'subjectAltName=%s\n' "$san") -out "$work/tls.pem" 2>/dev/null

cores=0-$(($(nproc) - 1))
tree=$work/tree
taskset -c "$cores" "$work/serve" -folder "$folder" -work "$work/state" -tree "$tree" -cert "$work/tls.pem" -key "$work/tls.key" >"$work/serve.out" 2>"$work/serve.log" &
server=$!
pids+=($server)
for _ in $(seq 300); do [ "$(wc -l <"$work/serve.out")" = 2 ] && break; kill -0 $server 2>/dev/null || fail "$(cat "$work/serve.log")"; sleep 0.1; done
index=$(sed -n 's|^http:.*|&|p' "$work/serve.out")
tls=$(sed -n 's|^https:.*|&|p' "$work/serve.out")
[ -n "$index" ] && [ -n "$tls" ] || fail "the server did not start: $(cat "$work/serve.log")"

port=$(python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')
sed -e "s|WORK|$work|; s|TREE|$tree|; s|PORT|$port|" bench/pypi-serve/nginx.conf >"$work/nginx.conf"
as=
[ "$(id -u)" != 0 ] || as="user root; " # the blobs are readable for one group only
nginx -c "$work/nginx.conf" -p "$work" -g "${as}daemon off;" 2>"$work/nginx.err" &
pids+=($!)
static=http://127.0.0.1:$port/simple/
for _ in $(seq 100); do curl -fsS -o /dev/null "$static" 2>/dev/null && break; sleep 0.1; done
curl -fsS -o /dev/null "$static" || fail "nginx did not start: $(cat "$work/nginx.err" "$work/nginx.log" 2>/dev/null)"

alone() { env -u PIP_FIND_LINKS -u PIP_INDEX_URL -u PIP_EXTRA_INDEX_URL PIP_CONFIG_FILE=/dev/null PIP_DISABLE_PIP_VERSION_CHECK=1 "$@"; }
alone_uv() { env -u UV_INDEX_URL -u UV_DEFAULT_INDEX -u UV_INDEX UV_NO_CONFIG=1 UV_CACHE_DIR="$work/uvcache" UV_PYTHON_DOWNLOADS=never "$@"; }
by_pip() { rm -rf "$work/target"; alone "$py" -m pip install -q --no-cache-dir --no-compile --target "$work/target" --only-binary :all: --index-url "$1" -r bench/pypi-serve/requirements.txt; }
by_uv() { rm -rf "$work/target" "$work/uvcache"; alone_uv "$uv" pip install -q --target "$work/target" --only-binary :all: --default-index "$1" -r bench/pypi-serve/requirements.txt; }

# What nginx negotiates is what we negotiate.
json='application/vnd.pypi.simple.v1+json'
for accept in "$json, application/vnd.pypi.simple.v1+html; q=0.1, text/html; q=0.01" '*/*' "$json;q=0, text/html" 'text/html' 'application/vnd.pypi.simple.latest+json'; do
	a=$(curl -fsS -H "Accept: $accept" "${index}flask/" | sha256sum) b=$(curl -fsS -H "Accept: $accept" "${static}flask/" | sha256sum)
	[ "$a" = "$b" ] || fail "nginx and we send different pages for Accept: $accept"
done
ok "nginx over the static tree sends our pages for 5 Accept headers"
for at in "$index" "$static" "file://$tree/simple/"; do
	by_pip "$at" || fail "pip from $at"
	ok "pip $("$py" -m pip --version | awk '{ print $2 }') installs $n packages from ${at%%:*} ${at##*127.0.0.1}"
	by_uv "$at" || fail "uv from $at"
	ok "uv $("$uv" --version | awk '{ print $2 }') installs $n packages from ${at%%:*} ${at##*127.0.0.1}"
done

if [ -n "$outside" ]; then
	root=${index%simple/}
	sync() { (cd "$1" && rm -rf .venv "$work/uvcache" && alone_uv "${@:2}" "$uv" sync -q --frozen --no-build && .venv/bin/python -c 'import requests, yaml, flask'); }
	cp -r "$work/project" "$work/rewritten"
	sed -E -i "s|https://[^/\"]+/|$root|g; s|https://[^/\"]+\"|${root%/}\"|g" "$work/rewritten/uv.lock"
	sync "$work/rewritten" env HTTPS_PROXY=http://127.0.0.1:9 || fail "uv sync --frozen, hosts rewritten"
	ok "uv sync --frozen of a uv.lock of the outside, its hosts rewritten"
	python3 bench/pypi-serve/proxy.py "$(sed -E 's|.*:([0-9]+)/.*|\1|' <<<"$tls")" "$work/hosts.log" >"$work/proxy.out" &
	pids+=($!)
	for _ in $(seq 100); do [ -s "$work/proxy.out" ] && break; sleep 0.1; done
	sync "$work/project" env -u SSL_CERT_DIR SSL_CERT_FILE="$work/ca.pem" HTTPS_PROXY="http://127.0.0.1:$(cat "$work/proxy.out")" NO_PROXY= no_proxy= || fail "uv sync --frozen, name and certificate overridden"
	ok "uv sync --frozen of an unmodified uv.lock of the outside, with the site's names and certificate ($(sort -u "$work/hosts.log" | wc -l) host asked for)"
fi
echo "$passed passed, 0 failed"
[ -n "$load" ] || exit 0

echo
echo "$(date +%F): $(nproc) cores $(uname -m), Linux $(uname -r | cut -d- -f1), load $(cut -d' ' -f1 /proc/loadavg), $(go version | awk '{ print $3 }'), nginx $(nginx -v 2>&1 | sed 's|.*/||')"
for how in "" -close; do
	for at in "darkmirror $index" "nginx $static"; do
		printf '%-11s %-10s ' "${at%% *}" "${how:-keep-alive}"
		"$work/load" -index "${at##* }" -clients $clients -rounds $sessions $how
	done
done
awk '/VmHWM/ { printf "peak memory of the server: %.0f MB\n", $2 / 1024 }' /proc/$server/status

# The installs take turns; the least and the median of each.
for _ in $(seq $rounds); do
	for at in "darkmirror $index" "nginx $static"; do
		for client in pip uv; do
			began=${EPOCHREALTIME/./}
			"by_$client" "${at##* }"
			echo "$client ${at%% *} $((${EPOCHREALTIME/./} - began))" >>"$work/times"
		done
	done
done
python3 - "$work/times" "$n" <<'PY'
import statistics, sys
runs = {}
for line in open(sys.argv[1]):
    client, server, microseconds = line.split()
    runs.setdefault((client, server), []).append(int(microseconds) / 1e6)
for (client, server), t in sorted(runs.items()):
    print(f"{client:4} install of {sys.argv[2]} packages from {server:11} median {statistics.median(t):.2f} s, least {min(t):.2f} s of {len(t)}")
PY
