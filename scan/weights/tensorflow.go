package weights

import (
	"errors"

	"github.com/darkmirror/darkmirror/scan"
)

// TensorFlow's operators by what they can do when a graph runs.
var (
	// dangerousOps run Python of the process, which a saved graph can only name
	// by a number: with code beside it, that is any code. Or they call out, or
	// read and write the files that the graph says.
	dangerousOps = wordSet(`ReadFile WriteFile PyFunc PyFuncStateless EagerPyFunc MatchingFiles RpcServerStart RpcClient RpcCall Rpc TryRpc
		SaveDataset SaveDatasetV2`)
	// readingOps read files for training, which a model that is served does
	// not.
	readingOps = wordSet(`WholeFileReader WholeFileReaderV2 TextLineReader TextLineReaderV2 TFRecordReader TFRecordReaderV2
		FixedLengthRecordReader FixedLengthRecordReaderV2 TextLineDataset TFRecordDataset TFRecordDatasetV2 FixedLengthRecordDataset
		FixedLengthRecordDatasetV2 LoadDataset LoadDatasetV2 SqlDataset DataServiceDataset DataServiceDatasetV2 DataServiceDatasetV3
		DataServiceDatasetV4 CreateSummaryFileWriter CreateSummaryDbWriter PrintV2 DebugIdentity DebugIdentityV2 DebugIdentityV3
		DecodeProtoV2 EncodeProto PyCallback`)
)

// tensorflow judges a SavedModel or a graph: the operators that it names.
func (v *visit) tensorflow() (form, error) {
	ops := map[string]bool{}
	w := newWire(v.content, v.f.Size)
	g := &tfGraph{w: w, ops: ops}
	var err error
	if v.claim == claimSavedModel {
		err = w.each(0, w.size, g.inSavedModel)
	} else {
		err = w.each(0, w.size, g.inGraph)
	}
	switch {
	case errors.Is(err, errWireLimit):
		v.unseen("MODEL-TENSORFLOW-LIMIT", "TensorFlow: %v", err)
	case errors.Is(err, errWire) && v.claim == claimGraph:
		return form{}, nil // .pb is the name of any protocol buffer
	case errors.Is(err, errWire):
		v.grave("MODEL-TENSORFLOW", "malformed SavedModel: %v", err)
	case err != nil:
		return form{}, err
	}
	v.judgeOps(ops)
	if v.name == "keras_metadata.pb" { // a SavedModel's layers, in JSON
		return form{name: "TensorFlow"}, v.embedded(false)
	}
	return form{name: "TensorFlow"}, nil
}

func (v *visit) judgeOps(ops map[string]bool) {
	var dangerous, reading []string
	for _, op := range sortedKeys(ops) {
		switch {
		case dangerousOps[op]:
			dangerous = append(dangerous, op)
		case readingOps[op]:
			reading = append(reading, op)
		}
	}
	if len(dangerous) > 0 {
		v.grave("MODEL-TENSORFLOW-OP", "operators that run Python, or read and write files: %s", quoteList(dangerous))
	}
	if len(reading) > 0 {
		v.add(scan.Medium, "MODEL-TENSORFLOW-READ", "operators that read files or write logs: %s", quoteList(reading))
	}
}

// A tfGraph collects the operators of a graph that are on a list.
type tfGraph struct {
	w   *wire
	ops map[string]bool
}

func (g *tfGraph) inSavedModel(f field) error {
	if f.number == 2 {
		return g.w.message(f, g.inMetaGraph)
	}
	return nil
}

func (g *tfGraph) inMetaGraph(f field) error {
	if f.number == 2 {
		return g.w.message(f, g.inGraph)
	}
	return nil
}

func (g *tfGraph) inGraph(f field) error {
	switch f.number {
	case 1:
		return g.w.message(f, g.inNode)
	case 2:
		return g.w.message(f, g.inLibrary)
	}
	return nil
}

func (g *tfGraph) inLibrary(f field) error {
	if f.number == 1 {
		return g.w.message(f, g.inFunction)
	}
	return nil
}

func (g *tfGraph) inFunction(f field) error {
	if f.number == 3 {
		return g.w.message(f, g.inNode)
	}
	return nil
}

func (g *tfGraph) inNode(f field) error {
	if f.number != 2 {
		return nil
	}
	op, err := g.w.text(f)
	if err == nil && (dangerousOps[op] || readingOps[op]) {
		g.ops[op] = true
	}
	return err
}
