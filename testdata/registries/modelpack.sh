#!/bin/sh
# Models as OCI artifacts, in real hands. A model and a dataset go out of a folder,
# through a bundle, into docker-registry and into darkmirror serve.
#
#   ModelPack  oras pull must bring back every file, byte for byte, and each layer
#              must have the SHA-256 of its file. The store may not have grown
#              by as much as the smallest weight.
#   modelcar   skopeo copies the image for both platforms; its layers, unpacked
#              one over the other, must hold the files below models/.
#
# Then the model changes and the dataset goes: the layer of what stays is not
# pushed again, and darkmirror serve knows the dataset no more.
set -eu
cd "$(dirname "$0")/../.."
here=$PWD
dm=$here/bin/darkmirror
oras_version=v1.3.6
oras=$here/.cache/tools/oras-$oras_version
work=$(mktemp -d "${TMPDIR:-/tmp}/darkmirror-modelpack.XXXXXX")
pids=
# shellcheck disable=SC2317 # called by the trap
cleanup() {
	status=$?
	for p in $pids; do kill "$p" 2>/dev/null || :; done
	wait 2>/dev/null || :
	rm -rf "$work"
	exit $status
}
trap cleanup EXIT
trap 'exit 130' INT TERM
fail() { echo "modelpack: $*" >&2; exit 1; }

[ -x "$dm" ] || fail "bin/darkmirror is missing: make build"
sh testdata/need.sh demo >/dev/null
docker_registry=$here/.cache/deb/usr/bin/docker-registry
[ -x "$docker_registry" ] || docker_registry=$(command -v docker-registry) || fail "docker-registry is missing: sh testdata/need.sh demo"
command -v skopeo >/dev/null || fail "skopeo is missing: sh testdata/need.sh demo"
if [ ! -x "$oras" ]; then
	mkdir -p "$work/gobin" "$here/.cache/tools"
	GOFLAGS=-mod=mod GOBIN=$work/gobin go install "oras.land/oras/cmd/oras@$oras_version"
	mv "$work/gobin/oras" "$oras"
fi

free_port() { python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])'; }
await() {
	n=0
	until python3 -c "import socket; socket.create_connection(('127.0.0.1', $1), 1)" 2>/dev/null; do
		n=$((n + 1))
		[ $n -lt 100 ] || fail "nothing listens on port $1"
		sleep 0.1
	done
}
sums() { (cd "$1" && find . -type f ! -path './.git/*' -exec sha256sum {} + | LC_ALL=C sort -k2); }
clean() { env -i PATH="$PATH" HOME="$work/home" TMPDIR="$work" "$@"; }
# A server takes the place of its subshell, so that $! is the server.
server() { exec env -i PATH="$PATH" HOME="$work/home" TMPDIR="$work" "$@"; }

# ------------------------------------------------------------ what is carried
model=$work/hub/Team/Model
data=$work/hub/datasets/team/data
mkdir -p "$work/home" "$work/outside" "$work/inside" "$work/box" "$model/sub folder" "$data/train"
head -c 40000000 /dev/urandom >"$model/model-00001-of-00002.safetensors"
head -c 20000000 /dev/urandom >"$model/model-00002-of-00002.safetensors"
printf '{"weight_map":{"a":"model-00001-of-00002.safetensors","b":"model-00002-of-00002.safetensors"}}' >"$model/model.safetensors.index.json"
echo '{"model_type":"bert"}' >"$model/config.json"
cp "$model/config.json" "$model/sub folder/twin.json" # one layer for two files
: >"$model/__init__.py"                               # a layer without bytes
printf -- '---\nlicense: apache-2.0\n---\n# Card\n' >"$model/README.md"
head -c 300000 /dev/urandom >"$data/train/0.parquet"

cat >"$work/outside/darkmirror.yaml" <<YML
version: 1
role: outside
state_dir: state
outbox: ../box
signing_key: signing.key
scan: {models: {hold: [critical]}, unscanned: warn} # the weights are noise
models:
  - name: llm
    folder: $work/hub
    repositories: [Team/Model, datasets/team/data]
YML
(cd "$work/outside" && "$dm" key generate --name exporter-test >/dev/null && "$dm" export >export.log) || { cat "$work/outside/export.log" >&2; fail export; }

# ------------------------------------------------------------ where it goes
registry_port=$(free_port)
cat >"$work/registry.yml" <<YML
version: 0.1
log: {level: error, accesslog: {disabled: true}}
storage: {filesystem: {rootdirectory: $work/registry}}
http: {addr: "127.0.0.1:$registry_port"}
YML
server "$docker_registry" serve "$work/registry.yml" >"$work/registry.log" 2>&1 &
pids="$pids $!"
await "$registry_port"

serve_port=$(free_port)
inside() { # inside MODELCAR
	cat >"$work/inside/darkmirror.yaml" <<-YML
		version: 1
		role: inside
		state_dir: state
		inbox: [../box]
		models:
		  - name: llm
		oci:
		  - name: models
		    models: llm
		    modelcar: $1
		    registry: http://127.0.0.1:$registry_port/mirror
		    allow_http: true
		serve:
		  listen: 127.0.0.1:$serve_port
	YML
}
import() { (cd "$work/inside" && "$dm" import >import.log 2>&1) || { cat "$work/inside/import.log" >&2; fail import; }; }
size() { find "$work/inside/state/store/blobs" -type f -printf '%s\n' | awk '{n += $1} END {print n}'; }
inside false
(cd "$work/inside" && "$dm" key trust "$work/outside/signing.key.pub" >/dev/null)
import
carried=$(find "$work/hub" -type f -printf '%s\n' | awk '{n += $1} END {print n}')
grown=$(($(size) - carried))
[ $grown -lt 300000 ] || fail "the store has $grown bytes more than the files"
printf 'store    %d bytes for %d bytes of files\n' "$(size)" "$carried"
(cd "$work/inside" && exec "$dm" serve >serve.log 2>&1) &
pids="$pids $!"
await "$serve_port"

# pull PLACE REPOSITORY FOLDER
pull() {
	rm -rf "$work/pulled"
	clean "$oras" pull --plain-http -o "$work/pulled" "$1/$2:main" >"$work/oras.log" 2>&1 || { cat "$work/oras.log" >&2; fail "oras pull $1/$2"; }
	sums "$3" >"$work/want"
	sums "$work/pulled" >"$work/got"
	diff "$work/want" "$work/got" >&2 || fail "$2 of $1 is not what went out"
	clean "$oras" manifest fetch --plain-http "$1/$2:main" >"$work/manifest.json"
	python3 - "$work/manifest.json" "$work/want" <<-'PY' || fail "the manifest of $2 of $1"
		import json, sys
		m = json.load(open(sys.argv[1]))
		assert m["artifactType"] == "application/vnd.cncf.model.manifest.v1+json", m["artifactType"]
		layers = sorted((l["annotations"]["org.cncf.model.filepath"], l["digest"]) for l in m["layers"])
		files = sorted((p.strip()[2:], "sha256:" + d) for d, p in (s.split(" ", 1) for s in open(sys.argv[2])))
		assert layers == files, (layers, files)
	PY
	printf 'oras     %-40s %d files, each layer its file\n' "$1/$2" "$(wc -l <"$work/want")"
}
serve=127.0.0.1:$serve_port/models
registry=127.0.0.1:$registry_port/mirror
for place in "$serve" "$registry"; do
	pull "$place" team/model "$model"
	pull "$place" datasets/team/data "$data"
done

# ------------------------------------------------------------ modelcar
# The configuration asks for more, and the next bundle brings it: a model that
# has changed, and no dataset.
inside true
rm -r "$data"
echo '{"model_type":"roberta"}' >"$model/config.json"
sed -i 's|, datasets/team/data||' "$work/outside/darkmirror.yaml"
(cd "$work/outside" && "$dm" export >export.log) || { cat "$work/outside/export.log" >&2; fail "second export"; }
blobs() { find "$work/registry" -path '*/blobs/sha256/*/data' | wc -l; }
before=$(blobs)
import
printf 'push     %d new blobs in the registry\n' $(($(blobs) - before))
for place in "$serve" "$registry"; do
	pull "$place" team/model "$model"
	for arch in amd64 arm64; do
		rm -rf "$work/car" "$work/tree"
		mkdir "$work/tree"
		clean skopeo --insecure-policy --override-os linux --override-arch $arch copy -q --src-tls-verify=false "docker://$place/team/model-modelcar:main" "dir:$work/car" || fail "skopeo copy for $arch"
		python3 -c 'import json, sys; m = json.load(open(sys.argv[1])); print("\n".join([m["config"]["digest"][7:]] + [l["digest"][7:] for l in m["layers"]]))' "$work/car/manifest.json" >"$work/layers"
		grep -q "\"architecture\":\"$arch\"" "$work/car/$(head -1 "$work/layers")" || fail "the image is not for $arch"
		sed 1d "$work/layers" | while read -r layer; do tar -xf "$work/car/$layer" -C "$work/tree"; done
		sums "$model" >"$work/want"
		sums "$work/tree/models" >"$work/got"
		diff "$work/want" "$work/got" >&2 || fail "the modelcar for $arch of $place is not what went out"
		[ "$(ls "$work/tree")" = models ] || fail "there is more than models/ in the image"
		printf 'modelcar %-40s linux/%s, %d layers\n' "$place" $arch "$(($(wc -l <"$work/layers") - 1))"
	done
done
! clean "$oras" manifest fetch --plain-http "$serve/datasets/team/data:main" >/dev/null 2>&1 || fail "the dataset that has gone is still served"
(cd "$work/inside" && "$dm" import >import.log) || fail "the second import of the same"
echo "modelpack: all as it went out"
