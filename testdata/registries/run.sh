#!/usr/bin/env bash
# Real registries as upstream and as targets; make registries runs both parts.
#
#   counts  images with an SBOM, a nested referrer, a cosign signature and a
#           chart go out of docker-registry, through a bundle, into
#           docker-registry, distribution v3 and darkmirror serve: everything
#           is walked and hashed, and each listing must be the upstream's.
#   kill    a layer of 1 GiB: the export, and then the import into a registry,
#           are killed in its middle and run again. A relay counts the bytes:
#           neither may move more than one chunk twice.
#
# run.sh [counts] [kill]; both without an argument.
set -euo pipefail
cd "$(dirname "$0")/../.."
here=$PWD
dm=$here/bin/darkmirror
v3=v3.1.2
v3_bin=$here/.cache/tools/registry-$v3
chunk=$((64 << 20))
work=$(mktemp -d "${TMPDIR:-/tmp}/darkmirror-registries.XXXXXX")
pids=()
cleanup() {
	status=$?
	for p in ${pids[@]+"${pids[@]}"}; do kill "$p" 2>/dev/null || :; done
	wait 2>/dev/null || :
	rm -rf "$work"
	exit $status
}
trap cleanup EXIT
fail() { echo "registries: $*" >&2; exit 1; }

[ -x "$dm" ] || fail "bin/darkmirror is missing: make build"
sh testdata/need.sh demo >/dev/null
docker_registry=$here/.cache/deb/usr/bin/docker-registry
[ -x "$docker_registry" ] || docker_registry=$(command -v docker-registry) || fail "docker-registry is missing: sh testdata/need.sh demo"
if [ ! -x "$v3_bin" ]; then
	mkdir -p "$work/gobin" "$here/.cache/tools"
	GOFLAGS=-mod=mod GOBIN=$work/gobin go install "github.com/distribution/distribution/v3/cmd/registry@$v3"
	mv "$work/gobin/registry" "$v3_bin"
fi
CGO_ENABLED=0 go build -trimpath -buildvcs=false -o "$work/images" ./testdata/demo/images

free_port() { python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])'; }
await() { for _ in $(seq 100); do python3 -c "import socket; socket.create_connection(('127.0.0.1', $1), 1)" 2>/dev/null && return; sleep 0.1; done; fail "nothing listens on port $1"; }

# registry NAME PROGRAM starts one and sets port.
registry() {
	port=$(free_port)
	mkdir -p "$work/$1"
	cat >"$work/$1.yml" <<-YML
		version: 0.1
		log: {level: error, accesslog: {disabled: true}}
		storage: {filesystem: {rootdirectory: $work/$1}}
		http: {addr: "127.0.0.1:$port"}
	YML
	# docker-registry takes every REGISTRY_ variable for a setting.
	env -i PATH="$PATH" HOME="$work" "$2" serve "$work/$1.yml" >"$work/$1.log" 2>&1 &
	pids+=($!)
	await "$port"
}

# outside PORT IMAGES and inside NAME PORT EXTRA write the two configurations.
outside() {
	mkdir -p "$work/outside" && cd "$work/outside"
	cat >darkmirror.yaml <<-YML
		version: 1
		role: outside
		state_dir: state
		outbox: ../box
		signing_key: signing.key
		scan: {types: {unknown: allow}} # the large layers are noise
		oci:
		  - name: platform
		    registry: http://127.0.0.1:$1
		    allow_http: true
		    host: registry.example
		    images: [$2]
	YML
	[ -f signing.key ] || "$dm" key generate --name exporter-test >/dev/null
	cd "$here"
}

inside() {
	mkdir -p "$work/$1" && cd "$work/$1"
	cat >darkmirror.yaml <<-YML
		version: 1
		role: inside
		state_dir: state
		inbox: [../box]
		oci:
		  - name: platform
		    registry: http://127.0.0.1:$2
		    allow_http: true
		$3
	YML
	"$dm" key trust "$work/outside/signing.key.pub" >/dev/null
	cd "$here"
}

counts() {
	registry upstream "$docker_registry"
	local up=$port name a
	for a in amd64 arm64; do
		mkdir -p "$work/root-$a/etc" "$work/root-$a/var/lib/dpkg" && echo "$a" >"$work/root-$a/etc/hostname"
		printf 'Package: base-files\nStatus: install ok installed\nVersion: 1\nArchitecture: %s\n' "$a" >"$work/root-$a/var/lib/dpkg/status"
		tar -cf "$work/root-$a.tar" -C "$work/root-$a" --sort=name --mtime=@1700000000 --owner=0 --group=0 .
	done
	"$work/images" push "http://127.0.0.1:$up" "linux/amd64=$work/root-amd64.tar" "linux/arm64/v8=$work/root-arm64.tar" >/dev/null
	"$work/images" walk "http://127.0.0.1:$up" "" >"$work/outside.list"
	echo "outside            $(tail -1 "$work/outside.list")"
	[[ $(tail -1 "$work/outside.list") == *"SBOMs 1, referrers 2, nested referrers 1, good signatures 2"* ]] || fail "that is not what was pushed"
	outside "$up" 'debian/base:demo, "charts/hello:0.1.0_demo.1"'
	(cd "$work/outside" && "$dm" export >/dev/null)
	for name in docker-registry distribution-v3 darkmirror-serve; do
		local extra=""
		case $name in
		docker-registry) registry "$name-data" "$docker_registry" ;;
		distribution-v3) registry "$name-data" "$v3_bin" ;;
		darkmirror-serve)
			mkdir -p "$work/serve" && (umask 077 && echo token-of-this-test >"$work/serve/token")
			port=$(free_port)
			printf 'version: 1\nrole: inside\nstate_dir: state\noci:\n  - name: mirror\nserve:\n  listen: 127.0.0.1:%s\n  push_token_file: token\n' "$port" >"$work/serve/darkmirror.yaml"
			(cd "$work/serve" && exec "$dm" serve >serve.log 2>&1) &
			pids+=($!)
			await "$port"
			extra=$(printf '    user: anybody\n    password_file: %s' "$work/serve/token")
			;;
		esac
		inside "$name" "$port/mirror" "$extra"
		(cd "$work/$name" && "$dm" import >import.log) || { cat "$work/$name/import.log" >&2; fail "$name: import"; }
		"$work/images" walk "http://127.0.0.1:$port" mirror/registry.example >"$work/$name.list"
		diff "$work/outside.list" "$work/$name.list" >&2 || fail "$name has not what the upstream has"
		printf '%-18s %s\n' "$name" "$(tail -1 "$work/$name.list")"
	done
}

# relay TARGET-PORT NAME starts a counting relay and sets relay_port.
relay() {
	relay_port=$(free_port)
	python3 testdata/registries/counter.py "$relay_port" "$1" "$work/$2.count" &
	pids+=($!)
	await "$relay_port"
}

# killed_at FILE FIELD BYTES FOLDER COMMAND runs darkmirror in a folder, kills
# it when so many bytes have passed, and runs it again.
killed_at() {
	local file=$1 field=$2 bytes=$3 folder=$4 pid n
	shift 4
	(cd "$folder" && exec "$dm" "$@" >killed.log 2>&1) &
	pid=$!
	while :; do
		n=$(cut -d' ' -f"$field" "$file")
		[ "${n:-0}" -lt "$bytes" ] || break
		kill -0 "$pid" 2>/dev/null || fail "$1 ended before it could be killed: $(tail -3 "$folder/killed.log")"
		sleep 0.01
	done
	kill -9 "$pid"
	wait "$pid" 2>/dev/null || :
	killed=$n
	(cd "$folder" && "$dm" "$@" >again.log 2>&1) || { tail -5 "$folder/again.log" >&2; fail "$1 after the kill"; }
}

kill_test() {
	local size=$((1 << 30)) up total most status slack=$((1 << 20))
	registry kill-upstream "$v3_bin"
	up=$port
	head -c $size /dev/urandom >"$work/layer"
	python3 - "$up" "$work/layer" <<-'PY'
		import hashlib, http.client, json, os, sys
		port, layer = int(sys.argv[1]), sys.argv[2]
		def digest(f):
		    return "sha256:" + hashlib.file_digest(f, "sha256").hexdigest()
		def blob(path):
		    c = http.client.HTTPConnection("127.0.0.1", port)
		    c.request("POST", "/v2/big/image/blobs/uploads/")
		    r = c.getresponse(); r.read()
		    at = r.headers["Location"].split(f":{port}", 1)[-1]
		    with open(path, "rb") as f:
		        d = digest(f); f.seek(0)
		        c.request("PUT", at + ("&" if "?" in at else "?") + "digest=" + d, f, {"Content-Length": str(os.path.getsize(path))})
		        r = c.getresponse(); r.read()
		    assert r.status == 201, r.status
		    return {"digest": d, "size": os.path.getsize(path)}
		with open(layer + ".config", "w") as f:
		    f.write('{"os":"linux","architecture":"amd64"}')
		m = json.dumps({"schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json",
		    "config": {"mediaType": "application/vnd.oci.image.config.v1+json", **blob(layer + ".config")},
		    "layers": [{"mediaType": "application/vnd.oci.image.layer.v1.tar", **blob(layer)}]})
		c = http.client.HTTPConnection("127.0.0.1", port)
		c.request("PUT", "/v2/big/image/manifests/1", m, {"Content-Type": "application/vnd.oci.image.manifest.v1+json"})
		assert c.getresponse().status == 201
	PY
	rm -rf "$work/layer" "$work/outside" "$work/box"
	relay "$up" pull
	outside "$relay_port" 'big/image:1'
	killed_at "$work/pull.count" 2 $((size / 2)) "$work/outside" export
	sleep 0.1
	total=$(cut -d' ' -f2 "$work/pull.count")
	most=$((size + chunk + slack))
	printf 'pull   killed at %4d MiB, %5d MiB in all, %d MiB of them twice (at most %d)\n' $((killed >> 20)) $((total >> 20)) $(((total - size) >> 20)) $((chunk >> 20))
	[ "$total" -le "$most" ] || fail "the pull has fetched too much again"
	registry kill-target "$v3_bin"
	relay "$port" push
	inside kill-inside "$relay_port" ""
	killed_at "$work/push.count" 1 $((size / 2)) "$work/kill-inside" import
	sleep 0.1
	total=$(cut -d' ' -f1 "$work/push.count")
	printf 'push   killed at %4d MiB, %5d MiB in all, %d MiB of them twice (at most %d)\n' $((killed >> 20)) $((total >> 20)) $(((total - size) >> 20)) $((chunk >> 20))
	[ "$total" -le "$most" ] || fail "the push has sent too much again"
	status=$(python3 -c "import http.client; c = http.client.HTTPConnection('127.0.0.1', $port); c.request('HEAD', '/v2/registry.example/big/image/manifests/1', headers={'Accept': 'application/vnd.oci.image.manifest.v1+json'}); print(c.getresponse().status)")
	[ "$status" = 200 ] || fail "the image is not in the target: $status"
}

[ $# -gt 0 ] || set -- counts kill
for what; do
	case $what in
	counts) counts ;;
	kill) kill_test ;;
	*) fail "counts or kill" ;;
	esac
done
