package bundle

import (
	"bytes"
	"crypto"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/darkmirror/darkmirror/internal/strictjson"
	"github.com/darkmirror/darkmirror/mirror/artifact"
)

const (
	// ReceiptType is what a receipt's envelope holds, and receiptSchema names
	// the statement.
	ReceiptType   = "application/vnd.darkmirror.receipt.v1+json"
	receiptSchema = "darkmirror.receipt/v1"
	// MaxReceipt is what a QR code and a person's patience hold.
	MaxReceipt = 1024
	// maxWaiting bounds the bundles that a receipt says are not complete.
	maxWaiting = 8
	// maxRanges bounds the runs of imported numbers.
	maxRanges = 32
)

// CodeReceipt refuses a receipt.
const CodeReceipt = "ERR_RECEIPT"

// A Receipt is a statement of the inside about a stream: what has arrived. It is
// carried out by hand and never required.
type Receipt struct {
	Stream string
	// Last is the newest imported bundle and ID its id, which fixes all before
	// it, since each names the one before.
	Last  uint64
	ID    artifact.Digest
	State artifact.Digest // as the last bundle's manifest has it
	// Imported are all imported numbers, as runs: 1-40, 42.
	Imported []Run
	// Waiting are bundles that lie in an inbox and are not complete.
	Waiting []Waiting
	Time    time.Time
}

// A Run is numbers From to To.
type Run struct{ From, To uint64 }

// Waiting is a bundle that is not complete.
type Waiting struct {
	Seq     uint64 `json:"seq"`
	Volumes []int  `json:"volumes"` // missing or damaged
}

// statement is the JSON form.
type statement struct {
	Schema   string          `json:"schema"`
	Stream   string          `json:"stream"`
	Last     uint64          `json:"last"`
	Bundle   artifact.Digest `json:"bundle"`
	State    artifact.Digest `json:"state"`
	Imported string          `json:"imported"`
	Waiting  []Waiting       `json:"waiting"`
	Time     time.Time       `json:"time"`
}

// Runs gathers ascending numbers.
func Runs(numbers []uint64) (runs []Run) {
	for _, n := range numbers {
		if l := len(runs); l > 0 && runs[l-1].To+1 == n {
			runs[l-1].To = n
			continue
		}
		runs = append(runs, Run{n, n})
	}
	return runs
}

// Has reports whether a bundle was imported.
func (r *Receipt) Has(seq uint64) bool {
	return slices.ContainsFunc(r.Imported, func(run Run) bool { return run.From <= seq && seq <= run.To })
}

func runsText(runs []Run) string {
	parts := make([]string, len(runs))
	for i, r := range runs {
		parts[i] = strconv.FormatUint(r.From, 10)
		if r.To != r.From {
			parts[i] += "-" + strconv.FormatUint(r.To, 10)
		}
	}
	return strings.Join(parts, ",")
}

func parseRuns(s string) (runs []Run, err error) {
	for part := range strings.SplitSeq(s, ",") {
		from, to, isRun := strings.Cut(part, "-")
		if !isRun {
			to = from
		}
		a, err1 := strconv.ParseUint(from, 10, 53)
		b, err2 := strconv.ParseUint(to, 10, 53)
		if err := errors.Join(err1, err2); err != nil || a < 1 || b < a || isRun && a == b {
			return nil, fmt.Errorf("imported %q: want runs as 1-40,42", clip(s))
		}
		if l := len(runs); l > 0 && a <= runs[l-1].To+1 {
			return nil, fmt.Errorf("imported %q: runs must ascend", clip(s))
		}
		runs = append(runs, Run{a, b})
	}
	if len(runs) > maxRanges || runsText(runs) != s {
		return nil, fmt.Errorf("imported %q: want at most %d runs in their shortest form", clip(s), maxRanges)
	}
	return runs, nil
}

// SignReceipt writes a receipt, at most [MaxReceipt] bytes. What would not fit,
// the oldest runs and the last of what waits, is left out: a receipt says less
// then, and nothing wrong.
func SignReceipt(r Receipt, s Signer) ([]byte, error) {
	for {
		data, err := signReceipt(r, s)
		if err != nil || len(data) <= MaxReceipt {
			return data, err
		}
		switch {
		case len(r.Waiting) > 0:
			r.Waiting = r.Waiting[:len(r.Waiting)-1]
		case len(r.Imported) > 1:
			r.Imported = r.Imported[1:]
		default:
			return nil, fmt.Errorf("receipt of %d bytes, at most %d", len(data), MaxReceipt)
		}
	}
}

func signReceipt(r Receipt, s Signer) ([]byte, error) {
	st := statement{
		Schema: receiptSchema, Stream: r.Stream, Last: r.Last, Bundle: r.ID, State: r.State,
		Imported: runsText(r.Imported[max(0, len(r.Imported)-maxRanges):]), Waiting: append([]Waiting{}, r.Waiting[:min(len(r.Waiting), maxWaiting)]...), Time: r.Time.UTC().Truncate(time.Second),
	}
	payload, err := json.Marshal(&st)
	if err != nil {
		return nil, err
	}
	if _, err := parseReceipt(payload); err != nil {
		return nil, err
	}
	sig, err := sign(s, PAE(ReceiptType, payload))
	if err != nil {
		return nil, err
	}
	return json.Marshal(&envelope{
		PayloadType: ReceiptType, Payload: base64.StdEncoding.EncodeToString(payload),
		Signatures: []signature{{KeyID: KeyID(s.Public()), Sig: base64.StdEncoding.EncodeToString(sig)}},
	})
}

// OpenReceipt verifies a receipt with the keys of the inside.
func OpenReceipt(data []byte, keys map[string]crypto.PublicKey) (*Receipt, error) {
	refuse := func(code, reason string, err error) (*Receipt, error) {
		return nil, refusal(code, "receipt", reason, err)
	}
	data = bytes.TrimSpace(data)
	if len(data) > MaxReceipt {
		return refuse(CodeReceipt, fmt.Sprintf("%d bytes, at most %d are read", len(data), MaxReceipt), nil)
	}
	var e envelope
	if err := strictjson.Unmarshal(data, &e); err != nil {
		return refuse(CodeReceipt, "not a receipt", err)
	}
	if e.PayloadType != ReceiptType || len(e.Signatures) != 1 {
		return refuse(CodeReceipt, "not a receipt with one signature", nil)
	}
	payload, err := decodeBase64(e.Payload)
	if err != nil {
		return refuse(CodeReceipt, "not a receipt", err)
	}
	sig, err := decodeBase64(e.Signatures[0].Sig)
	if err != nil {
		return refuse(CodeReceipt, "not a receipt", err)
	}
	// The key decides, not what the envelope calls it.
	for _, pub := range keys {
		if KeyID(pub) != e.Signatures[0].KeyID {
			continue
		}
		if !verifies(pub, PAE(ReceiptType, payload), sig) {
			return refuse(CodeSignature, "the signature does not fit", nil)
		}
		r, err := parseReceipt(payload)
		if err != nil {
			return refuse(CodeReceipt, "not a valid statement", err)
		}
		return r, nil
	}
	return refuse(CodeKey, "no key of the inside that is trusted here has signed it", nil)
}

func parseReceipt(payload []byte) (*Receipt, error) {
	var st statement
	if err := strictjson.Unmarshal(payload, &st); err != nil {
		return nil, err
	}
	if st.Schema != receiptSchema {
		return nil, fmt.Errorf("schema %q, want %q", clip(st.Schema), receiptSchema)
	}
	if err := CheckStream(st.Stream); err != nil {
		return nil, err
	}
	runs, err := parseRuns(st.Imported)
	if err != nil {
		return nil, err
	}
	if st.Last != runs[len(runs)-1].To || st.Bundle.IsZero() || st.Time.IsZero() || len(st.Waiting) > maxWaiting {
		return nil, errors.New("last, bundle, time or waiting out of range")
	}
	return &Receipt{Stream: st.Stream, Last: st.Last, ID: st.Bundle, State: st.State, Imported: runs, Waiting: st.Waiting, Time: st.Time}, nil
}
