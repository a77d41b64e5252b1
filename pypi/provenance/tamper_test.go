package provenance

import (
	"bytes"
	"encoding/base64"
	"strings"
	"testing"
)

const logEntry = "verification_material.transparency_entries.0."

// Every byte of everything that is written in base64 counts: with one bit of
// it turned, the object is refused.
func TestEveryByteCounts(t *testing.T) {
	f := newForge(t)
	root := f.pinned()
	a := f.sign(github())
	if _, err := root.Verify(object(t, githubPublisher, a), forgedSubject); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{
		"envelope.statement",
		"envelope.signature",
		"verification_material.certificate",
		logEntry + "logId.keyId",
		logEntry + "inclusionPromise.signedEntryTimestamp",
		logEntry + "inclusionProof.rootHash",
		logEntry + "canonicalizedBody",
	} {
		t.Run(path, func(t *testing.T) {
			m, k := at(t, a, path)
			good, ok := m[k].([]byte)
			if !ok || len(good) < 32 {
				t.Fatalf("%s is not what was signed: %T", path, m[k])
			}
			defer func() { m[k] = good }()
			for i := range good {
				bad := bytes.Clone(good)
				bad[i] ^= 1 << (i % 8)
				m[k] = bad
				if _, err := root.Verify(object(t, githubPublisher, a), forgedSubject); err == nil {
					t.Errorf("byte %d of %d turned, and accepted", i, len(good))
				}
			}
		})
	}
	t.Run("hashes", func(t *testing.T) {
		m, k := at(t, a, logEntry+"inclusionProof.hashes")
		for _, h := range m[k].([]any) {
			hash := h.([]byte)
			for i := range hash {
				hash[i] ^= 1 << (i % 8)
				if _, err := root.Verify(object(t, githubPublisher, a), forgedSubject); err == nil {
					t.Errorf("byte %d turned, and accepted", i)
				}
				hash[i] ^= 1 << (i % 8)
			}
		}
	})
}

// A checkpoint is text. Of its lines, the log's own count; lines that others
// sign beside them are not read.
func TestCheckpoint(t *testing.T) {
	f := newForge(t)
	root := f.pinned()
	a := f.sign(github())
	m, k := at(t, a, logEntry+"inclusionProof.checkpoint.envelope")
	good := m[k].(string)
	verify := func(checkpoint string) error {
		m[k] = checkpoint
		_, err := root.Verify(object(t, githubPublisher, a), forgedSubject)
		return err
	}
	if err := verify(good); err != nil {
		t.Fatal(err)
	}

	head, line, ok := strings.Cut(good, "\n\n")
	if !ok {
		t.Fatal("no signature below the checkpoint")
	}
	for i := range head {
		bad := []byte(good)
		bad[i] ^= 1
		if verify(string(bad)) == nil {
			t.Errorf("byte %d of the checkpoint turned, and accepted", i)
		}
	}
	fields := strings.Fields(line)
	sig, err := base64.StdEncoding.DecodeString(fields[len(fields)-1])
	if err != nil {
		t.Fatal(err)
	}
	// The first four bytes are a hint which key it was, and not signed.
	for i := 4; i < len(sig); i++ {
		bad := bytes.Clone(sig)
		bad[i] ^= 1 << (i % 8)
		if verify(head+"\n\n— rekor.example "+b64(bad)+"\n") == nil {
			t.Errorf("byte %d of the checkpoint's signature turned, and accepted", i)
		}
	}

	if err := verify(good + "— witness.example " + b64(sig) + "\n"); err != nil {
		t.Errorf("a witness's line beside the log's: %v", err)
	}
	if verify(head+"\n\n") == nil {
		t.Error("accepted without a signature")
	}
}

// The numbers and words of an entry count as well, but for none.
func TestEveryFieldCounts(t *testing.T) {
	f := newForge(t)
	root := f.pinned()
	a := f.sign(github())
	for path, bad := range map[string]any{
		"version":                            2,
		logEntry + "logIndex":                "12346",
		logEntry + "kindVersion.kind":        "dss",
		logEntry + "kindVersion.version":     "0.0.2",
		logEntry + "integratedTime":          "1748779199",
		logEntry + "inclusionProof.logIndex": "2",
		logEntry + "inclusionProof.treeSize": "2",
	} {
		m, k := at(t, a, path)
		good := m[k]
		m[k] = bad
		if _, err := root.Verify(object(t, githubPublisher, a), forgedSubject); err == nil {
			t.Errorf("%s: %v in the place of %v, and accepted", path, bad, good)
		}
		m[k] = good
	}
	if _, err := root.Verify(object(t, githubPublisher, a), forgedSubject); err != nil {
		t.Fatal(err)
	}
}
