#!/usr/bin/env bash
# Real containerd and skopeo with the files that `darkmirror clients` writes:
# images are pulled by their original names, in network and mount namespaces
# of their own where there is no route, nothing resolves, and the only server
# is darkmirror serve. Once over TLS, once over plain http. Every name that is
# asked of the DNS is written down: asking for a registry's name is a failure,
# and so is a pull that works with the mirror stopped. Needs root.
set -euo pipefail
cd "$(dirname "$0")/../.."
here=$PWD
dm=$here/bin/darkmirror
fail() { echo "containerd.sh: $*" >&2; exit 1; }

if [ "${1:-}" != inside ]; then
	[ "$(id -u)" = 0 ] || fail "needs root, for namespaces and containerd"
	[ -x "$dm" ] || fail "$dm is not there: make build"
	missing=
	packages=
	need() { command -v "$1" >/dev/null 2>&1 || { missing="$missing $1"; packages="$packages $2"; }; }
	need containerd containerd
	need ctr containerd
	need skopeo skopeo
	need openssl openssl
	need python3 python3
	need ip iproute2
	need unshare util-linux
	if [ -n "$missing" ]; then
		command -v apt-get >/dev/null 2>&1 || fail "missing:$missing"
		# shellcheck disable=SC2086 # a list of package names
		{ apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $packages; } >/tmp/darkmirror-need.$$ 2>&1 || {
			tail -5 /tmp/darkmirror-need.$$ >&2
			fail "could not install:$missing"
		}
		rm -f /tmp/darkmirror-need.$$
	fi
	work=$(mktemp -d "${TMPDIR:-/tmp}/darkmirror-nodes.XXXXXX")
	status=0
	# Every process of the run ends with the first of its namespace.
	unshare --net --mount --pid --fork --kill-child --mount-proc bash "$0" inside "$work" || status=$?
	rm -rf "$work"
	exit $status
fi

# ---- in the namespaces

work=$2
cd "$work"
passed=0
ok() { passed=$((passed + 1)); printf 'ok    %s\n' "$*"; }
ip link set lo up
if ip route show table all | grep -qE 'default|via'; then fail "there is a route out: $(ip route show table all)"; fi

# etc DIR... lays folders over /etc, for the processes of this run alone.
laid=
etc() {
	[ -z "$laid" ] || umount /etc
	mount -t overlay overlay -o "lowerdir=$(IFS=:; echo "$*"):$work/host-etc" /etc
	laid=yes
}
mkdir host-etc base
mount --bind /etc host-etc
printf '127.0.0.1 localhost mirror.example\n' >base/hosts
printf 'nameserver 127.0.0.1\noptions timeout:1 attempts:1\n' >base/resolv.conf
printf 'hosts: files dns\n' >base/nsswitch.conf

# A name server that knows nothing and writes down what it was asked.
: >dns.log
python3 - dns.log <<'PY' &
import socket, sys
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
s.bind(("127.0.0.1", 53))
open(sys.argv[1] + ".ready", "w").close()
while True:
    q, peer = s.recvfrom(4096)
    name, i = [], 12
    while i < len(q) and q[i]:
        name.append(q[i + 1:i + 1 + q[i]].decode("ascii", "replace"))
        i += 1 + q[i]
    with open(sys.argv[1], "a") as f:
        f.write(".".join(name) + "\n")
    s.sendto(q[:2] + b"\x81\x83" + q[4:6] + b"\0" * 6 + q[12:i + 5], peer)  # NXDOMAIN
PY
for _ in $(seq 100); do [ -e dns.log.ready ] && break; sleep 0.1; done
[ -e dns.log.ready ] || fail "the name server did not start"
asked() { grep -E '(registry|hub|other)\.example' dns.log | sort | uniq -c; }

# An image with two layers, as an OCI layout.
case $(uname -m) in
x86_64) arch=amd64 ;;
aarch64) arch=arm64 ;;
*) fail "no architecture name for $(uname -m)" ;;
esac
image() { # image DIR TAG TEXT
	python3 - "$1" "$2" "$3" "$arch" <<'PY'
import gzip, hashlib, io, json, os, sys, tarfile
out, tag, text, arch = sys.argv[1:]
blobs = os.path.join(out, "blobs", "sha256")
os.makedirs(blobs)
def put(b, kind):
    h = hashlib.sha256(b).hexdigest()
    with open(os.path.join(blobs, h), "wb") as f:
        f.write(b)
    return {"mediaType": kind, "digest": "sha256:" + h, "size": len(b)}
layers, diffs = [], []
for name, body in (("one", text * 1000), ("two", text[::-1] * 1000)):
    raw = io.BytesIO()
    with tarfile.open(fileobj=raw, mode="w") as t:
        info = tarfile.TarInfo(name)
        info.size = len(body)
        t.addfile(info, io.BytesIO(body.encode()))
    diffs.append("sha256:" + hashlib.sha256(raw.getvalue()).hexdigest())
    layers.append(put(gzip.compress(raw.getvalue(), mtime=0), "application/vnd.oci.image.layer.v1.tar+gzip"))
config = put(json.dumps({"architecture": arch, "os": "linux", "config": {}, "rootfs": {"type": "layers", "diff_ids": diffs}}).encode(), "application/vnd.oci.image.config.v1+json")
manifest = put(json.dumps({"schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json", "config": config, "layers": layers}).encode(), "application/vnd.oci.image.manifest.v1+json")
manifest["annotations"] = {"org.opencontainers.image.ref.name": tag}
with open(os.path.join(out, "index.json"), "w") as f:
    json.dump({"schemaVersion": 2, "manifests": [manifest]}, f)
with open(os.path.join(out, "oci-layout"), "w") as f:
    f.write('{"imageLayoutVersion": "1.0.0"}')
PY
}
digest() { python3 -c 'import json, sys; print(json.load(open(sys.argv[1] + "/index.json"))["manifests"][0]["digest"])' "$1"; }
image tiny 1.0 "an image of registry.example; "
image app 2.0 "an image of registry.example:5000; "

# A CA, and a certificate of it for the mirror.
openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -keyout ca.key -out ca.crt -days 2 -subj "/CN=Inside CA" 2>openssl.log
openssl req -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -keyout tls.key -out tls.csr -subj "/CN=mirror.example" 2>>openssl.log
printf 'subjectAltName=DNS:mirror.example\nbasicConstraints=CA:FALSE\n' >san
openssl x509 -req -in tls.csr -CA ca.crt -CAkey ca.key -CAcreateserial -days 2 -extfile san -out leaf.crt 2>>openssl.log
cat leaf.crt ca.crt >tls.crt
echo push-password >push.token
echo pull-password >pull.token

serve_pid=
ctd_pid=
stop() { # stop PID
	kill "$1" 2>/dev/null || :
	wait "$1" 2>/dev/null || :
}
serve() { # serve DIR
	"$dm" --config "$1/darkmirror.yaml" serve >"$1/serve.log" 2>&1 &
	serve_pid=$!
	for _ in $(seq 100); do grep -q ^ready "$1/serve.log" && return; sleep 0.1; done
	fail "serve did not start: $(cat "$1/serve.log")"
}
ctr_() { ctr -a "$work/ctd.sock" "$@"; }
# ctr 2 would have the daemon pull, which needs to be told of the snapshotter.
local_=
case $(ctr --version | awk '{ print $3 }') in 2.* | v2.*) local_=--local ;; esac
pull() { ctr_ -n "$1" images pull $local_ --hosts-dir /etc/containerd/certs.d --snapshotter native "$2"; } # pull NAMESPACE IMAGE
ctr_digest() { ctr_ -n "$1" images ls | awk -v ref="$2" '$1 == ref { print $3 }'; }
sk() { skopeo --insecure-policy "$@"; }

# One daemon with folders of its own; what is pulled says where from.
printf 'version = 2\ndisabled_plugins = ["io.containerd.grpc.v1.cri", "io.containerd.cri.v1.images", "io.containerd.cri.v1.runtime", "io.containerd.grpc.v1.cri"]\n' >ctd.toml
containerd --config ctd.toml --root "$work/ctd/root" --state "$work/ctd/state" --address "$work/ctd.sock" --log-level warn >ctd.log 2>&1 &
ctd_pid=$!
for _ in $(seq 100); do ctr_ version >/dev/null 2>&1 && break; sleep 0.1; done
ctr_ version >/dev/null 2>&1 || fail "containerd did not start: $(tail -5 ctd.log)"
ctdv=$(containerd --version | awk '{ print $3 }')
skv=$(skopeo --version | awk '{ print $3 }')

# The watch sees a client that asks: without the settings both look for the
# registry itself.
etc "$work/base"
if pull control registry.example/library/tiny:1.0 >ctr.out 2>&1; then fail "containerd pulled without a mirror"; fi
[ -n "$(asked)" ] || fail "containerd did not ask for registry.example, so the watch sees nothing: $(cat ctr.out)"
: >dns.log
if sk inspect docker://registry.example/library/tiny:1.0 >sk.out 2>&1; then fail "skopeo pulled without a mirror"; fi
[ -n "$(asked)" ] || fail "skopeo did not ask for registry.example, so the watch sees nothing: $(cat sk.out)"
ok "without the settings containerd $ctdv and skopeo $skv ask for registry.example, and are seen"

run() { # run SCHEME PORT [login]
	local scheme=$1 at=mirror.example:$2 dir=$1${3:-} n=$1${3:-} want got ref miss
	mkdir -p "$dir/inbox"
	cat >"$dir/darkmirror.yaml" <<YAML
version: 1
role: inside
state_dir: state
inbox: [inbox]
oci: [{name: platform}, {name: team}]
serve:
  listen: 127.0.0.1:$2
  name: mirror.example
  push_token_file: $work/push.token
YAML
	[ -z "${3:-}" ] || printf '  pull_token_file: %s\n' "$work/pull.token" >>"$dir/darkmirror.yaml"
	[ "$scheme" = http ] || printf '  certificate: %s\n  key_file: %s\n' "$work/tls.crt" "$work/tls.key" >>"$dir/darkmirror.yaml"
	etc "$work/base"
	serve "$dir"

	# Pushed by the mirror's own name; the second image into the second source.
	local trust=--dest-tls-verify=false
	if [ "$scheme" = https ]; then
		mkdir -p certs
		cp ca.crt certs/
		trust=--dest-cert-dir=$work/certs
	fi
	sk copy -q "$trust" --dest-creds "push:$(cat push.token)" oci:tiny:1.0 "docker://$at/platform/registry.example/library/tiny:1.0" || fail "$scheme: push"
	sk copy -q "$trust" --dest-creds "push:$(cat push.token)" oci:app:2.0 "docker://$at/team/registry.example-5000/group/app:2.0" || fail "$scheme: push"

	# The files, as they would lie on a node.
	"$dm" --config "$dir/darkmirror.yaml" clients --host registry.example --host registry.example:5000 --dir "$dir/node" >"$dir/clients.log" 2>"$dir/clients.err" || fail "clients: $(cat "$dir/clients.err")"
	etc "$work/base" "$work/$dir/node/etc"
	: >dns.log
	export REGISTRY_AUTH_FILE=$work/$dir/auth.json
	if [ -n "${3:-}" ]; then
		scheme="$scheme with a login"
		if pull "$n" registry.example/library/tiny:1.0 >ctr.out 2>&1; then fail "$scheme: containerd pulled without it"; fi
		if sk inspect docker://registry.example/library/tiny:1.0 >sk.out 2>&1; then fail "$scheme: skopeo pulled without it"; fi
		[ -z "$(asked)" ] || fail "$scheme: without it a registry's name was asked for: $(asked)"
		# As the files say: the lines that are comments, and the password.
		find "$dir/node/etc/containerd/certs.d" -name hosts.toml -exec \
			sed -i -e '/^#\[/s/^#//' -e "/^# *Authorization/s/^#//; s/BASE64\"/$(printf 'any:%s' "$(cat pull.token)" | base64)\"/" {} +
		skopeo login -u any --password-stdin "$at" <pull.token >/dev/null || fail "$scheme: skopeo login"
		etc "$work/base" "$work/$dir/node/etc"
	fi

	for ref in registry.example/library/tiny:1.0 registry.example:5000/group/app:2.0 "$at/platform/registry.example/library/tiny:1.0" "registry.example/library/tiny@$(digest tiny)"; do
		case $ref in
		*/app:*) want=$(digest app) ;;
		*) want=$(digest tiny) ;;
		esac
		pull "$n" "$ref" >ctr.out 2>&1 || fail "$scheme: containerd: $ref: $(tail -3 ctr.out)"
		got=$(ctr_digest "$n" "$ref")
		[ "$got" = "$want" ] || fail "$scheme: containerd: $ref is $got, want $want"
		rm -rf out
		sk copy -q "docker://$ref" oci:out:x >sk.out 2>&1 || fail "$scheme: skopeo: $ref: $(tail -3 sk.out)"
		got=$(digest out)
		[ "$got" = "$want" ] || fail "$scheme: skopeo: $ref is $got, want $want"
	done
	ok "$scheme: containerd and skopeo pull by the original names, by tag and digest"

	# What the mirror does not have is not found, and looked for nowhere else;
	# containerd does not leave for a registry that nobody has set up either.
	for miss in registry.example/library/none:1.0 registry.example:5000/group/app:3.0 other.example/group/app:2.0; do
		if pull "$n" "$miss" >ctr.out 2>&1; then fail "$scheme: containerd pulled $miss"; fi
		grep -qi 'not found' ctr.out || fail "$scheme: containerd: $miss: want not found, got: $(tail -1 ctr.out)"
		case $miss in other.*) continue ;; esac
		if sk inspect "docker://$miss" >sk.out 2>&1; then fail "$scheme: skopeo found $miss"; fi
		grep -q 'is blocked' sk.out || fail "$scheme: skopeo: $miss: want it blocked, got: $(tail -1 sk.out)"
	done
	[ -z "$(asked)" ] || fail "$scheme: a registry's name was asked for: $(asked)"
	ok "$scheme: what is missing is not found, and no registry's name is asked for"

	# The same pulls need the mirror.
	stop "$serve_pid"
	serve_pid=
	if pull "$n-stopped" registry.example/library/tiny:1.0 >ctr.out 2>&1; then fail "$scheme: containerd pulled with the mirror stopped: it was not asked"; fi
	grep -q 'connection refused' ctr.out || fail "$scheme: containerd did not try the mirror: $(tail -1 ctr.out)"
	rm -rf out
	if sk copy -q docker://registry.example/library/tiny:1.0 oci:out:x >sk.out 2>&1; then fail "$scheme: skopeo pulled with the mirror stopped: it was not asked"; fi
	[ -z "$(asked)" ] || fail "$scheme: with the mirror stopped a registry's name was asked for: $(asked)"
	ok "$scheme: with the mirror stopped both fail, and ask nobody else"

	# The lines for config.toml name the folder.
	local release=1.x section=io.containerd.grpc.v1.cri
	case ${ctdv#v} in 2.*) release=2.x section=io.containerd.cri.v1.images ;; esac
	containerd --config "/etc/containerd/darkmirror-$release.toml" config dump >dump.out 2>&1 || fail "containerd refuses darkmirror-$release.toml: $(tail -3 dump.out)"
	grep -A1 "$section.*registry\]" dump.out | grep -q 'config_path = ["'\'']/etc/containerd/certs.d["'\'']' || fail "darkmirror-$release.toml does not set config_path of $section"
	ok "$scheme: containerd $ctdv takes config_path of $section"
}
run https 8443
run http 8080
run https 8444 login
stop "$ctd_pid"
echo "$passed passed, 0 failed"
