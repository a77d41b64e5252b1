package pickle

import (
	"math"
	"strings"
)

const (
	// maxElements bounds a storage's length, so that its bytes are no
	// overflow: a file of 16 PiB is longer than any model.
	maxElements = 1 << 50
	// maxKey bounds a storage's key, which is a number or a short digest.
	maxKey = 64
)

// protocolVersion stands behind the magic number of the older torch.save.
const protocolVersion = 1001

// persID names an object by a line of text, which torch never does.
func (m *machine) persID() error {
	if _, err := m.r.line(); err != nil {
		return err
	}
	if err := m.refuse(CodePersistent, "a persistent id in text"); err != nil {
		return err
	}
	return m.push(value{kind: kindUnknown})
}

// binPersID loads a storage: ('storage', class, key, device, size), and in
// the older form of torch.save the part of it that is viewed, or None.
func (m *machine) binPersID() error {
	id, err := m.pop()
	if err != nil {
		return err
	}
	out := value{kind: kindUnknown}
	if id.kind != kindUnknown && !id.has(flagRefused) {
		why, err := m.load(id)
		if err != nil {
			return err
		}
		if why == "" {
			out.kind = kindStorage
		} else if err := m.refuse(CodePersistent, "a persistent id that is no storage: %s", why); err != nil {
			return err
		}
	}
	return m.push(out)
}

// load notes the storage that a persistent id names, or says why it is none.
func (m *machine) load(id value) (why string, err error) {
	if m.plain {
		return "torch.save writes plain data only here", nil
	}
	if id.kind != kindTuple || id.n != m.pidItems {
		return "not a tuple of the items it should have", nil
	}
	var items [6]value
	for i := range m.pidItems {
		items[i], _ = id.item(i)
	}
	if s, _ := items[0].text(); s != "storage" {
		return "its type is " + items[0].String(), nil
	}
	class := items[1]
	if class.kind != kindGlobal || class.o.g.entry == nil || class.o.g.entry.group != storage {
		return "its class is " + class.String(), nil
	}
	key, ok1 := items[2].text()
	device, ok2 := items[3].text()
	if !ok1 || !plainKey(key) {
		return "its key is " + items[2].String(), nil
	}
	if !ok2 || !plainDevice(device) {
		return "its device is " + items[3].String(), nil
	}
	n := items[4]
	if n.kind != kindInt || n.n < 0 || n.n > maxElements {
		return "its size is " + n.String(), nil
	}
	if m.pidItems == 6 && !viewFits(items[5], n.n) {
		return "the view of it is " + items[5].String(), nil
	}
	g := class.o.g
	return "", m.addStorage(Storage{Key: key, Type: g.name, Device: device, Count: n.n, Bytes: n.n * g.entry.size})
}

// addStorage notes a storage once. The file has one record for a key, so two
// descriptions of it have to agree; an empty one has no record.
func (m *machine) addStorage(s Storage) error {
	i, seen := m.storages[s.Key]
	if seen {
		if have := m.rep.Storages[i]; have != s && have.Count+s.Count > 0 {
			return m.refuse(CodeStorage, "storage %s is a %s of %d on %s and a %s of %d on %s", s.Key,
				have.Type, have.Count, have.Device, s.Type, s.Count, s.Device)
		}
		return nil
	}
	if err := m.keep(storageSize); err != nil {
		return err
	}
	m.storages[s.Key] = len(m.rep.Storages)
	m.rep.Storages = append(m.rep.Storages, s)
	return nil
}

// plainKey holds that a key is a plain name: it becomes one of a file.
func plainKey(s string) bool {
	return s != "" && len(s) <= maxKey && strings.Trim(s, "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz_-") == ""
}

// plainDevice holds that a device is like "cpu" or "cuda:0".
func plainDevice(s string) bool {
	name, number, found := strings.Cut(s, ":")
	return name != "" && len(name) <= 16 && strings.Trim(name, "abcdefghijklmnopqrstuvwxyz") == "" &&
		(!found || number != "" && len(number) <= 4 && strings.Trim(number, "0123456789") == "")
}

// viewFits holds that a view is None, or (key, offset, size) within n
// elements.
func viewFits(v value, n int64) bool {
	if v.kind == kindNone {
		return true
	}
	if !matches("uii", v) {
		return false
	}
	key, _ := v.item(0)
	offset, _ := v.item(1)
	size, _ := v.item(2)
	s, _ := key.text()
	return plainKey(s) && offset.n >= 0 && size.n >= 0 && offset.n <= n && size.n <= n-offset.n
}

// legacy reads what follows the magic number in the older form of torch.save:
// protocol, facts about the system, the object, the keys of the storages, and
// these, to the end of the stream.
func (m *machine) legacy() error {
	m.rep.Legacy, m.pidItems = true, 6
	if len(m.order) > 0 {
		if err := m.refuse(CodeLegacy, "the magic number's pickle asks for globals"); err != nil {
			return err
		}
	}
	if len(m.rep.Storages) > 0 {
		if err := m.refuse(CodeLegacy, "the magic number's pickle names storages"); err != nil {
			return err
		}
	}
	m.plain = true
	version, err := m.pickle()
	if err != nil {
		return err
	}
	if version.kind != kindInt || version.n != protocolVersion {
		return m.r.halt(CodeLegacy, "the protocol of torch.save is %s, not %d", version, protocolVersion)
	}
	system, err := m.pickle()
	if err != nil {
		return err
	}
	if system.kind != kindDict {
		return m.r.halt(CodeLegacy, "the facts about the system are %s", system)
	}
	m.plain = false
	if _, err := m.pickle(); err != nil {
		return err
	}
	m.plain, m.keepList = true, true
	keys, err := m.pickle()
	if err != nil {
		return err
	}
	return m.records(keys)
}

// records reads the storages, in the order of their keys.
func (m *machine) records(keys value) error {
	if keys.kind != kindList {
		return m.r.halt(CodeLegacy, "the keys of the storages are %s", keys)
	}
	if len(keys.o.items) != len(m.rep.Storages) {
		return m.r.halt(CodeLegacy, "%d keys of storages; the object names %d", len(keys.o.items), len(m.rep.Storages))
	}
	m.r.limit = math.MaxInt64
	seen := map[string]bool{}
	for _, k := range keys.o.items {
		key, _ := k.text()
		i, ok := m.storages[key]
		if !ok || seen[key] {
			return m.r.halt(CodeLegacy, "the object names no such storage, or the key stands twice: %s", k)
		}
		seen[key] = true
		s := m.rep.Storages[i]
		n, err := m.r.number(8)
		if err != nil {
			return err
		}
		if n != uint64(s.Count) { // #nosec G115 -- not negative
			return m.r.halt(CodeLegacy, "storage %s has %d elements; the object says %d", s.Key, n, s.Count)
		}
		if err := m.r.skip(s.Bytes); err != nil {
			return err
		}
	}
	return m.end()
}
