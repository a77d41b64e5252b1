package weights

import (
	"errors"
	"path"
	"regexp"
	"slices"
	"strings"

	"github.com/darkmirror/darkmirror/scan"
	"github.com/darkmirror/darkmirror/scan/walk"
)

// Words of Jinja that templates of models use. What is not listed is reported,
// not refused: an engine may have it.
var (
	jinjaStatements = wordSet(`for endfor if elif else endif set endset macro endmacro call endcall filter endfilter generation
		endgeneration break continue with endwith block endblock do autoescape endautoescape endraw trans endtrans pluralize`)
	jinjaFilters = wordSet(`tojson trim length count list join first last upper lower capitalize title default d string int float
		replace selectattr rejectattr select reject map items sort unique reverse indent safe dictsort abs round min max sum batch
		slice e escape forceescape wordcount truncate from_json fromjson striptags center strip split wordwrap`)
	jinjaFunctions = wordSet(`range namespace dict raise_exception strftime_now loop caller tojson super`)
	jinjaMethods   = wordSet(`strip lstrip rstrip split rsplit splitlines startswith endswith items keys values get append upper lower
		title capitalize replace find rfind index count join pop extend update insert remove isdigit isalpha isalnum isspace islower
		isupper isnumeric partition rpartition zfill center ljust rjust encode decode copy reverse sort swapcase casefold
		removeprefix removesuffix strftime isoformat expandtabs cycle changed setdefault clear content role`)

	// statements that load other templates, or print the environment.
	jinjaLoading = wordSet("import from include extends debug")
	// objects of Jinja, Flask and Python through which templates break out.
	jinjaObjects = wordSet(`lipsum cycler joiner url_for get_flashed_messages getattr setattr eval exec subprocess builtins importlib`)
	// and such as a template may have variables of the same name.
	jinjaVariables = wordSet(`request config os sys open compile globals locals vars`)
	// attributes that lead out without an underscore in front.
	jinjaAttributes = wordSet(`mro gi_frame gi_code cr_frame cr_code ag_frame ag_code tb_frame tb_next f_globals f_locals f_builtins
		f_back f_code func_globals func_code func_closure im_func im_self im_class environ popen subclasses`)
	// filters that take an attribute's name, or the name of another filter.
	jinjaByName = wordSet("map select reject selectattr rejectattr sort groupby unique sum min max dictsort")
)

// dunder finds the names of Python's own attributes in a text, as an
// expression or a format string may use them.
var dunder = regexp.MustCompile(`__[a-z]+__|^__|__$|\{[^{}]*\._`)

// template judges a Jinja template. chat says that a loader takes it for one:
// then it has to be well formed.
func (v *visit) template(text, where string, chat bool) {
	if len(text) > maxTemplate {
		v.unseen("MODEL-TEMPLATE-LIMIT", "%s: a template of %d bytes, at most %d are judged", where, len(text), maxTemplate)
		return
	}
	t := &templateRules{own: map[string]bool{}, hits: map[string][]string{}}
	var tags []tag
	err := lexJinja(text, func(g tag) { tags = append(tags, g) })
	for _, g := range tags {
		t.declare(g)
	}
	for _, g := range tags {
		t.tag(g)
	}
	for _, rule := range templateFindings {
		if hits := t.hits[rule.name]; len(hits) > 0 {
			v.add(rule.severity, rule.id, "%s %s: %s", where, rule.text, quoteList(hits))
		}
	}
	if err != nil && errors.Is(err, errJinja) {
		severity := scan.Medium
		if chat {
			severity = scan.High
		}
		v.add(severity, "MODEL-TEMPLATE-MALFORMED", "%s: %v", where, err)
	}
}

// templateFindings are the rules in words.
var templateFindings = []struct{ name, id, severity, text string }{
	{"escape", "MODEL-TEMPLATE", scan.Critical, "reaches for what lies behind Python's objects"},
	{"load", "MODEL-TEMPLATE", scan.Critical, "loads other templates or prints the environment"},
	{"object", "MODEL-TEMPLATE", scan.Critical, "uses objects through which templates break out"},
	{"filter", "MODEL-TEMPLATE", scan.Critical, "uses filters that reach any attribute, or make names out of numbers"},
	{"odd", "MODEL-TEMPLATE-ESCAPE", scan.High, "writes plain letters as escapes"},
	{"unknown", "MODEL-TEMPLATE-UNKNOWN", scan.Medium, "uses what templates of models do not"},
}

// templateRules judge the tags of one template, word by word.
type templateRules struct {
	own  map[string]bool // names that the template gives values: variables and macros
	hits map[string][]string
}

func (t *templateRules) hit(rule, what string) {
	if list := t.hits[rule]; len(list) < maxListed && !slices.Contains(list, what) {
		t.hits[rule] = append(list, what)
	}
}

// declare notes the names that a template gives values: all that stand before
// the = of set, before the in of for, and in the brackets of macro.
func (t *templateRules) declare(g tag) {
	if !g.statement || len(g.tokens) < 2 {
		return
	}
	end := map[string]string{"set": "=", "for": "in", "macro": ")", "call": ")"}[g.tokens[0].text]
	if end == "" {
		return
	}
	for i, tok := range g.tokens[1:] {
		if tok.kind != tokText && tok.text == end {
			return
		}
		if tok.kind == tokName && at(g.tokens, i) != "." && at(g.tokens, i+2) != "." {
			t.own[tok.text] = true
		}
	}
}

func (t *templateRules) tag(g tag) {
	tokens := g.tokens
	if g.statement && len(tokens) > 0 {
		t.statement(tokens[0].text)
		if tokens[0].text != "filter" {
			tokens = tokens[1:]
		}
	}
	for i, tok := range tokens {
		switch tok.kind {
		case tokText:
			t.text(tok)
		case tokName:
			t.name(tokens, i, g.statement)
		}
	}
}

func (t *templateRules) statement(word string) {
	switch {
	case jinjaLoading[word]:
		t.hit("load", word)
	case !jinjaStatements[word]:
		t.hit("unknown", "the statement "+word)
	}
}

func (t *templateRules) text(tok token) {
	if dunder.MatchString(tok.text) {
		t.hit("escape", tok.text)
	}
	if tok.odd {
		t.hit("odd", tok.text)
	}
}

// at is a token's text if it is an operator or a name, "" beyond the ends.
func at(tokens []token, i int) string {
	if i < 0 || i >= len(tokens) || tokens[i].kind == tokText {
		return ""
	}
	return tokens[i].text
}

// name judges a name by what stands around it.
func (t *templateRules) name(tokens []token, i int, statement bool) {
	name, before, after := tokens[i].text, at(tokens, i-1), at(tokens, i+1)
	attribute := before == "." && i > 0 && tokens[i-1].kind == tokOp
	if strings.HasPrefix(name, "__") || hasWideUnderscore(name) || attribute && strings.HasPrefix(name, "_") {
		t.hit("escape", name)
		return
	}
	used := after == "." || after == "[" || after == "("
	switch {
	case attribute:
		t.attribute(name, after)
	case before == "|":
		t.filter(tokens, i)
	case before == "filter" && i == 1 && statement && tokens[0].text == "filter":
		t.filter(tokens, i)
	case after == "=" && before != "set":
		// the name of an argument
	case name == "self" && used, jinjaObjects[name], jinjaVariables[name] && !t.own[name] && used:
		t.hit("object", name)
	case after == "(" && !jinjaKeywords[name] && !jinjaFunctions[name] && !t.own[name] && before != "macro" && before != "is":
		t.hit("unknown", "the function "+name)
	}
}

// jinjaKeywords may stand before a bracket without being called.
var jinjaKeywords = wordSet("in not and or is if else recursive filter true false none True False None")

func (t *templateRules) attribute(name, after string) {
	switch {
	case jinjaAttributes[name]:
		t.hit("escape", name)
	case after != "(":
	case name == "format", name == "format_map":
		t.hit("filter", "."+name+"()")
	case !jinjaMethods[name]:
		t.hit("unknown", "the method "+name)
	}
}

// filter judges a filter's name, and what it is told to apply.
func (t *templateRules) filter(tokens []token, i int) {
	name := tokens[i].text
	switch {
	case name == "attr", name == "format", name == "xmlattr":
		t.hit("filter", name)
	case jinjaByName[name]:
		for k := i + 1; k < len(tokens) && k <= i+4; k++ {
			if tokens[k].kind == tokText && (tokens[k].text == "attr" || tokens[k].text == "format") {
				t.hit("filter", name+"("+tokens[k].text+")")
			}
		}
	case !jinjaFilters[name]:
		t.hit("unknown", "the filter "+name)
	}
}

// hasWideUnderscore finds the characters that Python reads as an underscore
// in a name.
func hasWideUnderscore(s string) bool {
	return strings.ContainsAny(s, "\uff3f\ufe33\ufe34\ufe4d\ufe4e\ufe4f")
}

// texts applies the rules for files of text.
func (v *visit) texts() error {
	if v.place == library {
		return nil
	}
	switch ext := path.Ext(v.name); {
	case v.claim == claimTemplate && v.isText(): // most begin with a brace, as JSON does
		return v.templateFile()
	case (ext == ".yaml" || ext == ".yml") && v.isText():
		return v.yaml()
	case v.f.Kind == walk.JSON && ext == "", ext == ".json" && v.isText():
		return v.json()
	case v.place == top:
		v.code(ext)
	}
	return nil
}

func (v *visit) isText() bool {
	return v.f.Kind == walk.Text || v.f.Kind == walk.Script || v.f.Kind == walk.Data || v.f.Kind == walk.JSON
}

// templateFile judges a file that is a template: chat_template.jinja and its
// like.
func (v *visit) templateFile() error {
	if v.f.Size > maxTemplate {
		v.unseen("MODEL-TEMPLATE-LIMIT", "a template of %d bytes, at most %d are judged", v.f.Size, maxTemplate)
		return nil
	}
	b, err := v.f.Bytes(maxTemplate)
	if err != nil {
		return err
	}
	v.template(string(b), "the file", true)
	return nil
}

// code names what of a repository is code: whether a loader runs it is said by
// its configuration.
func (v *visit) code(ext string) {
	switch {
	case v.name == "handler.py":
		v.add(scan.Medium, "MODEL-CODE", "an inference server runs this code for the model")
	case v.name == "setup.py":
		v.add(scan.Medium, "MODEL-CODE", "code that runs when the repository is installed")
	case ext == ".py" || ext == ".pyc":
		v.add(scan.Medium, "MODEL-CODE", "Python code beside a model; a loader that trusts the repository may run it")
	case v.name == "requirements.txt":
		v.add(scan.Low, "MODEL-REQUIREMENTS", "packages that an inference server would install for the model")
	case ext == ".ipynb":
		v.add(scan.Low, "MODEL-CODE", "a notebook with code")
	}
}
