"""The two sides of a gap in folders, and the peers, as programs to run."""

import os
import shutil

import proc

TARGET = "cp312-manylinux_2_28_x86_64"


class Outside:
    """One bastion: a folder with darkmirror.yaml, a key, a store, an outbox."""

    def __init__(self, program, dir, upstream, wheels=(), debs=()):
        self.program, self.dir, self.up = program, dir, upstream
        self.wheels, self.debs = list(wheels), list(debs)
        self.streams = 0
        os.makedirs(dir)
        self.next_stream()
        self.run("key", "generate", "--name", "bench")

    def next_stream(self):
        """A new stream has carried nothing, so that a full bundle can be made again from the same store."""
        self.streams += 1
        self.configure()

    def configure(self):
        up = self.up
        text = ["version: 1", "role: outside", f"stream: s{self.streams}", "state_dir: state", "outbox: outbox", "signing_key: key"]
        if self.wheels:
            locks = ", ".join("{file: " + f"{up.out}/requirements-{w}.txt" + "}" for w in self.wheels)
            text += ["pypi:", "  - name: main", f"    index: {up.url}/simple", "    allow_http: true",
                     f"    targets: [{TARGET}]", f"    locks: [{locks}]"]
        if self.debs:
            seeds = ", ".join(open(f"{up.out}/packages-{d}.txt").read().strip() for d in self.debs)
            text += ["apt:", "  - name: bench", "    architectures: [amd64]", f"    packages: [{seeds}]", "    allow_http: true",
                     "    archives:", "      - name: debian", f"        url: {up.url}/debian", "        suites: [bench]",
                     "        components: [main]", f"        signed_by: [{up.out}/keyring.asc]"]
        with open(os.path.join(self.dir, "darkmirror.yaml"), "w") as f:
            f.write("\n".join(text) + "\n")

    def command(self, *args):
        return [self.program, "--quiet", "-o", "json", *args]

    def run(self, *args):
        return proc.run(self.command(*args), self.dir)

    def bundles(self):
        box = os.path.join(self.dir, "outbox")
        return sorted(os.path.join(box, b) for b in os.listdir(box)) if os.path.isdir(box) else []

    def bundle(self):
        """The only bundle of this stream."""
        (one,) = [b for b in self.bundles() if os.path.basename(b).startswith(f"s{self.streams}-")]
        return one

    def drop_bundles(self):
        shutil.rmtree(os.path.join(self.dir, "outbox"))


class Inside:
    """One inside that trusts an Outside and reads its outbox."""

    def __init__(self, program, dir, outside):
        self.program, self.dir = program, dir
        os.makedirs(dir)
        text = ["version: 1", "role: inside", "state_dir: state", f"inbox: [{outside.dir}/outbox]", f"trust: [{outside.dir}/key.pub]"]
        if outside.wheels:
            text += ["pypi:", "  - name: main"]
        if outside.debs:
            text += ["apt:", "  - name: bench", "    archives:", "      - name: debian", f"        signed_by: [{outside.up.out}/keyring.asc]"]
        with open(os.path.join(dir, "darkmirror.yaml"), "w") as f:
            f.write("\n".join(text) + "\n")

    def run(self, *args):
        return proc.run([self.program, "--quiet", "-o", "json", *args], self.dir)

    def remove(self):
        shutil.rmtree(self.dir)


class Pip:
    """pip download of a requirements file, hashes required."""

    def __init__(self, python, dir, upstream, wheels):
        self.dir = dir
        os.makedirs(dir)
        self.env = {"PATH": os.environ["PATH"], "HOME": dir, "PIP_CONFIG_FILE": os.devnull, "LC_ALL": "C.UTF-8"}
        self.argv = [python, "-m", "pip", "download", "-q", "--no-cache-dir", "--no-input", "--disable-pip-version-check", "--require-hashes",
                     "--no-deps", "--only-binary", ":all:", "--index-url", upstream.url + "/simple/", "-d", "got",
                     "-r", f"{upstream.out}/requirements-{wheels}.txt"]

    def run(self):
        return proc.run(self.argv, self.dir, self.env)


class Aptly:
    """aptly with a mirror of the same archive, filtered to the same list."""

    def __init__(self, dir, upstream, debs, gnupg):
        self.dir, self.up = dir, upstream
        os.makedirs(dir)
        self.env = {"PATH": os.environ["PATH"], "HOME": dir, "GNUPGHOME": gnupg, "LC_ALL": "C.UTF-8"}
        self.seed = open(f"{upstream.out}/packages-{debs}.txt").read().strip()
        self.keyring = os.path.join(dir, "keyring.gpg")
        proc.run(["gpg", "--batch", "--yes", "--dearmor", "-o", self.keyring, f"{upstream.out}/keyring.asc"], dir, self.env)
        with open(os.path.join(dir, "aptly.json"), "w") as f:
            f.write('{"rootDir": "%s/root", "gpgProvider": "gpg2"}\n' % dir)

    @staticmethod
    def make_key(gnupg, dir):
        os.chmod(gnupg, 0o700)
        env = {"PATH": os.environ["PATH"], "HOME": dir, "GNUPGHOME": gnupg}
        proc.run(["gpg", "--batch", "--pinentry-mode", "loopback", "--passphrase", "", "--quick-generate-key", "bench", "ed25519", "sign", "never"], dir, env)

    def argv(self, *args):
        return ["aptly", "-config=" + os.path.join(self.dir, "aptly.json"), *args]

    def run(self, *args):
        return proc.run(self.argv(*args), self.dir, self.env)

    def create(self):
        return self.run("mirror", "create", "-architectures=amd64", "-keyring=" + self.keyring, "-filter=" + self.seed,
                        "-filter-with-deps", "bench", self.up.url + "/debian/", "bench", "main")

    def update(self, *flags):
        return self.argv("mirror", "update", "-keyring=" + self.keyring, *flags, "bench")

    def mirror(self):
        return self.create() + proc.run(self.update(), self.dir, self.env)

    def publish(self):
        return self.run("snapshot", "create", "one", "from", "mirror", "bench") + \
            self.run("publish", "snapshot", "-batch", "-distribution=bench", "one")
