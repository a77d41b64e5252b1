package main

import (
	"bytes"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"os"
)

// readCertificates reads the certificates of a PEM file and nothing else of
// it: a key beside them goes nowhere.
func readCertificates(file string) ([]*x509.Certificate, error) {
	b, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	var certs []*x509.Certificate
	for {
		var block *pem.Block
		if block, b = pem.Decode(b); block == nil {
			break
		}
		if block.Type != "CERTIFICATE" {
			continue
		}
		c, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", file, err)
		}
		certs = append(certs, c)
	}
	if len(certs) == 0 {
		return nil, fmt.Errorf("%s: no certificate", file)
	}
	return certs, nil
}

func encodeCertificates(certs ...*x509.Certificate) string {
	var b bytes.Buffer
	for _, c := range certs {
		b.Write(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c.Raw}))
	}
	return b.String()
}

// readCA gives the certificates of a file for clients; file may be empty.
func readCA(file string) (string, error) {
	if file == "" {
		return "", nil
	}
	certs, err := readCertificates(file)
	if err != nil {
		return "", err
	}
	return encodeCertificates(certs...), nil
}

// inspectCertificate looks at the server's chain: what of it clients could
// trust by itself, and what they will complain about. known says that the CA
// is known from elsewhere.
func inspectCertificate(file, name string, known bool) (ca string, doubts []string) {
	certs, err := readCertificates(file)
	if err != nil {
		return "", []string{"serve.certificate: " + err.Error()}
	}
	if err := certs[0].VerifyHostname(name); err != nil {
		doubts = append(doubts, "serve.certificate: "+err.Error())
	}
	if certs[0].IsCA {
		doubts = append(doubts, "serve.certificate is a CA's own: uv refuses a server that shows one, and so do others")
	}
	last := certs[len(certs)-1]
	// Issuer and subject are equal, and its own key signed it.
	if bytes.Equal(last.RawIssuer, last.RawSubject) && last.CheckSignature(last.SignatureAlgorithm, last.RawTBSCertificate, last.Signature) == nil {
		return encodeCertificates(last), doubts
	}
	if !known {
		doubts = append(doubts, fmt.Sprintf("serve.certificate was issued by %q, which is not in the file: --ca FILE, for clients that do not trust it", last.Issuer))
	}
	return "", doubts
}
