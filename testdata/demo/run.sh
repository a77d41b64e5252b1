#!/usr/bin/env bash
# The main job, end to end, with real packages: out of this host's own
# upstreams, sealed, moved over a gap, imported and served where there is no
# route, installed by unmodified pip and apt; real images, made here, pulled by
# skopeo and containerd; real models, run by onnxruntime and llama.cpp; all of it
# looked at by a real clamd; a real devpi-server and pypiserver as targets. make
# demo runs it.
#
# As root the inside runs in two network namespaces, a server's and a
# client's, whose only route is to each other. Without root it runs without
# them, and says so.
set -euo pipefail
cd "$(dirname "$0")/../.."
here=$PWD
dm=$here/bin/darkmirror
work=$here/.demo
seconds0=$SECONDS

say() { printf '\n== %s\n' "$*"; }
fail() { echo "demo: $*" >&2; exit 1; }
run() { printf '$ %s\n' "$*"; "$@"; }
mib() { awk -v n="$1" 'BEGIN { printf "%.1f MiB", n / 1048576 }'; }

server= client= serve_pid= dump_pid=
cleanup() {
	status=$?
	[ -z "$serve_pid" ] || kill "$serve_pid" 2>/dev/null || :
	[ -z "$dump_pid" ] || kill "$dump_pid" 2>/dev/null || :
	images_cleanup
	models_cleanup
	scan_cleanup
	devpi_cleanup
	wait 2>/dev/null || :
	[ -z "$client" ] || ip netns del "$client" 2>/dev/null || :
	[ -z "$server" ] || ip netns del "$server" 2>/dev/null || :
	exit $status
}
# shellcheck source=testdata/demo/images.sh
. testdata/demo/images.sh
# shellcheck source=testdata/demo/models.sh
. testdata/demo/models.sh
# shellcheck source=testdata/demo/scan.sh
. testdata/demo/scan.sh
# shellcheck source=testdata/demo/devpi.sh
. testdata/demo/devpi.sh
trap cleanup EXIT

rm -rf "$work"
mkdir -p "$work/outside" "$work/inside/inbox"
root=no
[ "$(id -u)" != 0 ] || root=yes

# ---------------------------------------------------------------- outside
say "outside: configuration from this host's own settings"
cd "$work/outside"
run "$dm" init --role outside --config darkmirror.yaml
suite=$(. /etc/os-release && echo "${VERSION_CODENAME:-}")
arch=$(dpkg --print-architecture)
case $arch in
amd64) wheelarch=x86_64 ;;
arm64) wheelarch=aarch64 ;;
*) fail "no wheels are published for $arch" ;;
esac
minor=$(python3 -c 'import sys; print(sys.version_info.minor)')
[ "$minor" -ge 11 ] || fail "python3 is 3.$minor; the locked set needs 3.11 or newer"
other=$((minor == 11 ? 12 : minor - 1))
cp "$here/testdata/demo/requirements.txt" all.txt
# jinja2 waits for the second export.
awk '/^[a-z]/ { keep = ($0 !~ /^(jinja2|markupsafe)==/) } keep' all.txt >requirements.txt
sed -i \
	-e "s|^    locks: \[\].*|    locks: [{file: requirements.txt}]|" \
	-e "s|^    targets: \[\].*|    targets: [cp3$minor-manylinux_2_34_$wheelarch, cp3$other-manylinux_2_34_$wheelarch]|" \
	-e "s|^    packages: \[\].*|    packages: [jq, tini, tree, figlet, hello]\n    essential: bootstrap|" \
	darkmirror.yaml

say "outside: an image for two platforms, its SBOM and signatures, a Helm chart"
images_outside

say "outside: an embedding model and a small language model"
models_outside

say "outside: a malware scanner, with a small signature database"
scan_outside

say "outside: devpi-server, pypiserver and twine, for the inside"
devpi_outside

say "outside: configuration and key"
run "$dm" config check
run "$dm" key generate --name exporter-demo

say "outside: what would be fetched"
run "$dm" plan

say "outside: fetch, scan, seal"
t=$SECONDS
run "$dm" export --volume-size 64MiB
export_seconds=$((SECONDS - t))
first=$(ls -d state/outbox/*-000001-* 2>/dev/null || ls -d outbox/*-000001-*)
first_bytes=$(du -sb "$first" | cut -f1)
ls -l "$first" "$first/volumes"

say "outside: what a person reads before the bundle is carried"
scan_report

say "outside: the same again; nothing changed, so no bundle"
run "$dm" export --volume-size 64MiB

# ---------------------------------------------------------------- the gap
say "the gap: the volumes are moved, and the medium is write-protected"
outbox=$(dirname "$first")
mv "$first" "$work/inside/inbox/"
cp signing.key.pub "$work/inside/" 2>/dev/null || cp state/*.pub "$work/inside/" 2>/dev/null || cp ./*.pub "$work/inside/"
chmod -R a-w "$work/inside/inbox"

# ---------------------------------------------------------------- inside
cd "$work/inside"
port=18080
if [ $root = yes ]; then
	say "inside: two network namespaces without a route out"
	server=dmsrv$$ client=dmcli$$
	ip netns add "$server"
	ip netns add "$client"
	for ns in "$server" "$client"; do
		ip netns exec "$ns" sysctl -qw net.ipv6.conf.all.disable_ipv6=1 net.ipv6.conf.default.disable_ipv6=1
		ip -n "$ns" link set lo up
	done
	ip link add dms$$ netns "$server" type veth peer name dmc$$ netns "$client"
	ip -n "$server" addr add 10.213.7.1/30 dev dms$$
	ip -n "$client" addr add 10.213.7.2/30 dev dmc$$
	ip -n "$server" link set dms$$ up
	ip -n "$client" link set dmc$$ up
	addr=10.213.7.1
	ns_server=(ip netns exec "$server") ns_client=(ip netns exec "$client")
	run ip -n "$client" route
	"${ns_client[@]}" tcpdump -i any -nn -U -w "$work/capture.pcap" 'not arp' >/dev/null 2>"$work/tcpdump.log" &
	dump_pid=$!
	for _ in $(seq 50); do grep -q listening "$work/tcpdump.log" && break; sleep 0.1; done
	grep -q listening "$work/tcpdump.log" || fail "tcpdump did not start: $(cat "$work/tcpdump.log")"
else
	say "inside: not root, so no network namespace: that nothing leaves is not proven by this run"
	addr=127.0.0.1
	ns_server=() ns_client=()
fi
in_server() { ${ns_server[@]+"${ns_server[@]}"} "$@"; }
in_client() { ${ns_client[@]+"${ns_client[@]}"} "$@"; }
# attempts counts what a namespace tried to send without having a route.
attempts() { "$1" awk '/^Ip: [0-9]/ { print $13 }' /proc/net/snmp; }

run in_server "$dm" init --role inside --config darkmirror.yaml
sed -i -e "s|^state_dir:.*|state_dir: state|" -e "s|^inbox:.*|inbox: [inbox]|" -e "s|^  listen:.*|  listen: $addr:$port|" darkmirror.yaml
printf '\noci:\n  - name: platform\nmodels:\n  - name: llm\n' >>darkmirror.yaml
run in_server "$dm" config check
run in_server "$dm" key trust ./*.pub
run in_server "$dm" verify --explain
t=$SECONDS
run in_server "$dm" import
import_seconds=$((SECONDS - t))
${ns_server[@]+"${ns_server[@]}"} "$dm" serve >serve.log 2>&1 &
serve_pid=$!
for _ in $(seq 100); do grep -q ^ready serve.log && break; sleep 0.1; done
grep -q ^ready serve.log || fail "serve did not start: $(cat serve.log)"
cat serve.log

say "inside: pip installs with hashes, from the mirror alone"
python3 -m venv "$work/venv"
pip_in() { in_client env -i PATH="$PATH" HOME="$work" PIP_CONFIG_FILE=/dev/null "$work/venv/bin/python" -m pip --disable-pip-version-check "$@"; }
run pip_in install -q --require-hashes --only-binary :all: --index-url "http://$addr:$port/pypi/main/simple/" --trusted-host "$addr" -r "$work/outside/requirements.txt"
numpy=$(in_client env -i "$work/venv/bin/python" -c 'import numpy, pandas; print("numpy", numpy.__version__, "pandas", pandas.__version__, "sum", int(pandas.Series(numpy.arange(10)).sum()))')
echo "$numpy"
[[ $numpy == *"sum 45" ]] || fail "numpy or pandas does not work"

say "inside: apt installs from the mirror alone"
keyring=$work/inside/keyring.gpg
in_client python3 - "http://$addr:$port/apt/$suite/darkmirror-archive-keyring.gpg" "$keyring" <<'PY'
import sys, urllib.request
open(sys.argv[2], "wb").write(urllib.request.urlopen(sys.argv[1]).read())
PY
(cd "$work/outside" && "$dm" config show -o json) >"$work/settings.json"
sources() { python3 "$here/testdata/demo/sources.py" "$work/settings.json" "http://$addr:$port/apt/$suite" "$keyring"; }
sources
apt_how=
merged=/usr/share/mmdebstrap/hooks/merged-usr
hooks=()
[ ! -d $merged ] || hooks=(--hook-dir=$merged)
if [ $root = yes ] && in_client env -i PATH="$PATH" TMPDIR=/tmp mmdebstrap --quiet --variant=apt ${hooks[@]+"${hooks[@]}"} --architectures="$arch" --include=jq,tini,tree,figlet,hello "$suite" "$work/root" - <<<"$(sources)" >"$work/mmdebstrap.log" 2>&1; then
	apt_how="a fresh root made by mmdebstrap"
	answer=$(in_client chroot "$work/root" sh -c 'echo "{\"n\":6}" | jq -c ".n*7"')
	installed=$(chroot "$work/root" dpkg-query -W -f '${Package}\n' | wc -l)
else
	[ $root = no ] || { tail -3 "$work/mmdebstrap.log" >&2; echo "mmdebstrap could not make a root here; a private apt root it is"; }
	apt_how="a private apt root"
	mkdir -p "$work/aptroot"/{lists/partial,cache/archives/partial,etc/preferences.d,x} && : >"$work/aptroot/status"
	sources >"$work/aptroot/etc/sources.list"
	aptx() {
		in_client apt-get -q -o Dir::Etc="$work/aptroot/etc" -o Dir::Etc::sourcelist="$work/aptroot/etc/sources.list" -o Dir::Etc::sourceparts=- \
			-o Dir::Etc::parts=- -o Dir::State="$work/aptroot" -o Dir::State::status="$work/aptroot/status" -o Dir::Cache="$work/aptroot/cache" \
			-o APT::Sandbox::User= -o Debug::NoLocking=1 "$@"
	}
	run aptx update
	run aptx install -y --no-install-recommends --download-only jq tini tree figlet hello
	for d in "$work"/aptroot/cache/archives/*.deb; do dpkg-deb -x "$d" "$work/aptroot/x"; done
	lib=$(dirname "$(find "$work/aptroot/x" -name 'libjq.so.1' | head -1)")
	answer=$(echo '{"n":6}' | LD_LIBRARY_PATH="$lib" "$work/aptroot/x/usr/bin/jq" -c '.n*7')
	installed=$(find "$work/aptroot/cache/archives" -name '*.deb' | wc -l)
fi
[ "$answer" = 42 ] || fail "the jq that apt installed says '$answer'"
echo "jq works: 6 x 7 = $answer; $installed packages in $apt_how"

say "inside: skopeo and containerd pull from the mirror alone"
images_inside

say "inside: onnxruntime and llama.cpp load models by name, from the mirror alone"
models_inside

# ---------------------------------------------------------------- the delta
say "outside: one more package, and what it costs"
cd "$work/outside"
cp all.txt requirements.txt
run "$dm" export --volume-size 64MiB
second=$(ls -d "$outbox"/*-000002-*)
second_bytes=$(du -sb "$second" | cut -f1)
second_payload=$(cat "$second"/volumes/* | wc -c)
run "$dm" diff "$work/inside/inbox/$(basename "$first")" "$second" || :
chmod u+w "$work/inside/inbox"
mv "$second" "$work/inside/inbox/"
cd "$work/inside"
run in_server "$dm" import
run pip_in install -q --require-hashes --only-binary :all: --index-url "http://$addr:$port/pypi/main/simple/" --trusted-host "$addr" -r "$work/outside/requirements.txt"
in_client env -i "$work/venv/bin/python" -c 'import jinja2; print(jinja2.Template("jinja2 {{ v }} came with the delta").render(v=jinja2.__version__))'

say "inside: into DevPI and pypiserver, where somebody has put files before; pip installs from each"
devpi_inside

# ---------------------------------------------------------------- the count
if [ $root = yes ]; then
	unrouted=$(($(attempts in_client) + $(attempts in_server)))
	sleep 1
	kill -INT "$dump_pid"
	wait "$dump_pid" || :
	dump_pid=
	seen=$(tcpdump -nn -r "$work/capture.pcap" 2>/dev/null | wc -l)
	[ "$seen" -gt 100 ] || fail "the capture holds $seen packets; it did not see the installs"
	left=$(tcpdump -nn -r "$work/capture.pcap" "not (host 10.213.7.1 and host 10.213.7.2) and not net 127.0.0.0/8" 2>/dev/null | wc -l)
	egress="$left of $seen packets went anywhere but to the mirror; $unrouted attempts without a route"
else
	left=0 unrouted=0
	egress="not measured (needs root)"
fi
say "summary"
echo "first bundle    $(mib "$first_bytes"), exported in ${export_seconds}s, imported in ${import_seconds}s"
echo "second bundle   $(mib "$second_bytes") ($second_payload bytes of volumes), for jinja2 and markupsafe"
echo "pip             $numpy"
echo "apt             $installed packages in $apt_how"
echo "images          $images_files files as $images_clients unpacked them; $images_total"
echo "models          $models_text"
echo "targets         $devpi_text"
echo "egress          $egress"
echo "whole demo      $((SECONDS - seconds0))s"
[ "$left" = 0 ] && [ "$unrouted" = 0 ] || fail "something tried to leave"
echo "demo passed"
