# The demo's DevPI: run.sh reads this file and calls devpi_outside while there is
# a way out, devpi_inside after the last import, and devpi_cleanup at the end. A
# real devpi-server gets the wheels by upload, reads them as a mirror, and a real
# pypiserver gets them by upload; somebody has put files there before, by twine.
# The servers listen on the loopback interface of the inside, where pip asks them
# too. Needs of run.sh: work, here, dm, root, addr, port, in_server, ns_server,
# fail; and what run.sh has installed in work/venv, to compare with.
# shellcheck shell=bash disable=SC2034,SC2154

devpi=$work/devpi
devpi_port=18041
devpi_pypi_port=18042
devpi_pids=()

devpi_cleanup() {
	local p
	for p in ${devpi_pids[@]+"${devpi_pids[@]}"}; do kill "$p" 2>/dev/null || :; done
}

# devpi_outside installs the programs: inside there is no way to get them.
devpi_outside() {
	mkdir -p "$devpi"
	python3 -m venv "$devpi/venv"
	"$devpi/venv/bin/python" -m pip install -q --disable-pip-version-check devpi-server==6.19.1 devpi-client==7.3.0 pypiserver==2.4.2 twine==7.0.0 ||
		fail "devpi-server, pypiserver and twine could not be installed"
}

# devpi_in runs one of them, with nothing of this host's settings.
devpi_in() {
	local program=$1
	shift
	in_server env -i PATH="$PATH" HOME="$devpi" LC_ALL=C.UTF-8 PIP_CONFIG_FILE=/dev/null "$devpi/venv/bin/$program" "$@"
}

# devpi_inside publishes into the three and installs from each.
devpi_inside() {
	local t=$SECONDS index=http://127.0.0.1:$devpi_port wheel name pip p
	devpi_start
	# By twine: a wheel as it is, into both, and one that somebody has changed.
	mkdir -p "$devpi/twine" "$devpi/changed"
	devpi_in pip download -q --no-deps --no-cache-dir --only-binary :all: -d "$devpi/twine" --index-url "http://$addr:$port/pypi/main/simple/" --trusted-host "$addr" \
		--require-hashes -r <(awk '/^[a-z]/ { keep = ($0 ~ /^(certifi|idna)==/) } keep' "$work/outside/requirements.txt") || fail "pip cannot download from this mirror"
	wheel=$(find "$devpi/twine" -name 'idna-*.whl')
	name=$(basename "$wheel")
	mv "$wheel" "$devpi/changed/"
	python3 -c 'import sys, zipfile; zipfile.ZipFile(sys.argv[1], "a").writestr("idna/extra.py", "print()\n")' "$devpi/changed/$name"
	{ devpi_in devpi use "$index" && devpi_in devpi login root --password=; } >"$devpi/login.log" 2>&1 || fail "devpi: $(tail -3 "$devpi/login.log")"
	devpi_in devpi index -c root/upload volatile=False bases= >/dev/null || fail "devpi cannot make an index"
	devpi_twine "$index/root/upload/" "$devpi"/twine/*.whl
	devpi_twine "http://127.0.0.1:$devpi_pypi_port/" "$devpi"/twine/*.whl "$devpi/changed/$name"

	: >"$devpi/password"
	devpi_config upload "devpi: {index: $index/root/upload, user: root, password_file: $devpi/password, allow_http: true}"
	devpi_config mirror "devpi: {index: $index/root/mirror, mirror_of: 'http://$addr:$port/pypi/main/simple/', user: root, password_file: $devpi/password, create: true, allow_http: true}"
	devpi_config pypiserver "upload: {url: 'http://127.0.0.1:$devpi_pypi_port/', simple: 'http://127.0.0.1:$devpi_pypi_port/simple/', allow_http: true}"

	devpi_import upload
	grep -q 'files new, 1 there' "$devpi/upload/import.log" || fail "the wheel that twine had put into DevPI was not recognised: $(cat "$devpi/upload/import.log")"
	devpi_import mirror
	# The changed wheel is refused, and named; without it the same run goes through.
	if in_server "$dm" --config "$devpi/pypiserver/darkmirror.yaml" import >"$devpi/refused.log" 2>&1; then fail "the changed $name was taken"; fi
	grep "PYPI-TARGET-OTHER" "$devpi/refused.log" | grep -F "$name" | head -1 || fail "the changed $name is not named: $(cat "$devpi/refused.log")"
	rm "$devpi/packages/$name"
	devpi_import pypiserver

	devpi_projects=$(find "$work/venv/lib" -maxdepth 4 -name '*.dist-info' -not -name 'pip-*' -not -name 'setuptools-*' -not -name 'wheel-*' | wc -l)
	[ "$devpi_projects" -gt 5 ] || fail "$devpi_projects projects are installed from this mirror"
	devpi_install upload "$index/root/upload/+simple/" &
	pip=($!)
	devpi_install mirror "$index/root/mirror/+simple/" &
	pip+=($!)
	devpi_install pypiserver "http://127.0.0.1:$devpi_pypi_port/simple/" &
	pip+=($!)
	for p in "${pip[@]}"; do wait "$p" || fail "pip did not get the demo's set from each of the three"; done
	devpi_text="DevPI by upload and as a mirror, pypiserver: pip installs $devpi_projects projects from each; a changed wheel was refused"
	echo "pip     $devpi_projects projects from each of the three, by their hashes; DevPI and pypiserver in $((SECONDS - t))s"
}

# devpi_start starts both servers and waits for them.
devpi_start() {
	mkdir -p "$devpi/packages"
	head -c 48 /dev/urandom | base64 -w0 >"$devpi/secret"
	chmod 600 "$devpi/secret"
	devpi_in devpi-init --serverdir "$devpi/server" --no-root-pypi >"$devpi/init.log" 2>&1 || fail "devpi-init: $(tail -3 "$devpi/init.log")"
	${ns_server[@]+"${ns_server[@]}"} env -i PATH="$PATH" HOME="$devpi" LC_ALL=C.UTF-8 "$devpi/venv/bin/devpi-server" --serverdir "$devpi/server" --secretfile "$devpi/secret" \
		--host 127.0.0.1 --port $devpi_port >"$devpi/server.log" 2>&1 &
	devpi_pids+=($!)
	${ns_server[@]+"${ns_server[@]}"} env -i PATH="$PATH" HOME="$devpi" LC_ALL=C.UTF-8 "$devpi/venv/bin/pypi-server" run -i 127.0.0.1 -p $devpi_pypi_port -a . -P . --disable-fallback \
		"$devpi/packages" >"$devpi/pypiserver.log" 2>&1 &
	devpi_pids+=($!)
	devpi_answers "http://127.0.0.1:$devpi_port/+api" "$devpi/server.log"
	devpi_answers "http://127.0.0.1:$devpi_pypi_port/" "$devpi/pypiserver.log"
}

devpi_answers() {
	for _ in $(seq 120); do
		devpi_in python -c 'import sys, urllib.request; urllib.request.urlopen(sys.argv[1], timeout=5)' "$1" 2>/dev/null && return
		sleep 0.2
	done
	fail "$1 does not answer: $(tail -3 "$2")"
}

# devpi_twine URL WHEEL... puts wheels there as anybody would.
devpi_twine() {
	local to=$1
	shift
	devpi_in twine upload --disable-progress-bar --repository-url "$to" -u root -p '' "$@" >"$devpi/twine.log" 2>&1 || fail "twine: $(tail -3 "$devpi/twine.log")"
	echo "twine   before the import: $(basename -a "$@" | paste -sd ' ') at $to"
}

# devpi_config NAME TARGET makes an inside that publishes into one target. Its
# store is that of the demo, by hard links; its record of imports is its own.
devpi_config() {
	local d=$devpi/$1
	mkdir -p "$d/state"
	cp -al "$work/inside/state/store" "$d/state/"
	cat >"$d/darkmirror.yaml" <<-YML
		version: 1
		role: inside
		state_dir: $d/state
		inbox: [$work/inside/inbox]
		pypi:
		  - name: main
		    $2
	YML
	in_server "$dm" --config "$d/darkmirror.yaml" key trust "$work"/inside/*.pub >/dev/null 2>&1 || fail "$1: the key is not trusted"
}

devpi_import() {
	in_server "$dm" --config "$devpi/$1/darkmirror.yaml" import >"$devpi/$1/import.log" 2>&1 || fail "$1: $(cat "$devpi/$1/import.log")"
	grep -h 'pypi/main' "$devpi/$1/import.log" | grep 'publish' || fail "$1: nothing was published: $(cat "$devpi/$1/import.log")"
}

# devpi_install NAME INDEX installs the demo's set, with hashes, and counts.
devpi_install() {
	local got
	devpi_in pip install -q --no-cache-dir --no-compile --require-hashes --only-binary :all: --target "$devpi/site-$1" --index-url "$2" -r "$work/outside/requirements.txt" >"$devpi/pip-$1.log" 2>&1 ||
		fail "pip from $1: $(tail -5 "$devpi/pip-$1.log")"
	got=$(find "$devpi/site-$1" -maxdepth 1 -name '*.dist-info' | wc -l)
	[ "$got" = "$devpi_projects" ] || fail "pip installed $got projects from $1, and $devpi_projects from this mirror"
	devpi_in python -I -c 'import sys; sys.path.insert(0, sys.argv[1]); import pandas; assert pandas.Series(range(10)).sum() == 45' "$devpi/site-$1" || fail "what pip installed from $1 does not work"
}
