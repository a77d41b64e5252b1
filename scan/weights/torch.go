package weights

import (
	"archive/zip"
	"fmt"
	"path"
	"slices"
	"strconv"
	"strings"

	"github.com/darkmirror/darkmirror/scan"
	"github.com/darkmirror/darkmirror/scan/pickle"
	"github.com/darkmirror/darkmirror/scan/walk"
)

// torchPickle is the name of the object's pickle below the root of an archive
// of torch.save.
const torchPickle = "data.pkl"

// zip judges what kind of model an archive is. Its members are files of their
// own: what stands here are the rules for all of them together.
func (v *visit) zip() error {
	members := slices.DeleteFunc(slices.Clone(v.f.Members), func(m walk.Member) bool { return strings.HasSuffix(m.Name, "/") })
	var objects []string
	for _, m := range members {
		if path.Base(m.Name) == torchPickle {
			objects = append(objects, m.Name)
		}
	}
	switch {
	case len(objects) > 0 && v.isTorch(members, objects[0]):
		return v.torchZip(members, objects)
	case v.claim == claimTorch && !v.f.Opened:
		v.unseen("MODEL-TORCH-LAYOUT", "an archive that was not opened")
	case v.claim == claimTorch && !strings.HasSuffix(v.name, ".pt2"):
		v.add(scan.Medium, "MODEL-TORCH-LAYOUT", "a zip archive without the %s of torch.save", torchPickle)
	case v.claim == claimKeras && !hasMember(members, "config.json"):
		v.grave("MODEL-KERAS", "an archive without the config.json of a Keras model")
	case v.claim == claimSkops && !hasMember(members, "schema.json"):
		v.grave("MODEL-SKOPS", "an archive without the schema.json of skops")
	}
	return nil
}

// isTorch tells an archive of torch.save from another that holds a data.pkl.
func (v *visit) isTorch(members []walk.Member, object string) bool {
	if v.claim == claimTorch || v.claim == claimRaw {
		return true
	}
	root := strings.TrimSuffix(object, torchPickle)
	return slices.ContainsFunc(members, func(m walk.Member) bool {
		name, ok := strings.CutPrefix(m.Name, root)
		return ok && (torchMember(name) && name != torchPickle || name == "constants.pkl" || strings.HasPrefix(name, "data/"))
	})
}

func hasMember(members []walk.Member, name string) bool {
	return slices.ContainsFunc(members, func(m walk.Member) bool { return m.Name == name })
}

// torchZip holds the layout of torch.save: one root, the object's pickle below
// it, the storages that it names with the sizes that it says, and little else.
func (v *visit) torchZip(members []walk.Member, objects []string) error {
	root, _, found := strings.Cut(objects[0], "/")
	if len(objects) > 1 || !found || objects[0] != root+"/"+torchPickle {
		v.grave("MODEL-TORCH-LAYOUT", "want one %s below one root folder: %s", torchPickle, quoteList(objects))
		return nil
	}
	script := false
	records := map[string]int64{}
	var strange []string
	for _, m := range members {
		name, below := strings.CutPrefix(m.Name, root+"/")
		switch {
		case !below:
			strange = append(strange, m.Name)
		case name == "constants.pkl", strings.HasPrefix(name, "code/"):
			script = true
		case strings.HasPrefix(name, "data/"):
			records[strings.TrimPrefix(name, "data/")] = m.Size
		case !torchMember(name):
			strange = append(strange, m.Name)
		}
	}
	if script {
		v.grave("MODEL-TORCHSCRIPT", "TorchScript: loading it runs the code that the archive holds in %s/code", quote(root))
	}
	if len(strange) > 0 && !script {
		v.grave("MODEL-TORCH-MEMBER", "entries that torch.save does not write: %s", quoteList(strange))
	}
	return v.storages(objects[0], records, script)
}

// torchMember reports whether a name below the root is one of torch.save's
// small files.
func torchMember(name string) bool {
	switch name {
	case torchPickle, "version", "byteorder", ".format_version", ".storage_alignment", ".data/serialization_id", ".data/version":
		return true
	}
	return false
}

// storages holds that the records are those that the object's pickle names.
func (v *visit) storages(object string, records map[string]int64, script bool) error {
	if !v.f.Opened {
		v.unseen("MODEL-TORCH-LAYOUT", "an archive that was not opened")
		return nil
	}
	rep, err := v.member(object)
	if err != nil {
		return err
	}
	if rep == nil || !rep.Safe {
		return nil // the pickle's own findings stand with it
	}
	var wrong, missing, unnamed []string
	for _, s := range rep.Storages {
		size, ok := records[s.Key]
		delete(records, s.Key)
		switch {
		case s.Bytes == 0 && !ok:
		case !ok:
			missing = append(missing, s.Key)
		case size != s.Bytes:
			wrong = append(wrong, fmt.Sprintf("data/%s has %d bytes, want %d", s.Key, size, s.Bytes))
		}
	}
	for key := range records {
		unnamed = append(unnamed, "data/"+key)
	}
	slices.Sort(unnamed)
	if len(wrong) > 0 {
		v.grave("MODEL-TORCH-STORAGE", "sizes differ from those in %s: %s", torchPickle, quoteList(wrong))
	}
	if len(missing) > 0 {
		v.grave("MODEL-TORCH-STORAGE", "%s names %s storages that are missing: %s", torchPickle, strconv.Itoa(len(missing)), quoteList(missing))
	}
	if len(unnamed) > 0 && !script {
		v.grave("MODEL-TORCH-STORAGE", "%s names none of these storages: %s", torchPickle, quoteList(unnamed))
	}
	return nil
}

// member judges the pickle of that name, nil if it cannot be opened: the
// walker, which opened it, says so.
func (v *visit) member(name string) (*pickle.Report, error) {
	z, err := zip.NewReader(v.content, v.f.Size)
	if err != nil {
		v.grave("MODEL-TORCH-LAYOUT", "the archive's directory: %v", err)
		return nil, v.ctx.Err()
	}
	i := slices.IndexFunc(z.File, func(f *zip.File) bool { return f.Name == name })
	if i < 0 {
		v.grave("MODEL-TORCH-LAYOUT", "two readers of the archive disagree about %s", quote(name))
		return nil, nil
	}
	r, err := z.File[i].Open()
	if err != nil {
		v.grave("MODEL-TORCH-LAYOUT", "%s does not open: %v", quote(name), err)
		return nil, v.ctx.Err()
	}
	rep, err := pickle.Scan(r, pickle.Options{Profile: pickle.Numpy})
	_ = r.Close() // a reader of bytes that are read
	if err != nil {
		v.grave("MODEL-TORCH-LAYOUT", "%s cannot be read: %v", quote(name), err)
		return nil, v.ctx.Err()
	}
	return rep, nil
}
