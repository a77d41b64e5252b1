package walk

import (
	"bytes"
	"encoding/binary"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestSniff(t *testing.T) {
	header := `{"__metadata__":{}}`
	tensors := append(binary.LittleEndian.AppendUint64(nil, uint64(len(header))), header...)
	dos := append([]byte("MZ\x90\x00"), make([]byte, 100)...)
	for name, c := range map[string]struct {
		b    string
		want Kind
	}{
		"empty":            {"", Empty},
		"text":             {"hello\n", Text},
		"latin-1":          {"The caf\xe9 is open. The caf\xe9 is closed.\n", Text},
		"utf-16":           {"\xff\xfeh\x00i\x00", Text},
		"cut in a letter":  {strings.Repeat("ü", headSize), Text},
		"binary":           {"\x00\x01\x02\x03", Data},
		"high bytes":       {"\xe9\xf8\xa0\xb1\xc2\xd3", Data},
		"object":           {" {\"a\": 1}", JSON},
		"array":            {"[1]", JSON},
		"script":           {"#!/bin/sh\n", Script},
		"elf":              {"\x7fELF\x02", ELF},
		"pe":               {string(dos), PE},
		"text that is MZ":  {"MZ is not always a program, and this is long enough to be looked at as one.", Text},
		"mach-o":           {"\xcf\xfa\xed\xfe\x07\x00\x00\x01", MachO},
		"universal":        {"\xca\xfe\xba\xbe\x00\x00\x00\x02", MachO},
		"class":            {"\xca\xfe\xba\xbe\x00\x00\x00\x34", Class},
		"pickle 2":         {"\x80\x02}q\x00.", Pickle},
		"pickle 4":         {"\x80\x04\x95\x02\x00\x00\x00\x00\x00\x00\x00}\x94.", Pickle},
		"torch, legacy":    {"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19.", Pickle},
		"not a pickle":     {"\x80\x02\xff\xff\xff", Data},
		"protocol 0":       {"cos\nsystem\np0\n(S'id'\np1\ntp2\nRp3\n.", Pickle},
		"protocol 0, list": {"(lp0\nI1\naI2\na.", Pickle},
		"protocol 0, dict": {"(dp0\nS'a'\np1\nI1\ns.", Pickle},
		"protocol 1":       {"]q\x00(K\x01K\x02e.", Pickle},
		"no STOP":          {"cos\nsystem\n(S'id'\ntR", Pickle},
		"INST":             {"(S'id'\nios\nsystem\n.", Pickle},
		"parentheses":      {"(see below)\n", Text},
		"a word":           {"cat\n", Text},
		"words":            {"class Foo\nbar baz\n.", Text},
		"numbers":          {"I1\nI2\nI3\nI4\n", Text},
		"prose":            {"I am here.\nNow you are too.\nGood.\n", Text},
		"safetensors":      {string(tensors), Safetensors},
		"gguf":             {"GGUF\x03\x00\x00\x00", GGUF},
		"npy":              {"\x93NUMPY\x01\x00", NPY},
		"hdf5":             {"\x89HDF\r\n\x1a\n", HDF5},
		"pdf":              {"%PDF-1.7", PDF},
		"png":              {"\x89PNG\r\n\x1a\n", Image},
		"jpeg":             {"\xff\xd8\xff\xe0", Image},
		"webp":             {"RIFF\x00\x00\x00\x00WEBP", Image},
		"wave":             {"RIFF\x00\x00\x00\x00WAVE", Media},
		"mp4":              {"\x00\x00\x00\x18ftypmp42", Media},
		"truetype":         {"\x00\x01\x00\x00\x00\x0f\x00\x80\x00\x03\x00\x70", Media},
		"sqlite":           {"SQLite format 3\x00", Database},
		"wasm":             {"\x00asm\x01\x00\x00\x00", Wasm},
		"pyc":              {"\xa7\r\r\n\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00", PYC},
		"python 2":         {"\x03\xf3\r\n\x00\x00\x00\x00c\x00", PYC},
		"skippable alone":  {"\x50\x2a\x4d\x18\xff\xff\xff\xff", Data},
		"zip":              {"PK\x03\x04", Zip},
		"spanned":          {"PK\x07\x08PK\x03\x04", Zip},
		"BZh as text":      {"BZh9 is what it starts with", Text},
		"bzip2, empty":     {"BZh9\x17\x72\x45\x38\x50\x90\x00\x00\x00\x00", Bzip2},
	} {
		head := []byte(c.b)
		head = head[:min(len(head), headSize)]
		if got := sniff(head, strings.NewReader(c.b), int64(len(c.b))); got != c.want {
			t.Errorf("%s: got %s, want %s", name, got, c.want)
		}
	}
}

// TestSniffSources: no source of this module is taken for a pickle.
func TestSniffSources(t *testing.T) {
	files, err := filepath.Glob("../../*/*.go")
	if err != nil || len(files) < 50 {
		t.Fatalf("%d files, %v", len(files), err)
	}
	for _, name := range files {
		b, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		for n := 0; len(b) > 0; n++ { // a line could be the first
			if n%17 != 0 {
				_, b, _ = bytes.Cut(b, []byte("\n"))
				continue
			}
			if k := sniff(b[:min(len(b), headSize)], bytes.NewReader(b), int64(len(b))); k != Text && k != JSON && k != Script && k != Data {
				t.Errorf("%s: %.40q is %s", name, b, k)
			}
			_, b, _ = bytes.Cut(b, []byte("\n"))
		}
	}
}
