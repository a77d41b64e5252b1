package pickle

import (
	"slices"
	"strings"
	"testing"
)

// The pickles of the older form of torch.save, by hand.
var (
	oldMagic   = proto(2) + "\x8a\x0a" + string(magicBytes[:]) + "."
	oldVersion = proto(2) + "M\xe9\x03."
	oldSystem  = proto(2) + "}q\x00(" + uni("protocol_version") + "M\xe9\x03" + uni("little_endian") + "\x88u."
	oldObject  = proto(2) + "(" + tensorOf(pid("7", "N"), hooks) + tensorOf(pid("8", "("+uni("9")+"K\x01K\x02t"), hooks) + "t."
	oldKeys    = proto(2) + "]q\x00(" + uni("7") + "q\x01" + uni("8") + "q\x02e."
	oldData    = le(4, 8) + "0123456789abcdef" + le(4, 8) + "0123456789abcdef"
)

func TestLegacy(t *testing.T) {
	head := oldMagic + oldVersion + oldSystem
	whole := head + oldObject + oldKeys + oldData
	t.Run("whole", func(t *testing.T) {
		rep := scan(t, whole, Torch)
		if !rep.Safe || !rep.Legacy || rep.Bytes != int64(len(whole)) || len(rep.Storages) != 2 {
			t.Errorf("%+v", rep)
		}
	})
	t.Run("protocol 1", func(t *testing.T) {
		rep := scan(t, "L"+magicText+"L\n.M\xe9\x03.}.(l.(l.", Torch)
		if !rep.Safe || !rep.Legacy {
			t.Errorf("%+v", rep)
		}
	})
	t.Run("two keys in the memo", func(t *testing.T) {
		rep := scan(t, head+oldObject+proto(2)+uni("7")+"q\x000]h\x00a"+uni("8")+"a."+oldData, Torch)
		if !rep.Safe {
			t.Errorf("%+v", rep.Findings)
		}
	})
	od := glob("collections", "OrderedDict")
	tests := map[string]struct{ in, want string }{
		"magic by a call":           {proto(2) + glob("builtins", "int") + uni(magicText) + "\x85R." + whole[len(oldMagic):], CodeTrailing},
		"magic from eval":           {"c__builtin__\neval\n(S'0x1950a86a20f9469cfc6c'\ntR." + whole[len(oldMagic):], CodeGlobal},
		"magic behind a call":       {proto(2) + glob("os", "system") + ")R0\x8a\x0a" + string(magicBytes[:]) + "." + whole[len(oldMagic):], CodeCall},
		"magic behind a global":     {proto(2) + od + "0\x8a\x0a" + string(magicBytes[:]) + "." + whole[len(oldMagic):], CodeLegacy},
		"magic behind a storage":    {proto(2) + pid("1", "") + "0\x8a\x0a" + string(magicBytes[:]) + "." + whole[len(oldMagic):], CodeLegacy},
		"magic alone":               {oldMagic, CodeTruncated},
		"magic as text":             {proto(2) + uni(magicText) + "." + whole[len(oldMagic):], CodeTrailing},
		"another protocol":          {oldMagic + proto(2) + "M\xe8\x03." + whole[len(oldMagic+oldVersion):], CodeLegacy},
		"protocol by a call":        {oldMagic + proto(2) + od + ")R." + whole[len(oldMagic+oldVersion):], CodeLegacy},
		"system is a list":          {oldMagic + oldVersion + "]." + oldObject + oldKeys + oldData, CodeLegacy},
		"global in the system":      {oldMagic + oldVersion + "}(K\x01" + od + "u." + oldObject + oldKeys + oldData, CodeLegacy},
		"storage in the system":     {oldMagic + oldVersion + proto(2) + "}(K\x01" + pid("7", "N") + "u." + oldObject + oldKeys + oldData, CodePersistent},
		"call in the object":        {head + proto(2) + glob("os", "system") + ")R.(l.", CodeCall},
		"global in the keys":        {head + oldObject + proto(2) + "](" + uni("7") + uni("8") + "e" + od + "0." + oldData, CodeLegacy},
		"keys are a tuple":          {head + oldObject + proto(2) + "(" + uni("7") + uni("8") + "t." + oldData, CodeLegacy},
		"key missing":               {head + oldObject + proto(2) + "]" + uni("7") + "a." + oldData, CodeLegacy},
		"key twice":                 {head + oldObject + proto(2) + "](" + uni("7") + uni("7") + "e." + oldData, CodeLegacy},
		"key unknown":               {head + oldObject + proto(2) + "](" + uni("7") + uni("6") + "e." + oldData, CodeLegacy},
		"key is an int":             {head + oldObject + proto(2) + "](" + uni("7") + "K\x08e." + oldData, CodeLegacy},
		"another length":            {head + oldObject + oldKeys + le(5, 8) + oldData[8:], CodeLegacy},
		"huge length":               {head + oldObject + oldKeys + le(1<<63, 8) + oldData[8:], CodeLegacy},
		"data cut off":              {whole[:len(whole)-1], CodeTruncated},
		"data missing":              {head + oldObject + oldKeys, CodeTruncated},
		"bytes behind":              {whole + "\x00", CodeTrailing},
		"pickle behind":             {whole + proto(2) + glob("os", "system") + ")R.", CodeTrailing},
		"no view":                   {head + proto(2) + pid("7", "") + ".(l.", CodePersistent},
		"view over the end":         {head + proto(2) + pid("7", "("+uni("9")+"K\x03K\x02t") + "." + "](Ue.", CodePersistent},
		"view is a call":            {head + proto(2) + pid("7", od+")R") + ".(l.", CodePersistent},
		"view with a negative size": {head + proto(2) + pid("7", "("+uni("9")+"K\x00J\xff\xff\xff\xfft") + ".(l.", CodePersistent},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			rep := scan(t, test.in, Torch)
			if rep.Safe || !slices.Contains(codes(rep), test.want) {
				t.Errorf("%+v, want %s", rep.Findings, test.want)
			}
		})
	}
	for i := range len(whole) {
		if rep := scan(t, whole[:i], Torch); rep.Safe {
			t.Errorf("cut at %d: safe", i)
		}
	}
}

// TestLegacyData holds that storages are passed over, whatever stands in
// them, and are not bound by the limit of the pickles.
func TestLegacyData(t *testing.T) {
	head := oldMagic + oldVersion + oldSystem + proto(2) +
		"(" + uni("storage") + glob("torch", "DoubleStorage") + uni("7") + uni("cuda:1") + "J\x00\x00\x10\x00NtQ." +
		proto(2) + "]" + uni("7") + "a."
	in := head + le(1<<20, 8) + strings.Repeat("cos\nsys\n", 1<<20)
	rep, err := Scan(strings.NewReader(in), Options{Limits: Limits{Bytes: int64(len(head))}})
	if err != nil {
		t.Fatal(err)
	}
	if !rep.Safe || rep.Bytes != int64(len(in)) || rep.Storages[0].Bytes != 8<<20 {
		t.Errorf("%+v", rep)
	}
}
