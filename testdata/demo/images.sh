# The demo's images: run.sh reads this file and calls images_outside and
# images_inside. Needs of run.sh: work, here, dm, suite, arch, root, addr, port,
# in_client, ns_client, fail.
# shellcheck shell=bash disable=SC2154

images=$work/images
images_bin=$images/images
images_port=18050
images_epoch=1700000000 # of build.go too
registry_pid= containerd_pid= containerd_dir=
# Debian's own docker-registry and containerd, which need.sh unpacked.
images_path=$here/.cache/deb/usr/bin:$PATH

images_cleanup() {
	[ -z "$registry_pid" ] || kill "$registry_pid" 2>/dev/null || :
	[ -z "$containerd_pid" ] || kill "$containerd_pid" 2>/dev/null || :
	[ -z "$containerd_dir" ] || rm -rf "$containerd_dir"
}

# image_root ARCH writes root-ARCH.tar: by mmdebstrap, the host's architecture
# whole, the other one unpacked, for its programs do not run here.
image_root() {
	local a=$1 how hooks=()
	if [ "$a" = "$arch" ]; then
		how=(--variant=essential)
		[ ! -d /usr/share/mmdebstrap/hooks/merged-usr ] || hooks=(--hook-dir=/usr/share/mmdebstrap/hooks/merged-usr)
	else
		how=(--variant=extract --include=base-files,busybox-static)
	fi
	if command -v mmdebstrap >/dev/null && env -i PATH="$PATH" TMPDIR=/tmp SOURCE_DATE_EPOCH=$images_epoch \
		mmdebstrap --quiet --skip=output/dev "${how[@]}" ${hooks[@]+"${hooks[@]}"} --architectures="$a" "$suite" "$images/root-$a.tar" - \
		<"$images/sources.list" >"$images/mmdebstrap-$a.log" 2>&1; then
		echo "a root made by mmdebstrap" >"$images/root-$a.how"
		return
	fi
	[ $root = no ] || { echo "mmdebstrap could not make a root for $a; one of unpacked packages it is:"; tail -3 "$images/mmdebstrap-$a.log" 2>/dev/null || :; } >&2
	image_root_of_packages "$a" >"$images/packages-$a.log" 2>&1 || {
		tail -3 "$images/packages-$a.log" >&2
		echo "demo: no packages for $a are to be had from this host's archive, so there is no image for it" >&2
		return 1
	}
	echo "packages of a private apt root" >"$images/root-$a.how"
}

image_root_of_packages() {
	local a=$1 d=$images/apt-$1 deb
	local apt=(apt-get -q -o Dir::Etc="$d/etc" -o Dir::Etc::sourcelist="$images/sources.list" -o Dir::Etc::sourceparts=- -o Dir::Etc::parts=-
		-o Dir::State="$d" -o Dir::State::status="$d/status" -o Dir::Cache="$d/cache" -o APT::Architecture="$a" -o APT::Architectures="$a"
		-o APT::Sandbox::User= -o Debug::NoLocking=1 -o APT::Update::Error-Mode=any)
	mkdir -p "$d"/{lists/partial,cache/archives/partial,etc/preferences.d,tars} && : >"$d/status"
	"${apt[@]}" update && "${apt[@]}" install -y --no-install-recommends --download-only base-files busybox-static || return
	: >"$d/tars/status"
	for deb in "$d"/cache/archives/*.deb; do
		dpkg-deb --fsys-tarfile "$deb" >"$d/tars/$(basename "$deb").tar" || return
		{ dpkg-deb -f "$deb" Package && echo "Status: install ok unpacked" && dpkg-deb -f "$deb" Version Architecture && echo; } |
			sed '1s/^/Package: /' >>"$d/tars/status" || return
	done
	"$images_bin" join "$d"/tars/*.tar "$d/tars/status" >"$images/root-$a.tar"
}

# images_outside makes the images, leaves them in a registry that stands for
# the upstream, and adds it to darkmirror.yaml.
images_outside() {
	local t=$SECONDS second pid platforms=() a
	mkdir -p "$images"
	(cd "$here" && CGO_ENABLED=0 go build -trimpath -buildvcs=false -o "$images_bin" ./testdata/demo/images) || fail "the demo's images program does not build"
	"$dm" config show -o json >"$images/settings.json"
	python3 "$here/testdata/demo/sources.py" "$images/settings.json" >"$images/sources.list"
	case $arch in amd64) second=arm64 ;; *) second=amd64 ;; esac
	image_root "$second" &
	pid=$!
	image_root "$arch" || { wait "$pid" || :; fail "no root for $arch"; }
	wait "$pid" || fail "no root for $second"
	for a in "$arch" "$second"; do
		"$images_bin" list "$images/root-$a.tar" >"$images/root-$a.list"
		echo "$a: $(cat "$images/root-$a.how"), $(wc -l <"$images/root-$a.list") files"
		case $a in arm64) a=arm64/v8=$images/root-arm64.tar ;; *) a=$a=$images/root-$a.tar ;; esac
		platforms+=("linux/$a")
	done

	cat >"$images/registry.yml" <<-YML
		version: 0.1
		log: {level: error, accesslog: {disabled: true}}
		storage: {filesystem: {rootdirectory: $images/registry}}
		http: {addr: "127.0.0.1:$images_port"}
	YML
	# It takes every REGISTRY_ variable for a setting.
	env -i PATH="$images_path" docker-registry serve "$images/registry.yml" >"$images/registry.log" 2>&1 &
	registry_pid=$!
	for _ in $(seq 50); do python3 -c "import socket; socket.create_connection(('127.0.0.1', $images_port), 1)" 2>/dev/null && break; sleep 0.1; done
	kill -0 "$registry_pid" 2>/dev/null || fail "docker-registry did not start: $(tail -3 "$images/registry.log")"
	"$images_bin" push "http://127.0.0.1:$images_port" "${platforms[@]}" || fail "the images could not be pushed"
	"$images_bin" walk "http://127.0.0.1:$images_port" "" >"$images/outside.list" || fail "the images outside cannot be read"
	tail -1 "$images/outside.list"
	[[ $(tail -1 "$images/outside.list") == "total: tags 3, .sig tags 1, indexes 1, platforms 2, charts 1, SBOMs 1, referrers 2, nested referrers 1, good signatures 2, "* ]] ||
		fail "that is not what was pushed"
	echo "images made and pushed in $((SECONDS - t))s"

	if grep -q '^oci:' darkmirror.yaml; then fail "darkmirror.yaml has an oci section already"; fi
	cat >>darkmirror.yaml <<-YML

		oci:
		  - name: platform
		    registry: http://127.0.0.1:$images_port
		    allow_http: true
		    host: registry.example
		    images: [debian/base:demo, "charts/hello:0.1.0_demo.1"]
	YML
}

# image_compare ARCH LIST CLIENT compares a list of files with the root that
# was made.
image_compare() {
	local a=$1 got=$2 client=$3
	cmp -s "$images/root-$a.list" "$got" || {
		diff "$images/root-$a.list" "$got" | head -5 >&2
		fail "$client: the files for $a are not those of the root"
	}
	echo "$client: $(wc -l <"$got") files of linux/$a equal the root's in content, mode and owner"
}

# images_inside pulls by real clients and compares with what was made.
images_inside() {
	local t=$SECONDS a layer
	local clean=(env -i PATH="$images_path" HOME="$work" TMPDIR=/tmp)
	# Clients go on using the names outside; their settings, which darkmirror
	# writes, send them to the mirror and nowhere else.
	local ref=registry.example/debian/base:demo
	"$dm" clients --dir "$images/node" podman >/dev/null 2>&1 || fail "no settings for skopeo"
	"$dm" clients --dir "$images/node" containerd >/dev/null 2>&1 || fail "no settings for containerd"
	echo "$ skopeo --registries-conf 50-darkmirror.conf copy --all --preserve-digests docker://$ref oci:pulled:demo"
	in_client "${clean[@]}" skopeo --insecure-policy --registries-conf "$images/node/etc/containers/registries.conf.d/50-darkmirror.conf" \
		copy -q --all --preserve-digests "docker://$ref" "oci:$images/pulled:demo" || fail "skopeo cannot pull"
	for a in amd64 arm64; do
		local pulled=()
		while read -r layer; do pulled+=("$layer"); done < <("$images_bin" layers "$images/pulled" "linux/$a")
		[ ${#pulled[@]} -gt 0 ] || fail "skopeo: no layers for $a"
		if [ $root = yes ]; then
			mkdir "$images/unpacked-$a"
			for layer in "${pulled[@]}"; do tar -xpf "$layer" --numeric-owner --same-owner -C "$images/unpacked-$a" || fail "skopeo: $layer does not unpack"; done
			"$images_bin" list "$images/unpacked-$a" >"$images/skopeo-$a.list"
		else
			"$images_bin" list "${pulled[@]}" >"$images/skopeo-$a.list" # owners cannot be given away without root
		fi
		image_compare "$a" "$images/skopeo-$a.list" skopeo
	done
	images_files=$(cat "$images"/skopeo-*.list | wc -l)
	if [ $root = yes ] && [ -f "$images/unpacked-$arch/usr/bin/dpkg-query" ]; then
		echo "run from the pulled image: dpkg lists $(in_client chroot "$images/unpacked-$arch" dpkg-query -W | wc -l) packages"
	fi
	images_clients=skopeo
	if [ $root = yes ]; then
		images_containerd "$ref"
		images_clients="skopeo and containerd"
	else
		echo "containerd needs root, so skopeo is the only client of this run"
	fi
	in_client "${clean[@]}" "$images_bin" walk "http://$addr:$port" platform/registry.example >"$images/inside.list" || fail "the images inside cannot be read"
	diff "$images/outside.list" "$images/inside.list" >&2 || fail "inside is not what is outside"
	echo "outside  $(tail -1 "$images/outside.list")"
	echo "inside   $(tail -1 "$images/inside.list")"
	images_total=$(tail -1 "$images/inside.list" | sed 's/^total: //')
	echo "images pulled and compared in $((SECONDS - t))s"
}

# images_containerd REF pulls an image with a containerd of its own.
images_containerd() {
	local ref=$1 hosts=$images/node/etc/containerd/certs.d
	containerd_dir=$(mktemp -d /tmp/darkmirror-demo.XXXXXX) # a socket's name must be short
	cat >"$images/containerd.toml" <<-TOML
		version = 2
		root = "$images/containerd"
		state = "$containerd_dir/state"
		disabled_plugins = ["io.containerd.grpc.v1.cri", "io.containerd.internal.v1.opt"]
		[grpc]
		address = "$containerd_dir/sock"
		[ttrpc]
		address = "$containerd_dir/ttrpc"
	TOML
	${ns_client[@]+"${ns_client[@]}"} env -i PATH="$images_path" containerd -c "$images/containerd.toml" >"$images/containerd.log" 2>&1 &
	containerd_pid=$!
	ctr_in() { in_client env -i PATH="$images_path" ctr -a "$containerd_dir/sock" "$@"; }
	for _ in $(seq 100); do ctr_in version >/dev/null 2>&1 && break; sleep 0.1; done
	ctr_in version >/dev/null 2>&1 || fail "containerd did not start: $(tail -3 "$images/containerd.log")"
	echo "$ ctr image pull --hosts-dir certs.d --snapshotter native $ref"
	ctr_in image pull --hosts-dir "$hosts" --platform "linux/$arch" --snapshotter native "$ref" >"$images/ctr.log" 2>&1 || fail "ctr: $(tail -3 "$images/ctr.log")"
	local top folder
	top=$(ctr_in snapshot --snapshotter native ls | awk 'NR > 1 { all[$1]; if ($3 != "") parent[$2] } END { for (k in all) if (!(k in parent)) print k }')
	# The folder is the image's own snapshot. It is asked for in one call: the
	# view itself may be collected as garbage at once.
	folder=$(ctr_in snapshot --snapshotter native view --mounts demo "$top" | python3 -c 'import json, sys; print(json.load(sys.stdin)[0]["Source"])')
	"$images_bin" list "$folder" >"$images/containerd-$arch.list"
	image_compare "$arch" "$images/containerd-$arch.list" containerd
	kill "$containerd_pid"
	wait "$containerd_pid" 2>/dev/null || :
	containerd_pid=
}
