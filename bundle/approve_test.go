package bundle

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/darkmirror/darkmirror/mirror/artifact"
)

func approverKey(t testing.TB, name string) (Signer, TrustedKey) {
	t.Helper()
	s, k := testSigner(t, name)
	k.Role = RoleApprover
	return s, k
}

func (f *fixture) approval() Approval {
	return Approval{ID: f.sealed.ID, Now: f.m.Issued}
}

func mustApprove(t testing.TB, f *fixture, s Signer) *Report {
	t.Helper()
	rep, err := Approve(f.sealed.Dir, s, f.trust, f.approval())
	if err != nil {
		t.Fatal(err)
	}
	return rep
}

func readFile(t testing.TB, path ...string) []byte {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(path...))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// verifyDir verifies the bundle in a folder.
func verifyDir(t testing.TB, dir string, trust Trust) (*Report, error) {
	t.Helper()
	r, err := Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer closeIt(t, r)
	_, rep, err := r.Verify(trust)
	return rep, err
}

func TestApprove(t *testing.T) {
	f := sealSmall(t, t.TempDir())
	before := tree(t, f.sealed.Dir)
	a, keyA := approverKey(t, "approver-a")
	b, keyB := approverKey(t, "approver-b")
	one := Trust{Keys: []TrustedKey{f.trust.Keys[0], keyA, keyB}, Approvals: 1}
	two := Trust{Keys: one.Keys, Approvals: 2}

	_, err := verifyDir(t, f.sealed.Dir, one)
	wantCode(t, err, CodeApproval)
	if rep := mustApprove(t, f, a); !slices.Equal(rep.ApprovedBy, []string{"approver-a"}) || !slices.Equal(rep.SignedBy, []string{"exporter-a"}) || rep.ID != f.sealed.ID {
		t.Fatalf("%+v", rep)
	}
	rep, err := verifyDir(t, f.sealed.Dir, one)
	if err != nil || rep.ID != f.sealed.ID || !slices.Equal(rep.ApprovedBy, []string{"approver-a"}) || !slices.Equal(rep.ApproverFingerprints, []string{Fingerprint(a.Public())}) ||
		!slices.Equal(rep.Fingerprints, []string{Fingerprint(f.trust.Keys[0].Public)}) {
		t.Fatalf("%+v %v", rep, err)
	}
	if !slices.ContainsFunc(rep.Steps, func(s string) bool { return s == "approvals: 1, 1 needed" }) {
		t.Errorf("steps %q", rep.Steps)
	}
	_, err = verifyDir(t, f.sealed.Dir, two)
	wantCode(t, err, CodeApproval)
	if !strings.Contains(err.Error(), "want signatures of 2 approvers, got 1 (approver-a)") {
		t.Error(err)
	}
	// Again with the same key: nothing changes, and it still counts once.
	once := tree(t, f.sealed.Dir)
	mustApprove(t, f, a)
	if diff := cmp.Diff(once, tree(t, f.sealed.Dir)); diff != "" {
		t.Fatal(diff)
	}
	_, err = verifyDir(t, f.sealed.Dir, two)
	wantCode(t, err, CodeApproval)

	mustApprove(t, f, b)
	if rep, err := verifyDir(t, f.sealed.Dir, two); err != nil || !slices.Equal(rep.ApprovedBy, []string{"approver-a", "approver-b"}) {
		t.Fatal(rep, err)
	}
	// Who does not know the approvers reads it as before.
	if rep, err := verifyDir(t, f.sealed.Dir, f.trust); err != nil || len(rep.ApprovedBy) != 0 || len(rep.Unknown) != 2 {
		t.Fatal(rep, err)
	}
	// Only the envelope changed, and of it only the signatures.
	after := tree(t, f.sealed.Dir)
	var was, is envelope
	for text, e := range map[string]*envelope{before[envelopeName]: &was, after[envelopeName]: &is} {
		if err := json.Unmarshal([]byte(text), e); err != nil {
			t.Fatal(err)
		}
	}
	if was.Payload != is.Payload || len(is.Signatures) != 3 || is.Signatures[0] != was.Signatures[0] {
		t.Fatalf("%+v", is.Signatures)
	}
	delete(before, envelopeName)
	delete(after, envelopeName)
	if diff := cmp.Diff(before, after); diff != "" {
		t.Fatal(diff)
	}
	if err := copyAll(t.Context(), f.openBundle(t), f.content); err != nil {
		t.Fatal(err)
	}
	info, err := os.Stat(filepath.Join(f.sealed.Dir, envelopeName))
	if err != nil || info.Mode().Perm() != fileMode {
		t.Error(info.Mode(), err)
	}
}

// The exporter that is started again finds what was approved meanwhile.
func TestSealAfterApproval(t *testing.T) {
	f := sealSmall(t, t.TempDir())
	a, _ := approverKey(t, "approver-a")
	mustApprove(t, f, a)
	approved := readFile(t, f.sealed.Dir, envelopeName)
	again := sealSmall(t, f.outbox)
	if again.sealed.Dir != f.sealed.Dir || !cmp.Equal(approved, readFile(t, f.sealed.Dir, envelopeName)) {
		t.Fatal("the approval is lost")
	}
	// An envelope that does not hold our signature is another matter.
	var e envelope
	if err := json.Unmarshal(approved, &e); err != nil {
		t.Fatal(err)
	}
	e.Signatures[0] = e.Signatures[1]
	spoilt, err := json.Marshal(&e)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(f.sealed.Dir, envelopeName), spoilt, 0o600); err != nil {
		t.Fatal(err)
	}
	signer, _ := testSigner(t, "exporter-a")
	_, err = seal(t.Context(), f.outbox, f.m, f.content.open, signer, SealOptions{VolumeSize: small.volume}, small)
	if err == nil || !strings.Contains(err.Error(), "differs") {
		t.Fatal(err)
	}
}

func TestApproveRefuses(t *testing.T) {
	base := sealSmall(t, t.TempDir())
	exporter, keyE := testSigner(t, "exporter-a")
	a, keyA := approverKey(t, "approver-a")
	_, keyB := approverKey(t, "approver-b")
	stranger, _ := testSigner(t, "stranger")
	good := base.approval()
	envelopeOf := func(spoil func(*envelope), signers ...Signer) []byte {
		var e envelope
		if err := json.Unmarshal(readFile(t, base.sealed.Dir, envelopeName), &e); err != nil {
			t.Fatal(err)
		}
		payload, err := base64.StdEncoding.DecodeString(e.Payload)
		if err != nil {
			t.Fatal(err)
		}
		return signed(t, payload, spoil, signers...)
	}
	zeroSig := base64.StdEncoding.EncodeToString(make([]byte, 64))
	for name, tc := range map[string]struct {
		signer   Signer
		trust    Trust
		approval Approval
		envelope []byte // nil: as sealed
		want     string // code; "-": no refusal but an error
	}{
		"exporter's key": {exporter, base.trust, good, nil, CodeKey},
		"exporter's key, named as approver's": {
			exporter, Trust{Keys: []TrustedKey{keyE, {Name: "x", Role: RoleApprover, Public: keyE.Public}}}, good, nil, CodeKey,
		},
		"not one of the approvers":     {a, Trust{Keys: []TrustedKey{keyE, keyB}}, good, nil, CodeKey},
		"no exporter trusted":          {a, Trust{Keys: []TrustedKey{keyA}}, good, nil, CodeKey},
		"nobody trusted":               {a, Trust{}, good, nil, CodeKey},
		"other exporter":               {a, base.trust, good, envelopeOf(nil, stranger), CodeKey},
		"exporter's signature forged":  {a, base.trust, good, envelopeOf(func(e *envelope) { e.Signatures[0].Sig = zeroSig }, exporter), CodeSignature},
		"own signature forged":         {a, base.trust, good, envelopeOf(func(e *envelope) { e.Signatures[1].Sig = zeroSig }, exporter, a), CodeSignature},
		"own signature twice":          {a, base.trust, good, envelopeOf(nil, exporter, a, a), CodeKey},
		"approved only":                {a, base.trust, good, envelopeOf(nil, a), CodeKey},
		"another bundle was shown":     {a, base.trust, Approval{ID: artifact.Sum([]byte("x")), Now: good.Now}, nil, CodeApproval},
		"expired":                      {a, base.trust, Approval{ID: good.ID, Now: base.m.Expires}, nil, CodeExpired},
		"expires soon":                 {a, base.trust, Approval{ID: good.ID, Now: base.m.Expires.Add(-time.Hour), MinLeft: time.Hour}, nil, CodeExpired},
		"full":                         {a, base.trust, good, envelopeOf(func(e *envelope) { pad(e, maxSignatures) }, exporter), CodeApproval},
		"damaged":                      {a, base.trust, good, []byte("{"), CodeFormat},
		"no id":                        {a, base.trust, Approval{Now: good.Now}, nil, "-"},
		"no time":                      {a, base.trust, Approval{ID: good.ID}, nil, "-"},
		"no key":                       {Signer{Name: "a"}, base.trust, good, nil, "-"},
		"faulty token":                 {Signer{Name: "a", Signer: faulty{a}}, base.trust, good, nil, "-"},
		"nothing but whole signatures": {a, base.trust, good, envelopeOf(func(e *envelope) { e.Signatures[0].KeyID = "" }, exporter), CodeKey},
	} {
		t.Run(name, func(t *testing.T) {
			f := sealSmall(t, t.TempDir())
			if tc.envelope != nil {
				if err := os.WriteFile(filepath.Join(f.sealed.Dir, envelopeName), tc.envelope, 0o600); err != nil {
					t.Fatal(err)
				}
			}
			before := tree(t, f.sealed.Dir)
			rep, err := Approve(f.sealed.Dir, tc.signer, tc.trust, tc.approval)
			if rep != nil || err == nil {
				t.Fatal(rep, err)
			}
			if tc.want == "-" {
				if len(codes(err)) != 0 {
					t.Fatal(err)
				}
			} else {
				wantCode(t, err, tc.want)
			}
			if diff := cmp.Diff(before, tree(t, f.sealed.Dir)); diff != "" {
				t.Fatalf("something was written: %s", diff)
			}
		})
	}
	if _, err := Approve(t.TempDir(), a, base.trust, good); !errors.Is(err, artifact.ErrIntegrity) {
		t.Errorf("a folder without a bundle: %v", err)
	}
	// A link on the medium is not followed.
	f := sealSmall(t, t.TempDir())
	name := filepath.Join(f.sealed.Dir, envelopeName)
	if err := errors.Join(os.Rename(name, name+".x"), os.Symlink(name+".x", name)); err != nil {
		t.Fatal(err)
	}
	_, err := Approve(f.sealed.Dir, a, f.trust, f.approval())
	wantCode(t, err, CodeFormat)
}

// pad fills an envelope with signatures of keys that nobody knows.
func pad(e *envelope, n int) {
	for len(e.Signatures) < n {
		e.Signatures = append(e.Signatures, signature{KeyID: artifact.Sum([]byte{byte(len(e.Signatures))}).Hex(), Sig: e.Signatures[0].Sig})
	}
}

// What a hostile medium may try to pass the threshold.
func TestApprovalThreshold(t *testing.T) {
	e, keyE := testSigner(t, "exporter-a")
	e2, keyE2 := testSigner(t, "exporter-b")
	a, keyA := approverKey(t, "approver-a")
	b, keyB := approverKey(t, "approver-b")
	x, _ := testSigner(t, "stranger")
	body := []byte("{}")
	flip := func(sig string) string {
		raw, err := base64.StdEncoding.DecodeString(sig)
		if err != nil {
			t.Fatal(err)
		}
		raw[9] ^= 1
		return base64.StdEncoding.EncodeToString(raw)
	}
	keys := []TrustedKey{keyE, keyE2, keyA, keyB}
	for name, tc := range map[string]struct {
		approvals int
		data      []byte
		want      string
	}{
		"none asked for, none there": {0, signed(t, body, nil, e), ""},
		"none asked for, one there":  {0, signed(t, body, nil, e, a), ""},
		"one":                        {1, signed(t, body, nil, e, a), ""},
		"before the exporter":        {1, signed(t, body, nil, a, e), ""},
		"two":                        {2, signed(t, body, nil, e, a, b), ""},
		"with a stranger":            {2, signed(t, body, nil, x, e, a, b), ""},
		"one of two":                 {2, signed(t, body, nil, e, a), CodeApproval},
		"none of one":                {1, signed(t, body, nil, e), CodeApproval},
		"same key twice":             {2, signed(t, body, nil, e, a, a), CodeKey},
		"same key under another id":  {2, signed(t, body, func(v *envelope) { v.Signatures[2].KeyID = strings.ToUpper(v.Signatures[2].KeyID) }, e, a, a), CodeApproval},
		"same key under b's id":      {2, signed(t, body, func(v *envelope) { v.Signatures[2].KeyID = KeyID(keyB.Public) }, e, a, a), CodeSignature},
		"two exporters":              {1, signed(t, body, nil, e, e2), CodeApproval},
		"a stranger":                 {1, signed(t, body, nil, e, x), CodeApproval},
		"forged":                     {1, signed(t, body, func(v *envelope) { v.Signatures[1].Sig = flip(v.Signatures[1].Sig) }, e, a), CodeSignature},
		"one good, one forged":       {1, signed(t, body, func(v *envelope) { v.Signatures[2].Sig = flip(v.Signatures[2].Sig) }, e, a, b), CodeSignature},
		"of another bundle":          {1, signed(t, body, func(v *envelope) { v.Signatures[1].Sig = signatureOf(t, a, []byte("[]")) }, e, a), CodeSignature},
		"approvers without exporter": {2, signed(t, body, nil, a, b), CodeKey},
	} {
		t.Run(name, func(t *testing.T) {
			rep, err := verifyBytes(tc.data, Trust{Keys: keys, Approvals: tc.approvals})
			if tc.want != "" {
				if rep != nil {
					t.Fatalf("a report beside an error: %+v", rep)
				}
				wantCode(t, err, tc.want)
				return
			}
			if err != nil || !slices.Equal(rep.SignedBy, []string{"exporter-a"}) || len(rep.ApprovedBy) < tc.approvals {
				t.Fatal(rep, err)
			}
		})
	}
	// A threshold that nobody can reach, or none at all, is a mistake.
	for _, n := range []int{-1, 3} {
		_, err := verifyBytes(signed(t, body, nil, e, a, b), Trust{Keys: keys, Approvals: n})
		wantCode(t, err, CodeKey)
	}
}

func signatureOf(t testing.TB, s Signer, payload []byte) string {
	t.Helper()
	sig, err := sign(s, PAE(PayloadType, payload))
	if err != nil {
		t.Fatal(err)
	}
	return base64.StdEncoding.EncodeToString(sig)
}

// What a hostile medium may try to pass the threshold of exporters.
func TestExporterThreshold(t *testing.T) {
	a, keyA := testSigner(t, "exporter-a")
	b, keyB := ecSigner(t, "exporter-b")
	c, keyC := testSigner(t, "exporter-c")
	p, keyP := approverKey(t, "approver-a")
	x, _ := testSigner(t, "stranger")
	body := []byte("{}")
	trust := Trust{Keys: []TrustedKey{keyA, keyB, keyC, keyP}}
	for name, tc := range map[string]struct {
		exporters, approvals int
		data                 []byte
		want, text           string
	}{
		"not asked":              {0, 0, signed(t, body, nil, a), "", ""},
		"one":                    {1, 0, signed(t, body, nil, b), "", ""},
		"two":                    {2, 0, signed(t, body, nil, a, b), "", ""},
		"more than asked":        {2, 0, signed(t, body, nil, c, a, b), "", ""},
		"two and an approver":    {2, 1, signed(t, body, nil, a, p, b), "", ""},
		"one of two":             {2, 0, signed(t, body, nil, a), CodeThreshold, "want signatures of 2 exporters, got 1 (exporter-a)"},
		"two of three":           {3, 0, signed(t, body, nil, b, a), CodeThreshold, "want signatures of 3 exporters, got 2 (exporter-b, exporter-a)"},
		"approver is none":       {2, 0, signed(t, body, nil, a, p), CodeThreshold, "got 1 (exporter-a)"},
		"stranger is none":       {2, 0, signed(t, body, nil, a, x), CodeThreshold, "got 1 (exporter-a)"},
		"none of two":            {2, 0, signed(t, body, nil, x), CodeKey, "no signature of a trusted exporter key"},
		"threshold, then people": {2, 1, signed(t, body, nil, a), CodeThreshold, "exporters"},
		"key twice":              {2, 0, signed(t, body, nil, a, a), CodeKey, "twice"},
		"key under another id":   {2, 0, signed(t, body, func(v *envelope) { v.Signatures[1].KeyID = strings.ToUpper(v.Signatures[1].KeyID) }, b, b), CodeThreshold, "got 1 (exporter-b)"},
		"under c's id":           {2, 0, signed(t, body, func(v *envelope) { v.Signatures[1].KeyID = KeyID(keyC.Public) }, a, a), CodeSignature, "exporter-c"},
	} {
		t.Run(name, func(t *testing.T) {
			trust := trust
			trust.Exporters, trust.Approvals = tc.exporters, tc.approvals
			rep, err := verifyBytes(tc.data, trust)
			if tc.want != "" {
				wantCode(t, err, tc.want)
				if rep != nil || !strings.Contains(err.Error(), tc.text) {
					t.Errorf("%v %v, want %s", rep, err, tc.text)
				}
				return
			}
			if err != nil || len(rep.SignedBy) < tc.exporters {
				t.Fatal(rep, err)
			}
			if said := slices.ContainsFunc(rep.Steps, func(s string) bool { return strings.HasPrefix(s, "exporters: ") }); said != (tc.exporters > 1) {
				t.Errorf("steps %q", rep.Steps)
			}
		})
	}
	// A threshold that nobody can reach, or none at all, is a mistake.
	for _, n := range []int{-1, 4} {
		trust.Exporters = n
		_, err := verifyBytes(signed(t, body, nil, a, b, c), trust)
		wantCode(t, err, CodeKey)
	}
}

func TestCoSign(t *testing.T) {
	f := sealSmall(t, t.TempDir())
	before := tree(t, f.sealed.Dir)
	b, keyB := ecSigner(t, "exporter-b")
	p, keyP := approverKey(t, "approver-a")
	two := Trust{Keys: []TrustedKey{f.trust.Keys[0], keyB, keyP}, Exporters: 2}
	_, err := verifyDir(t, f.sealed.Dir, two)
	wantCode(t, err, CodeThreshold)

	refused := func(want string, s Signer, trust Trust, a Approval) {
		t.Helper()
		rep, err := CoSign(f.sealed.Dir, s, trust, a)
		wantCode(t, err, want)
		if diff := cmp.Diff(before, tree(t, f.sealed.Dir)); rep != nil || diff != "" {
			t.Fatalf("something was written: %s", diff)
		}
	}
	refused(CodeKey, b, f.trust, f.approval())
	refused(CodeKey, p, two, f.approval())
	refused(CodeKey, b, Trust{Keys: []TrustedKey{keyB}}, f.approval())
	refused(CodeApproval, b, two, Approval{ID: artifact.Sum([]byte("x")), Now: f.m.Issued})
	refused(CodeExpired, b, two, Approval{ID: f.sealed.ID, Now: f.m.Expires})

	rep, err := CoSign(f.sealed.Dir, b, two, f.approval())
	if err != nil || !slices.Equal(rep.SignedBy, []string{"exporter-a", "exporter-b"}) || rep.ID != f.sealed.ID {
		t.Fatal(rep, err)
	}
	once := tree(t, f.sealed.Dir)
	if _, err := CoSign(f.sealed.Dir, b, two, f.approval()); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(once, tree(t, f.sealed.Dir)); diff != "" {
		t.Fatal(diff)
	}
	if rep, err := verifyDir(t, f.sealed.Dir, two); err != nil || !slices.Equal(rep.SignedBy, []string{"exporter-a", "exporter-b"}) || len(rep.ApprovedBy) != 0 {
		t.Fatal(rep, err)
	}
	// An approver comes after both; how many exporters are asked for is no
	// concern of approving.
	f.trust = Trust{Keys: two.Keys, Exporters: 2, Approvals: 1}
	mustApprove(t, f, p)
	if err := copyAll(t.Context(), f.openBundle(t), f.content); err != nil {
		t.Fatal(err)
	}
	// Who knows the first exporter alone reads it as before.
	if rep, err := verifyDir(t, f.sealed.Dir, Trust{Keys: two.Keys[:1]}); err != nil || len(rep.Unknown) != 2 {
		t.Fatal(rep, err)
	}
	// What was sealed is still what an exporter started again finds.
	if again := sealSmall(t, f.outbox); again.sealed.Dir != f.sealed.Dir {
		t.Fatal(again.sealed.Dir)
	}
}
