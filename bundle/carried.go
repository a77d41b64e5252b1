package bundle

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"path"
	"strings"

	"github.com/darkmirror/darkmirror/internal/strictjson"
	"github.com/darkmirror/darkmirror/mirror/artifact"
)

const (
	// CarriedType is what the envelope of carried.dsse.json holds.
	CarriedType = "application/vnd.darkmirror.carried.v1+json"
	// carriedName and encryptedExt are names in the folder of an encrypted
	// bundle.
	carriedName   = "carried.dsse.json"
	encryptedExt  = ".age"
	carriedSchema = "darkmirror.carried/v1"
)

// CodeDecrypt refuses an encrypted bundle that no identity fits. It is a
// matter of configuration and of none of the classes of refusal.
const CodeDecrypt = "ERR_DECRYPT"

const (
	// maxCarried bounds the list; about 250,000 volumes fit. It is held in
	// memory.
	maxCarried = 64 << 20
	// maxCarriedEnvelope is the list in base64 and room for signatures.
	maxCarriedEnvelope = maxCarried/3*4 + 64<<10
	// MaxRecipients bounds those who can read a bundle, and with them age's
	// header: 64 hybrid ones take some 100 KiB of headSize.
	MaxRecipients = 64
	// maxFingerprint bounds what is shown of a recipient.
	maxFingerprint = 64
	// headSize is how much of a file has a digest of its own, since it is
	// decrypted before the whole was read. It covers age's header.
	headSize = 128 << 10
)

// encryptedSize is more than a file of n bytes has when it is encrypted: age
// adds 16 bytes for each 64 KiB and a header.
func encryptedSize(n int64) int64 { return n + n/4096 + headSize + 64 }

// Carried is the signed list of what is carried of an encrypted bundle.
type Carried struct {
	Schema string          `json:"schema"`
	Bundle artifact.Digest `json:"bundle"`
	Stream string          `json:"stream"`
	Seq    uint64          `json:"seq"`
	// Envelope is the digest of the bundle's envelope before encryption.
	Envelope artifact.Digest `json:"envelope"`
	// Recipients are the fingerprints of those who can read it.
	Recipients []string      `json:"recipients"`
	Files      []CarriedFile `json:"files"`
}

func (c *Carried) String() string {
	return fmt.Sprintf("bundle %06d of stream %s", c.Seq, clip(c.Stream))
}

// A CarriedFile is a file as it is carried.
type CarriedFile struct {
	Name string `json:"name"` // below the bundle's folder
	Size int64  `json:"size"`
	// Head is the digest of the first 128 KiB, or of all of a smaller file.
	Head   artifact.Digest `json:"head"`
	SHA256 artifact.Digest `json:"sha256"`
}

// A carriedList is carried.dsse.json. Nothing of it is verified until verify
// was called.
type carriedList struct {
	size    int // of the file
	env     *envelope
	payload []byte

	*Carried              // nil until it was parsed
	volumes  []VolumeInfo // as they lie on a medium
	heads    []artifact.Digest
	root     []CarriedFile
}

// openCarried takes the file apart; no signature is looked at and the list is
// not parsed. Every error is an ERR_FORMAT refusal.
func openCarried(data []byte) (*carriedList, error) {
	refuse := func(err error) (*carriedList, error) {
		return nil, refusal(CodeFormat, carriedName, "not the envelope of a list of what is carried", err)
	}
	var e envelope
	if err := strictjson.Unmarshal(data, &e); err != nil {
		return refuse(err)
	}
	if e.PayloadType != CarriedType {
		return refuse(fmt.Errorf("payloadType %q, want %q", clip(e.PayloadType), CarriedType))
	}
	if n := len(e.Signatures); n == 0 || n > maxSignatures {
		return refuse(fmt.Errorf("%d signatures, want 1 to %d", n, maxSignatures))
	}
	payload, err := decodeBase64(e.Payload)
	if err != nil {
		return refuse(fmt.Errorf("payload: %w", err))
	}
	if len(payload) == 0 || len(payload) > maxCarried {
		return refuse(fmt.Errorf("payload of %d bytes, want 1 to %d", len(payload), maxCarried))
	}
	return &carriedList{size: len(data), env: &e, payload: payload}, nil
}

// verify wants the signature of one trusted exporter and parses the list.
func (l *carriedList) verify(t Trust) (*Report, error) {
	// How many must sign is asked of the inner envelope.
	rep, err := l.env.verify(l.payload, Trust{Keys: t.Keys})
	if err != nil {
		if r, ok := errors.AsType[*artifact.Refusal](err); ok {
			c := *r
			c.Subject = strings.Replace(c.Subject, envelopeName, carriedName, 1)
			err = &c
		}
		return nil, err
	}
	return rep, l.parse()
}

// parse reads the list, once.
func (l *carriedList) parse() error {
	if l.Carried != nil {
		return nil
	}
	var c Carried
	err := strictjson.Unmarshal(l.payload, &c)
	if err == nil {
		err = c.checkHead()
	}
	if err == nil {
		err = l.sort(c.Files)
	}
	if err != nil {
		return refusal(CodeFormat, carriedName, "not a list of what is carried", err)
	}
	l.Carried = &c
	return nil
}

func (c *Carried) checkHead() error {
	switch {
	case c.Schema != carriedSchema:
		return fmt.Errorf("schema %q, want %q", clip(c.Schema), carriedSchema)
	case c.Bundle.IsZero() || c.Envelope.IsZero():
		return errors.New("bundle or envelope missing")
	case c.Seq < 1 || c.Seq > maxInt:
		return fmt.Errorf("seq %d is out of range", c.Seq)
	}
	if err := checkFingerprints(c.Recipients); err != nil {
		return err
	}
	return CheckStream(c.Stream)
}

func checkFingerprints(list []string) error {
	if n := len(list); n < 1 || n > MaxRecipients {
		return fmt.Errorf("%d recipients, want 1 to %d", n, MaxRecipients)
	}
	for _, s := range list {
		ok := s != "" && len(s) <= maxFingerprint
		for _, c := range []byte(s) {
			ok = ok && c > ' ' && c <= '~'
		}
		if !ok {
			return fmt.Errorf("recipient %q: want 1 to %d printable characters", clip(s), maxFingerprint)
		}
	}
	return nil
}

// sort checks names and sizes, which stand in a fixed order, so that none is
// there twice.
func (l *carriedList) sort(files []CarriedFile) error {
	l.volumes, l.heads, l.root = nil, nil, nil
	number := 0 // of the last root file
	for i, f := range files {
		most := int64(maxInt)
		want := path.Join(volumesDir, volumeName(len(l.volumes)+1)+encryptedExt)
		n, isRoot := rootNumber(strings.TrimPrefix(f.Name, rootDir+"/"))
		isRoot = isRoot && strings.HasPrefix(f.Name, rootDir+"/")
		switch {
		case i == 0:
			want, most = envelopeName+encryptedExt, encryptedSize(maxEnvelope)
		case i == 1:
			want, most = volumesName+encryptedExt, encryptedSize(maxVolumesJSON)
		case isRoot && n > number:
			want, most, number = f.Name, maxRootFile, n
			l.root = append(l.root, f)
		case len(l.root) == 0 && len(l.volumes) < maxVolumes:
			l.volumes = append(l.volumes, VolumeInfo{Name: path.Base(want), Size: f.Size, SHA256: f.SHA256})
			l.heads = append(l.heads, f.Head)
		default:
			want = ""
		}
		switch {
		case f.Name != want:
			return fmt.Errorf("file %d is named %q, which is unknown or out of order", i+1, clip(f.Name))
		case f.Size < 1 || f.Size > most || f.Head.IsZero() || f.SHA256.IsZero():
			return fmt.Errorf("%s: size or digest missing or out of range", want)
		case f.Size <= headSize && f.Head != f.SHA256:
			return fmt.Errorf("%s: two digests of the same bytes", want)
		}
	}
	if len(files) < 2 || len(l.root) > maxRootFiles {
		return errors.New("too few files, or too many root files")
	}
	return nil
}

// match compares the list with what it claims to be the list of.
func (l *carriedList) match(m *Manifest, id artifact.Digest) error {
	if l.Bundle == id && l.Stream == m.Stream && l.Seq == m.Seq {
		return nil
	}
	r := refusal(CodeFormat, carriedName, "it lists the files of another bundle", nil)
	r.Want, r.Got = fmt.Sprintf("%s, %s", m, id), fmt.Sprintf("%s, %s", l, l.Bundle)
	return r
}

// signCarried wraps the list.
func signCarried(c *Carried, s Signer) ([]byte, error) {
	c.Schema = carriedSchema
	payload, err := json.Marshal(c)
	if err != nil {
		return nil, fmt.Errorf("encode %s: %w", carriedName, err)
	}
	sig, err := sign(s, PAE(CarriedType, payload))
	if err != nil {
		return nil, err
	}
	data, err := json.Marshal(&envelope{
		PayloadType: CarriedType,
		Payload:     base64.StdEncoding.EncodeToString(payload),
		Signatures:  []signature{{KeyID: KeyID(s.Public()), Sig: base64.StdEncoding.EncodeToString(sig)}},
	})
	if err != nil {
		return nil, fmt.Errorf("encode %s: %w", carriedName, err)
	}
	// What the inside would refuse is not written.
	l, err := openCarried(data)
	if err != nil {
		return nil, err
	}
	return data, l.parse()
}
