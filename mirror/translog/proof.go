package translog

import (
	"bytes"
	"crypto"
	"encoding/base64"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"golang.org/x/mod/sumdb/tlog"
)

// proofMagic is the first line of a C2SP tlog-proof.
const proofMagic = "c2sp.org/tlog-proof@v1"

// A Proof shows that an entry is in a log: its index, the hashes from its leaf
// to the root, and the checkpoint that names the root.
type Proof struct {
	index      int64
	hashes     tlog.RecordProof
	checkpoint []byte
}

// Index is the entry's place in the log, from 0.
func (p *Proof) Index() int64 { return p.index }

// MarshalText writes the proof in the form of C2SP tlog-proof, which
// [ParseProof] reads.
func (p *Proof) MarshalText() ([]byte, error) {
	b := fmt.Appendf(nil, "%s\nindex %d\n", proofMagic, p.index)
	for _, h := range p.hashes {
		b = fmt.Appendf(b, "%s\n", h)
	}
	b = append(b, '\n')
	return append(b, p.checkpoint...), nil
}

// ParseProof reads a proof; whether it is good is for [Proof.Verify] to say.
func ParseProof(text []byte) (*Proof, error) {
	refuse := func(err error) (*Proof, error) { return nil, refusal("proof", "malformed", err) }
	if len(text) > maxProof {
		return refuse(fmt.Errorf("%d bytes, at most %d are read", len(text), maxProof))
	}
	head, note, ok := bytes.Cut(text, []byte("\n\n"))
	lines := strings.Split(string(head), "\n")
	if !ok || len(lines) < 2 || lines[0] != proofMagic {
		return refuse(fmt.Errorf("it does not begin with %q and an index", proofMagic))
	}
	p := &Proof{checkpoint: note}
	number, ok := strings.CutPrefix(lines[1], "index ")
	var err error
	if p.index, err = strconv.ParseInt(number, 10, 64); err != nil || !ok || p.index < 0 || p.index >= maxEntries {
		return refuse(fmt.Errorf("line 2: %q is not an index below %d", clip(lines[1]), maxEntries))
	}
	for i, l := range lines[2:] {
		var h tlog.Hash
		raw, err := base64.StdEncoding.DecodeString(l)
		if err != nil || len(raw) != len(h) || len(p.hashes) == 64 {
			return refuse(fmt.Errorf("line %d: not one of at most 64 hashes", i+3))
		}
		copy(h[:], raw)
		p.hashes = append(p.hashes, h)
	}
	if again, err := p.MarshalText(); err != nil || !bytes.Equal(again, text) {
		return refuse(errors.Join(err, errors.New("a number or a hash is not in its one form")))
	}
	return p, nil
}

// Verify checks that the log of that key has the entry at the proof's index.
func (p *Proof) Verify(pub crypto.PublicKey, e Entry) error {
	k, err := newKey(pub)
	if err != nil {
		return err
	}
	c, err := openCheckpoint(p.checkpoint, k)
	if err != nil {
		return err
	}
	leaf, err := e.encode()
	if err != nil {
		return err
	}
	if err := tlog.CheckRecord(p.hashes, c.tree.N, c.tree.Hash, p.index, tlog.RecordHash(leaf)); err != nil {
		return refusal(fmt.Sprintf("proof of entry %d", p.index), fmt.Sprintf("%s %s %d is not what the checkpoint of %d entries covers there", e.Event, e.Stream, e.Seq, c.tree.N), err)
	}
	return nil
}
