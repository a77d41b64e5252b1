package pypi

import (
	"context"
	"time"

	"github.com/darkmirror/darkmirror/pypi/resolve"
)

// An Answer is what the solver says of one group of requirements on one
// target, with the question, so that somebody else can be asked it too.
type Answer struct {
	Where        string // "requirements.in"
	Target       string
	Python       string   // the target's full version
	Requirements []string // as a requirements file holds them
	Constraints  []string
	Versions     map[string]string // by project; nil where Err says why
	Err          error
	// Before is the youngest upload that counts; zero: any.
	Before time.Time
}

// Answers resolves every group for every target, as [Source.Resolve] does,
// and goes on where one cannot be resolved.
func (s *Source) Answers(ctx context.Context) ([]Answer, error) {
	groups, _, err := s.groups()
	if err != nil {
		return nil, err
	}
	o := newOffers(s, nil)
	var answers []Answer
	for _, g := range groups {
		for _, name := range g.targets {
			t, err := s.cfg.target(name)
			if err != nil {
				return nil, err
			}
			a := Answer{Where: g.where, Target: t.Text, Python: t.Python.String(), Requirements: texts(g.wants), Constraints: texts(g.constraints)}
			if age := s.rulesFor("").age; age > 0 {
				a.Before = o.now.Add(-age)
			}
			pins, _, err := s.closure(ctx, o, g, t)
			if err != nil && !refusal(err) {
				return nil, err
			}
			if a.Err = err; err == nil {
				a.Versions = make(map[string]string, len(pins))
				for _, p := range pins {
					a.Versions[p.Name] = p.Version.String()
				}
			}
			answers = append(answers, a)
		}
	}
	return answers, nil
}

func texts(wants []resolve.Want) []string {
	out := make([]string, len(wants))
	for i := range wants {
		out[i] = wants[i].String()
	}
	return out
}
