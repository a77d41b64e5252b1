package config

import (
	"net/netip"
	"strconv"
	"strings"
	"time"
)

// An OutsideLink is the sending end of a link that never answers.
type OutsideLink struct {
	To           string `yaml:"to" doc:"address and port of the receiver, as 192.0.2.2:7337"`
	KeyFile      string `yaml:"key_file" doc:"file of the link key: 32 hexadecimal digits, the same on both sides"`
	Interface    string `yaml:"interface" doc:"the interface that the link is on"`
	Rate         Rate   `yaml:"rate" doc:"bits a second on the wire, as 900Mbit/s: under what the link and the receiver's disk bear"`
	MTU          int    `yaml:"mtu" doc:"largest packet of the path (default: the interface's, at most 9000)"`
	Profile      string `yaml:"profile" enum:"|lean|default|robust|heavy" doc:"strength of the parity (default: chosen from outage and loss)"`
	Outage       string `yaml:"outage" doc:"longest interruption that parity shall outlast, as 500ms"`
	Loss         string `yaml:"loss" default:"0.1%" doc:"share of packets lost at random that it shall outlast beside that"`
	Passes       int    `yaml:"passes" default:"1" doc:"send everything so many times"`
	RepairPasses int    `yaml:"repair_passes" doc:"then so many passes of parity that was not sent before"`
	Blind        bool   `yaml:"blind" doc:"send though no permanent neighbour entry is known"`
}

// An InsideLink is the receiving end.
type InsideLink struct {
	Interface string   `yaml:"interface" doc:"the interface that the link is on"`
	Address   string   `yaml:"address" doc:"take only packets for this address (default: any)"`
	Port      int      `yaml:"port" default:"7337" doc:"UDP port"`
	KeyFiles  []string `yaml:"key_files" doc:"files of the link key; two while it is being changed"`
	Backend   string   `yaml:"backend" default:"auto" enum:"auto|packet|udp" doc:"packet reads the interface, with CAP_NET_RAW; udp is a plain socket"`
	Ring      Size     `yaml:"ring" default:"160MiB" doc:"room for packets that wait"`
	Tickets   bool     `yaml:"tickets" doc:"print what would complete a file, to be carried out by a person"`
	Block     bool     `yaml:"block" doc:"drop, by nftables, whatever this host would send on the interface; needs CAP_NET_ADMIN"`
	Unproven  bool     `yaml:"unproven" doc:"receive though it is not proven that nothing can be sent"`
	Status    string   `yaml:"status" doc:"JSON file that is replaced every second"`
	Metrics   string   `yaml:"metrics" doc:"Prometheus text file that is replaced every second"`
}

// mostMTU is the largest frame that the link format has a size for.
const mostMTU = 9000

func (l *OutsideLink) validate(d *document) {
	if l.To != "" {
		if _, err := netip.ParseAddrPort(l.To); err != nil {
			d.on("link.to", "link.to: want an address and a port, as 192.0.2.2:7337")
		}
		if l.KeyFile == "" {
			d.on("link.to", "link.key_file: missing; openssl rand -hex 16 makes a key, which both sides need")
		}
		if l.Rate == 0 {
			d.on("link.to", "link.rate: missing; what is sent faster than the other side takes it is lost")
		}
	}
	if l.MTU != 0 && (l.MTU < 576 || l.MTU > mostMTU) {
		d.on("link.mtu", "link.mtu: %d, want 576 to %d", l.MTU, mostMTU)
	}
	if _, err := l.OutageTime(); err != nil {
		d.on("link.outage", "link.outage: want a time, as 500ms or 2s")
	}
	if _, err := l.LossShare(); err != nil {
		d.on("link.loss", "link.loss: want a share of packets, as 0.1%%")
	}
	if l.Passes < 1 || l.Passes > 100 {
		d.on("link.passes", "link.passes: %d, want 1 to 100", l.Passes)
	}
	if l.RepairPasses < 0 || l.RepairPasses > 100 {
		d.on("link.repair_passes", "link.repair_passes: %d, want 0 to 100", l.RepairPasses)
	}
}

// OutageTime reads Outage.
func (l *OutsideLink) OutageTime() (time.Duration, error) {
	if l.Outage == "" {
		return 0, nil
	}
	return time.ParseDuration(l.Outage)
}

// LossShare reads Loss.
func (l *OutsideLink) LossShare() (float64, error) {
	text, percent := strings.CutSuffix(l.Loss, "%")
	n, err := strconv.ParseFloat(text, 64)
	if percent {
		n /= 100
	}
	if err == nil && !(n >= 0 && n < 1) {
		err = strconv.ErrRange
	}
	return n, err
}

func (l *InsideLink) validate(d *document) {
	if l.Address != "" {
		if _, err := netip.ParseAddr(l.Address); err != nil {
			d.on("link.address", "link.address: want an address, as 192.0.2.2")
		}
	}
	if l.Port < 1 || l.Port > 65535 {
		d.on("link.port", "link.port: %d, want 1 to 65535", l.Port)
	}
	if len(l.KeyFiles) > 2 {
		d.on("link.key_files", "link.key_files: want one, or two while the key is being changed")
	}
	if l.Ring < 1<<20 || l.Ring > 16<<30 {
		d.on("link.ring", "link.ring: want 1MiB to 16GiB")
	}
}
