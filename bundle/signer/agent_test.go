package signer

import (
	"bufio"
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"errors"
	"math/big"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"golang.org/x/crypto/ssh"
	"golang.org/x/crypto/ssh/agent"

	"github.com/darkmirror/darkmirror/bundle"
)

// serve runs an agent at SSH_AUTH_SOCK until the test ends.
func serve(t testing.TB, a agent.Agent) string {
	t.Helper()
	socket := filepath.Join(t.TempDir(), "s")
	var lc net.ListenConfig
	l, err := lc.Listen(t.Context(), "unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	t.Cleanup(func() {
		if err := l.Close(); err != nil {
			t.Error(err)
		}
		wg.Wait()
	})
	wg.Go(func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			wg.Go(func() {
				_ = agent.ServeAgent(a, conn) // ends with the connection
				_ = conn.Close()
			})
		}
	})
	return socket
}

// someKeys are one key of each kind, and their comments.
type someKeys struct {
	ed  ed25519.PrivateKey
	ec  *ecdsa.PrivateKey
	ec3 *ecdsa.PrivateKey
	rsa *rsa.PrivateKey
}

func fill(t testing.TB, a agent.Agent) *someKeys {
	t.Helper()
	var k someKeys
	var errs [4]error
	_, k.ed, errs[0] = ed25519.GenerateKey(rand.Reader)
	k.ec, errs[1] = ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	k.ec3, errs[2] = ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	k.rsa, errs[3] = rsa.GenerateKey(rand.Reader, 2048)
	err := errors.Join(errs[:]...)
	for comment, key := range map[string]any{"exporter-a": &k.ed, "Token of B": k.ec, "p384": k.ec3, "rsa": k.rsa} {
		err = errors.Join(err, a.Add(agent.AddedKey{PrivateKey: key, Comment: comment}))
	}
	if err != nil {
		t.Fatal(err)
	}
	return &k
}

func fingerprint(t testing.TB, pub crypto.PublicKey) string {
	t.Helper()
	key, err := ssh.NewPublicKey(pub)
	if err != nil {
		t.Fatal(err)
	}
	return ssh.FingerprintSHA256(key)
}

// testAgent holds what any agent must do.
func testAgent(t *testing.T, socket string, keys *someKeys) {
	t.Setenv("SSH_AUTH_SOCK", socket)
	edID, ecID := bundle.KeyID(keys.ed.Public()), bundle.KeyID(keys.ec.Public())
	for _, spec := range []string{"exporter-a", fingerprint(t, keys.ed.Public()), edID[:16], edID} {
		wantSigner(t, "agent:"+spec, "exporter-a", keys.ed.Public())
	}
	for _, spec := range []string{"Token of B", fingerprint(t, keys.ec.Public()), ecID[:20]} {
		wantSigner(t, "agent:"+spec, "key-"+ecID[:8], keys.ec.Public())
	}
	for spec, want := range map[string][]string{
		"p384":                                {`key "p384"`, "ecdsa-sha2-nistp384 is not supported", "ssh-ed25519 or ecdsa-sha2-nistp256"},
		"rsa":                                 {"ssh-rsa is not supported"},
		fingerprint(t, keys.rsa.Public()):     {"ssh-rsa is not supported"},
		edID[:15]:                             {`no key "` + edID[:15]},
		"exporter":                            {`no key "exporter"`, `"exporter-a" key id ` + edID[:16], fingerprint(t, keys.ec.Public()), `"p384"`, socket},
		"":                                    {"no key is named", "SHA256:"},
		"SHA256:" + strings.Repeat("A", 43):   {"no key"},
		strings.Repeat("0", 64):               {"no key"},
		edID + "0":                            {"no key"},
		strings.ToUpper(edID[:16]) + "_upper": {"no key"},
	} {
		s, closeKey, err := Open(t.Context(), "agent:"+spec)
		if s.Signer != nil || closeKey != nil {
			t.Errorf("%s: something beside the error", spec)
		}
		wantError(t, err, want...)
	}
	// What an agent cannot do is said; it hashes for itself.
	s := wantSigner(t, "agent:"+ecID, "key-"+ecID[:8], keys.ec.Public())
	_, err := s.Sign(rand.Reader, make([]byte, 32), crypto.SHA256)
	wantError(t, err, "cannot sign a digest")
	for _, opts := range []crypto.Hash{0, crypto.SHA512} {
		_, err = crypto.SignMessage(s.Signer, rand.Reader, []byte("x"), opts)
		wantError(t, err, "signs with SHA-256")
	}
}

func TestAgent(t *testing.T) {
	ring := agent.NewKeyring()
	keys := fill(t, ring)
	testAgent(t, serve(t, ring), keys)

	// A key that is gone by the time of signing.
	s := wantSigner(t, "agent:exporter-a", "exporter-a", keys.ed.Public())
	if err := ring.RemoveAll(); err != nil {
		t.Fatal(err)
	}
	wantError(t, bundle.CheckSigner(s), "sign with ssh-ed25519 SHA256:")
	_, _, err := Open(t.Context(), "agent:exporter-a")
	wantError(t, err, "the agent holds: none")
}

// The program that people have.
func TestOpenSSH(t *testing.T) {
	program, err := exec.LookPath("ssh-agent")
	if err != nil {
		t.Skip("NOT RUN: the program ssh-agent is not here, so keys were tried with the agent of the test alone")
	}
	socket := filepath.Join(t.TempDir(), "s")
	// The agent ends with its command, and that with its input.
	cmd := exec.CommandContext(t.Context(), program, "-a", socket, "sh", "-c", "echo ready; cat")
	in, err1 := cmd.StdinPipe()
	out, err2 := cmd.StdoutPipe()
	cmd.Stderr = t.Output()
	if err := errors.Join(err1, err2, cmd.Start()); err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := errors.Join(in.Close(), cmd.Wait()); err != nil {
			t.Error(err)
		}
	}()
	if line, err := bufio.NewReader(out).ReadString('\n'); err != nil || line != "ready\n" {
		t.Fatal(line, err)
	}
	var d net.Dialer
	conn, err := d.DialContext(t.Context(), "unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	keys := fill(t, agent.NewClient(conn))
	if err := conn.Close(); err != nil {
		t.Fatal(err)
	}
	testAgent(t, socket, keys)

	// Its limit, and what we say of it. Just below, it signs.
	s := wantSigner(t, "agent:exporter-a", "exporter-a", keys.ed.Public())
	if _, err := crypto.SignMessage(s.Signer, nil, make([]byte, maxOpenSSHMessage-1024), crypto.Hash(0)); err != nil {
		t.Error(err)
	}
	_, err = crypto.SignMessage(s.Signer, nil, make([]byte, maxOpenSSHMessage), crypto.Hash(0))
	wantError(t, err, "the message has 262144 bytes and OpenSSH's agent takes 262144")
}

// odd is an agent that lists keys and signs as a test wants it.
type odd struct {
	agent.Agent
	keys []*agent.Key
	sign func() (*ssh.Signature, error)
}

func (o *odd) List() ([]*agent.Key, error)                        { return o.keys, nil }
func (o *odd) Sign(ssh.PublicKey, []byte) (*ssh.Signature, error) { return o.sign() }
func (o *odd) Extension(string, []byte) ([]byte, error)           { return nil, agent.ErrExtensionUnsupported }

func (o *odd) Signers() ([]ssh.Signer, error) { return nil, errors.ErrUnsupported }

func (o *odd) SignWithFlags(k ssh.PublicKey, d []byte, _ agent.SignatureFlags) (*ssh.Signature, error) {
	return o.Sign(k, d)
}

func edKey(t testing.TB, comment string) *agent.Key {
	t.Helper()
	pub, _, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	key, err := ssh.NewPublicKey(pub)
	if err != nil {
		t.Fatal(err)
	}
	return &agent.Key{Format: key.Type(), Blob: key.Marshal(), Comment: comment}
}

func TestAgentKeys(t *testing.T) {
	a, b := edKey(t, "same"), edKey(t, "same")
	point := elliptic.P256().Params()
	security := func(typ, comment string, rest any) *agent.Key {
		return &agent.Key{Format: typ, Comment: comment, Blob: slices.Concat(ssh.Marshal(struct{ T string }{typ}), ssh.Marshal(rest))}
	}
	sk := security(ssh.KeyAlgoSKED25519, "stick", struct {
		Key []byte
		App string
	}{make([]byte, 32), "ssh:"})
	skEC := security(ssh.KeyAlgoSKECDSA256, "stick-ec", struct {
		Curve string
		Point []byte
		App   string
	}{"nistp256", slices.Concat([]byte{4}, point.Gx.FillBytes(make([]byte, 32)), point.Gy.FillBytes(make([]byte, 32))), "ssh:"})
	junk := &agent.Key{Format: "x", Blob: ssh.Marshal(struct{ T string }{"x"}), Comment: "junk"}

	// A certificate beside its key shares the comment and is passed over.
	plain, err := ssh.ParsePublicKey(a.Blob)
	if err != nil {
		t.Fatal(err)
	}
	_, ca, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	caSigner, err := ssh.NewSignerFromKey(ca)
	if err != nil {
		t.Fatal(err)
	}
	crt := &ssh.Certificate{Key: plain, CertType: ssh.UserCert}
	if err := crt.SignCert(rand.Reader, caSigner); err != nil {
		t.Fatal(err)
	}
	cert := &agent.Key{Format: crt.Type(), Blob: crt.Marshal(), Comment: "same"}

	for name, tc := range map[string]struct {
		keys     []*agent.Key
		selector string
		want     []string // nil: found
	}{
		"one":              {[]*agent.Key{a}, "same", nil},
		"listed twice":     {[]*agent.Key{a, a}, "same", nil},
		"certificate":      {[]*agent.Key{cert, a}, "same", nil},
		"certificate only": {[]*agent.Key{cert}, "same", []string{"ssh-ed25519-cert-v01@openssh.com is not supported"}},
		"two":              {[]*agent.Key{a, b}, "same", []string{`"same" names 2 keys, name one by its fingerprint`, "SHA256:"}},
		"security key":     {[]*agent.Key{sk, a}, "stick", []string{"sk-ssh-ed25519@openssh.com signs other bytes", "counter"}},
		"security key, EC": {[]*agent.Key{skEC}, "stick-ec", []string{"sk-ecdsa-sha2-nistp256@openssh.com signs other bytes"}},
		"junk":             {[]*agent.Key{junk}, "junk", []string{`no key "junk", the agent holds: none`}},
		"many":             {slices.Repeat([]*agent.Key{sk}, 20), "other", []string{"and 4 more"}},
		"long":             {[]*agent.Key{edKey(t, strings.Repeat("x", 1000))}, "other\x1b[m", []string{`"other\x1b[m"`, "x..."}},
	} {
		t.Run(name, func(t *testing.T) {
			k, err := selectKey(parseKeys(tc.keys), tc.selector)
			if tc.want != nil {
				if k != nil {
					t.Fatal("a key beside an error")
				}
				wantError(t, err, tc.want...)
				return
			}
			if err != nil || k.id == "" || k.pub == nil {
				t.Fatal(k, err)
			}
		})
	}
}

func TestAgentAbsent(t *testing.T) {
	t.Setenv("SSH_AUTH_SOCK", "")
	_, _, err := Open(t.Context(), "agent:a")
	wantError(t, err, "SSH_AUTH_SOCK is not set")
	socket := filepath.Join(t.TempDir(), "s")
	t.Setenv("SSH_AUTH_SOCK", socket)
	_, _, err = Open(t.Context(), "agent:a")
	wantError(t, err, "ssh-agent at "+socket)
	if !errors.Is(err, os.ErrNotExist) {
		t.Error(err)
	}
}

// An agent that waits for a person does not outlive the run.
func TestAgentCancel(t *testing.T) {
	asked := make(chan struct{})
	release := make(chan struct{})
	o := &odd{keys: []*agent.Key{edKey(t, "a")}, sign: func() (*ssh.Signature, error) {
		close(asked)
		<-release
		return nil, errors.New("too late")
	}}
	socket := serve(t, o)
	defer close(release)
	t.Setenv("SSH_AUTH_SOCK", socket)
	ctx, cancel := context.WithCancel(t.Context())
	s, _, err := Open(ctx, "agent:a")
	if err != nil {
		t.Fatal(err)
	}
	go func() { <-asked; cancel() }()
	if err := bundle.CheckSigner(s); !errors.Is(err, context.Canceled) {
		t.Fatal(err)
	}
}

// A lying agent cannot make a signature that is not one.
func TestAgentSignatures(t *testing.T) {
	zeros := make([]byte, 64)
	pair := func(r, s int64) []byte {
		return ssh.Marshal(struct{ R, S *big.Int }{big.NewInt(r), big.NewInt(s)})
	}
	for name, tc := range map[string]struct {
		typ  string
		sig  ssh.Signature
		want string // empty: converted, and left to the caller to verify
	}{
		"Ed25519":         {ssh.KeyAlgoED25519, ssh.Signature{Format: ssh.KeyAlgoED25519, Blob: zeros}, ""},
		"short":           {ssh.KeyAlgoED25519, ssh.Signature{Format: ssh.KeyAlgoED25519, Blob: zeros[1:]}, "63 bytes"},
		"other type":      {ssh.KeyAlgoED25519, ssh.Signature{Format: ssh.KeyAlgoRSASHA256, Blob: zeros}, "rsa-sha2-256"},
		"flags":           {ssh.KeyAlgoED25519, ssh.Signature{Format: ssh.KeyAlgoED25519, Blob: zeros, Rest: []byte{1}}, "1 further bytes"},
		"ECDSA":           {ssh.KeyAlgoECDSA256, ssh.Signature{Format: ssh.KeyAlgoECDSA256, Blob: pair(1, 2)}, ""},
		"ECDSA, zero":     {ssh.KeyAlgoECDSA256, ssh.Signature{Format: ssh.KeyAlgoECDSA256, Blob: pair(0, 2)}, "positive"},
		"ECDSA, negative": {ssh.KeyAlgoECDSA256, ssh.Signature{Format: ssh.KeyAlgoECDSA256, Blob: pair(1, -2)}, "positive"},
		"ECDSA, trailing": {ssh.KeyAlgoECDSA256, ssh.Signature{Format: ssh.KeyAlgoECDSA256, Blob: append(pair(1, 2), 0)}, "ECDSA signature"},
		"ECDSA, empty":    {ssh.KeyAlgoECDSA256, ssh.Signature{Format: ssh.KeyAlgoECDSA256}, "ECDSA signature"},
	} {
		t.Run(name, func(t *testing.T) {
			sig, err := convert(tc.typ, &tc.sig)
			if tc.want != "" {
				wantError(t, err, tc.want)
				return
			}
			if err != nil || len(sig) == 0 {
				t.Fatal(sig, err)
			}
		})
	}
	o := &odd{keys: []*agent.Key{edKey(t, "a")}, sign: func() (*ssh.Signature, error) {
		return &ssh.Signature{Format: ssh.KeyAlgoED25519, Blob: zeros}, nil
	}}
	t.Setenv("SSH_AUTH_SOCK", serve(t, o))
	s, _, err := Open(t.Context(), "agent:a")
	if err != nil {
		t.Fatal(err)
	}
	wantError(t, bundle.CheckSigner(s), "does not verify")
}

// Whatever an agent answers: what is converted has the form of a signature.
func FuzzConvert(f *testing.F) {
	f.Add(true, ssh.Marshal(struct{ R, S *big.Int }{big.NewInt(1), big.NewInt(255)}))
	f.Add(true, []byte{0, 0, 0, 1, 0, 0, 0, 0, 1, 1})
	f.Add(false, make([]byte, 64))
	f.Fuzz(func(t *testing.T, ec bool, blob []byte) {
		typ := ssh.KeyAlgoED25519
		if ec {
			typ = ssh.KeyAlgoECDSA256
		}
		sig, err := convert(typ, &ssh.Signature{Format: typ, Blob: blob})
		if err == nil && (len(sig) == 0 || len(sig) > 72) {
			t.Fatalf("%x", sig)
		}
	})
}
