package oneway

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"os"
	"reflect"
	"slices"

	"github.com/google/nftables"
	"github.com/google/nftables/binaryutil"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"
)

const (
	chainEgress  = "egress"
	chainIngress = "ingress"
)

// A table is what the kernel has of ours.
type table struct {
	name            string
	egress, ingress *chain
}

type chain struct {
	drops   bool // by policy, on the hook of its name
	rules   [][]expr.Any
	packets uint64 // that its last rule has counted
}

func tableName(iface string) string { return "darkdiode-" + iface }

// Block drops everything that leaves the interface, and everything that
// arrives but what o lets in, by the table netdev "darkdiode-IFACE". It
// replaces an older table of that name in one transaction. It turns ARP off,
// and IPv6 unless o needs it. It needs CAP_NET_ADMIN.
//
// An interface that comes up greets its link (IPv6 solicitations, multicast
// reports), so block it while it is down.
func Block(iface string, o Options) error {
	ifc, err := find(iface)
	if err != nil {
		return fmt.Errorf("block: %w", err)
	}
	if ifc.Flags&net.FlagLoopback != 0 {
		return fmt.Errorf("block %s: the loopback interface is no link, and the host needs it: name the interface of the link", iface)
	}
	// The drop comes first: what the other two make the kernel send is lost.
	if err := install(tableName(iface), iface, o); err != nil {
		return fmt.Errorf("block %s: %w", iface, explain(err))
	}
	if err := arpOff(iface); err != nil {
		return fmt.Errorf("block %s: arp off: %w", iface, err)
	}
	if o.ipv6() {
		return nil
	}
	if err := disableIPv6(iface); err != nil {
		return fmt.Errorf("block %s: %w", iface, err)
	}
	return nil
}

// Unblock removes the table, where there is one, and restores nothing else.
func Unblock(iface string) error {
	if _, err := find(iface); err != nil {
		return fmt.Errorf("unblock: %w", err)
	}
	c, err := nftables.New()
	if err != nil {
		return fmt.Errorf("unblock %s: %w", iface, explain(err))
	}
	t := &nftables.Table{Name: tableName(iface), Family: nftables.TableFamilyNetdev}
	c.AddTable(t) // so that there is one to delete
	c.DelTable(t)
	if err := c.Flush(); err != nil {
		return fmt.Errorf("unblock %s: %w", iface, explain(err))
	}
	return nil
}

// install is one transaction: at no time is there no table, once there is one.
func install(table, device string, o Options) error {
	c, err := nftables.New()
	if err != nil {
		return err
	}
	t := &nftables.Table{Name: table, Family: nftables.TableFamilyNetdev}
	c.AddTable(t)
	c.DelTable(t)
	c.AddTable(t)
	for _, w := range []struct {
		name  string
		hook  *nftables.ChainHook
		rules [][]expr.Any
	}{
		{chainEgress, nftables.ChainHookEgress, egressRules()},
		{chainIngress, nftables.ChainHookIngress, ingressRules(o)},
	} {
		drop := nftables.ChainPolicyDrop
		ch := c.AddChain(&nftables.Chain{
			Name: w.name, Table: t, Type: nftables.ChainTypeFilter, Hooknum: w.hook,
			Priority: nftables.ChainPriorityFirst, Policy: &drop, Device: device,
		})
		for _, r := range w.rules {
			c.AddRule(&nftables.Rule{Table: t, Chain: ch, Exprs: r})
		}
	}
	return c.Flush()
}

// explain adds what to do to what the kernel says.
func explain(err error) error {
	switch {
	case errors.Is(err, os.ErrPermission):
		return fmt.Errorf("%w: needs CAP_NET_ADMIN", err)
	case errors.Is(err, unix.EOPNOTSUPP), errors.Is(err, unix.EPROTONOSUPPORT), errors.Is(err, unix.EAFNOSUPPORT):
		return fmt.Errorf("%w: needs Linux 5.16 or newer with nf_tables, CONFIG_NF_TABLES_NETDEV and CONFIG_NETFILTER_EGRESS", err)
	}
	return err
}

// egressRules only count; the policy drops.
func egressRules() [][]expr.Any { return [][]expr.Any{{&expr.Counter{}}} }

// ingressRules let in the datagrams of o and count the rest, which the policy
// drops. A datagram for the udp back end fits its frame: fragments are
// dropped, so that nobody fills the kernel's queue of them.
func ingressRules(o Options) [][]expr.Any {
	count := []expr.Any{&expr.Counter{}}
	if !o.udp() {
		return [][]expr.Any{count}
	}
	var r []expr.Any
	addr := o.Addr.Unmap()
	if o.ipv6() {
		r = append(protocolIs(unix.ETH_P_IPV6), headerIs(6, []byte{unix.IPPROTO_UDP})...)
		r = append(r, headerIs(24, addr.AsSlice())...)
	} else {
		r = append(protocolIs(unix.ETH_P_IP), headerIs(9, []byte{unix.IPPROTO_UDP})...)
		r = append(r, notFragment()...)
		if addr.IsValid() {
			r = append(r, headerIs(16, addr.AsSlice())...)
		}
	}
	r = append(r,
		&expr.Payload{DestRegister: 1, Base: expr.PayloadBaseTransportHeader, Offset: 2, Len: 2},
		&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: binaryutil.BigEndian.PutUint16(o.UDPPort)},
		&expr.Verdict{Kind: expr.VerdictAccept},
	)
	return [][]expr.Any{r, count}
}

func protocolIs(etherType uint16) []expr.Any {
	return []expr.Any{
		&expr.Meta{Key: expr.MetaKeyPROTOCOL, Register: 1},
		&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: binaryutil.BigEndian.PutUint16(etherType)},
	}
}

func headerIs(offset uint32, want []byte) []expr.Any {
	return []expr.Any{
		&expr.Payload{DestRegister: 1, Base: expr.PayloadBaseNetworkHeader, Offset: offset, Len: uint32(len(want))},
		&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: want},
	}
}

// notFragment wants neither more fragments nor an offset.
func notFragment() []expr.Any {
	return []expr.Any{
		&expr.Payload{DestRegister: 1, Base: expr.PayloadBaseNetworkHeader, Offset: 6, Len: 2},
		&expr.Bitwise{SourceRegister: 1, DestRegister: 1, Len: 2, Mask: []byte{0x3f, 0xff}, Xor: []byte{0, 0}},
		&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: []byte{0, 0}},
	}
}

// inspect reads our table, or nil where there is none. It also tells whether
// anybody's chain is on an egress hook.
func inspect(iface string) (t *table, anyEgress bool, err error) {
	c, err := nftables.New()
	if err != nil {
		return nil, false, err
	}
	chains, err := c.ListChainsOfTableFamily(nftables.TableFamilyNetdev)
	if err != nil {
		return nil, false, err
	}
	for _, ch := range chains {
		anyEgress = anyEgress || ch.Hooknum != nil && *ch.Hooknum == *nftables.ChainHookEgress
		if ch.Table == nil || ch.Table.Name != tableName(iface) {
			continue
		}
		if t == nil {
			t = &table{name: ch.Table.Name}
		}
		rules, err := c.GetRules(ch.Table, ch)
		if err != nil {
			return nil, false, fmt.Errorf("rules of %s %s: %w", t.name, ch.Name, err)
		}
		switch ch.Name {
		case chainEgress:
			t.egress = newChain(ch, nftables.ChainHookEgress, rules)
		case chainIngress:
			t.ingress = newChain(ch, nftables.ChainHookIngress, rules)
		}
	}
	return t, anyEgress, nil
}

// newChain takes the counted packets out of the rules, so that they compare.
func newChain(ch *nftables.Chain, hook *nftables.ChainHook, rules []*nftables.Rule) *chain {
	c := &chain{drops: ch.Hooknum != nil && *ch.Hooknum == *hook && ch.Policy != nil && *ch.Policy == nftables.ChainPolicyDrop}
	for _, r := range rules {
		for _, e := range r.Exprs {
			if n, ok := e.(*expr.Counter); ok {
				c.packets = n.Packets
				*n = expr.Counter{}
			}
		}
		c.rules = append(c.rules, r.Exprs)
	}
	return c
}

// dropped reports whether the table has counted all frames of the trial.
func (t *table) dropped(tr trial, now *table) bool {
	return t != nil && now != nil && t.egress != nil && now.egress != nil && tr.raw && tr.frames > 0 &&
		now.egress.packets-t.egress.packets >= tr.frames
}

func (t *table) egressHolds() error {
	return t.egress.holds(t.name, chainEgress, egressRules())
}

func (t *table) ingressHolds(o Options) error {
	return t.ingress.holds(t.name, chainIngress, ingressRules(o))
}

// holds compares a chain with what [Block] would make of it.
func (c *chain) holds(table, name string, want [][]expr.Any) error {
	switch {
	case c == nil:
		return fmt.Errorf("%s has no chain %s", table, name)
	case !c.drops:
		return fmt.Errorf("chain %s of %s does not drop by policy", name, table)
	case !slices.EqualFunc(c.rules, want, func(a, b []expr.Any) bool { return reflect.DeepEqual(a, b) }):
		return fmt.Errorf("chain %s of %s has other rules than this receiver needs", name, table)
	}
	return nil
}

func arpOff(iface string) error {
	return withIfreq(iface, func(fd int, r *unix.Ifreq) error {
		if r.Uint16()&unix.IFF_NOARP != 0 {
			return nil
		}
		r.SetUint16(r.Uint16() | unix.IFF_NOARP)
		return unix.IoctlIfreq(fd, unix.SIOCSIFFLAGS, r)
	})
}

func disableIPv6(iface string) error {
	off, err := ipv6Off(iface)
	if err != nil || off {
		return err
	}
	// Not os.WriteFile: nothing is to be created here.
	f, err := os.OpenFile(ipv6Switch(iface), os.O_WRONLY, 0)
	if err != nil {
		return fmt.Errorf("ipv6 off: %w", err)
	}
	_, err = f.WriteString("1\n")
	if err := errors.Join(err, f.Close()); err != nil {
		return fmt.Errorf("ipv6 off: %w", err)
	}
	return nil
}

// bigEndian is the value whose bytes in memory are those of v on the wire.
func bigEndian(v uint16) uint16 {
	return binary.NativeEndian.Uint16(binary.BigEndian.AppendUint16(nil, v))
}
