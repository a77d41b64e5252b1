# The demo's scanner: run.sh reads this file and calls scan_outside before the
# first export and scan_report after it. A real clamd with a small database of our
# own looks at every file that is carried; the database itself is carried too, so
# that the inside could do the same. Needs of run.sh: work, here, dm, fail.
# shellcheck shell=bash disable=SC2154

scan_pid=
scan_dir=

scan_cleanup() {
	[ -z "$scan_pid" ] || kill "$scan_pid" 2>/dev/null || :
	[ -z "$scan_dir" ] || rm -rf "$scan_dir"
}

scan_outside() {
	# A socket's path is short.
	scan_dir=$(mktemp -d /tmp/dm-demo.XXXXXX)
	sh "$here/testdata/scan/clamd.sh" "$scan_dir" &
	scan_pid=$!
	for _ in $(seq 300); do [ -e "$scan_dir/ready" ] && break; sleep 0.1; done
	[ -e "$scan_dir/ready" ] || fail "clamd does not start"
	cat >>darkmirror.yaml <<-YML

		files:
		  - name: signatures
		    sets: [{name: clamav, folder: $scan_dir/db}]

		scan:
		  malware: {clamd: $scan_dir/clamd.sock, database: $scan_dir/db}
		  secrets: {scan: true}
	YML
	/usr/sbin/clamd --version
}

# scan_report shows what a person would read before the bundle is carried.
scan_report() {
	run "$dm" report 000001
	run "$dm" report --html "$work/report.html" 000001
	grep -q 'Not scanned for known vulnerabilities' "$work/report.html" || fail "the report does not say what nothing looked for"
}
