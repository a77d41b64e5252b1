module github.com/darkmirror/darkmirror

go 1.26.0

require (
	github.com/ProtonMail/go-crypto v1.5.2 // OpenPGP for apt: x/crypto/openpgp is frozen and cannot read Ed25519 signatures
	github.com/hashicorp/go-retryablehttp v0.7.8 // retries in mirror/fetch
	github.com/klauspost/compress v1.20.3 // zstd, which the standard library lacks, and a faster gzip
	github.com/mikelolasagasti/xz v1.0.1 // reads xz; its dictionary is bounded, unlike the writer's reader below
	github.com/pelletier/go-toml/v2 v2.4.3 // pylock.toml
	github.com/spf13/cobra v1.10.2 // commands, help and completion
	github.com/ulikunitz/xz v0.5.17 // writes xz, the only pure-Go writer; never used to read
	github.com/vbauerster/mpb/v8 v8.9.3 // progress bars on a terminal
	go.etcd.io/bbolt v1.5.0 // the ledger
	go.yaml.in/yaml/v4 v4.0.0 // configuration; keeps 3.10 a string and gives positions
	golang.org/x/net v0.58.0 // HTML of PEP 503 indexes
	golang.org/x/sync v0.22.0 // errgroup with a limit
	golang.org/x/sys v0.47.0 // statfs, fadvise, openat flags
)

// tests only
require (
	github.com/google/go-cmp v0.7.0
	github.com/rogpeppe/go-internal v1.16.0
)

require (
	github.com/Masterminds/semver/v3 v3.5.0 // indirect
	github.com/VividCortex/ewma v1.2.0 // indirect
	github.com/acarl005/stripansi v0.0.0-20180116102854-5a71ef0e047d // indirect
	github.com/cloudflare/circl v1.6.3 // indirect
	github.com/docker/cli v29.7.2+incompatible // indirect
	github.com/docker/docker-credential-helpers v0.9.3 // indirect
	github.com/google/go-containerregistry v0.22.1 // indirect
	github.com/hashicorp/go-cleanhttp v0.5.2 // indirect
	github.com/inconshreveable/mousetrap v1.1.0 // indirect
	github.com/mattn/go-runewidth v0.0.16 // indirect
	github.com/opencontainers/go-digest v1.0.0 // indirect
	github.com/opencontainers/image-spec v1.1.1 // indirect
	github.com/rivo/uniseg v0.4.7 // indirect
	github.com/sirupsen/logrus v1.9.4 // indirect
	github.com/spf13/pflag v1.0.10 // indirect
	golang.org/x/crypto v0.55.0 // indirect
	golang.org/x/tools v0.49.0 // indirect
)
