module github.com/darkmirror/darkmirror

go 1.26.0

require (
	github.com/ProtonMail/go-crypto v1.5.2 // OpenPGP for apt: x/crypto/openpgp is frozen and cannot read Ed25519 signatures
	github.com/hashicorp/go-retryablehttp v0.7.8 // retries in mirror/fetch
	github.com/klauspost/compress v1.20.3 // zstd, which the standard library lacks, and a faster gzip
	github.com/mikelolasagasti/xz v1.0.1 // reads xz; its dictionary is bounded, unlike the writer's reader below
	github.com/minio/minio-go/v7 v7.4.1 // S3, in models/s3
	github.com/pelletier/go-toml/v2 v2.4.3 // pylock.toml
	github.com/spf13/cobra v1.10.2 // commands, help and completion
	github.com/ulikunitz/xz v0.5.17 // writes xz, the only pure-Go writer; never used to read
	github.com/vbauerster/mpb/v8 v8.9.3 // progress bars on a terminal
	go.etcd.io/bbolt v1.5.0 // the ledger
	go.yaml.in/yaml/v4 v4.0.0 // configuration; keeps 3.10 a string and gives positions
	golang.org/x/net v0.60.0 // HTML of PEP 503 indexes
	golang.org/x/sync v0.23.0 // errgroup with a limit
	golang.org/x/sys v0.48.0 // statfs, fadvise, openat flags
	golang.org/x/time v0.16.0 // the bound of limits.bandwidth
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
	github.com/cespare/xxhash/v2 v2.3.0 // indirect
	github.com/clipperhouse/uax29/v2 v2.7.0 // indirect
	github.com/cloudflare/circl v1.6.3 // indirect
	github.com/docker/cli v29.7.2+incompatible // indirect
	github.com/docker/docker-credential-helpers v0.9.3 // indirect
	github.com/dustin/go-humanize v1.0.1 // indirect
	github.com/google/go-containerregistry v0.22.1 // indirect
	github.com/google/uuid v1.6.0 // indirect
	github.com/hashicorp/go-cleanhttp v0.5.2 // indirect
	github.com/inconshreveable/mousetrap v1.1.0 // indirect
	github.com/klauspost/cpuid/v2 v2.4.0 // indirect
	github.com/klauspost/crc32 v1.3.0 // indirect
	github.com/mattn/go-runewidth v0.0.24 // indirect
	github.com/minio/crc64nvme v1.1.1 // indirect
	github.com/minio/md5-simd v1.1.2 // indirect
	github.com/opencontainers/go-digest v1.0.0 // indirect
	github.com/opencontainers/image-spec v1.1.1 // indirect
	github.com/philhofer/fwd v1.2.0 // indirect
	github.com/rivo/uniseg v0.4.7 // indirect
	github.com/rs/xid v1.6.0 // indirect
	github.com/sirupsen/logrus v1.10.2 // indirect
	github.com/spf13/pflag v1.0.10 // indirect
	github.com/tinylib/msgp v1.6.4 // indirect
	github.com/zeebo/xxh3 v1.1.0 // indirect
	go.yaml.in/yaml/v3 v3.0.5 // indirect
	golang.org/x/crypto v0.57.0 // indirect
	golang.org/x/text v0.42.0 // indirect
	golang.org/x/tools v0.50.0 // indirect
	gopkg.in/ini.v1 v1.67.3 // indirect
)
