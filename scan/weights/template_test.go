package weights

import (
	"strings"
	"testing"

	"github.com/darkmirror/darkmirror/scan/walk"
)

// Templates in the manner of those that models have.
const (
	chatML = `{% for message in messages %}{{'<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n'}}{% endfor %}` +
		`{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}`
	alternate = `{{ bos_token }}{% for message in messages %}{% if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}` +
		`{{ raise_exception('Conversation roles must alternate user/assistant/user/assistant/...') }}{% endif %}` +
		`{% if message['role'] == 'user' %}{{ '[INST] ' + message['content'].strip() + ' [/INST]' }}{% else %}{{ message['content'] + eos_token }}{% endif %}{% endfor %}`
	tools = `{{- bos_token }}
{%- if custom_tools is defined %}{%- set tools = custom_tools %}{%- endif %}
{%- if not date_string is defined %}
    {%- if strftime_now is defined %}{%- set date_string = strftime_now("%d %b %Y") %}{%- else %}{%- set date_string = "26 Jul 2024" %}{%- endif %}
{%- endif %}
{%- set ns = namespace(index=0, last=messages|length - 1, system_prompt='') -%}
{%- set sys = messages[0] %}{{- sys.content | trim }}
{%- macro render(item, indent=2, **extra) -%}{{ item | tojson(indent=indent) }}{{ ns.index }}{%- endmacro -%}
{%- for tool in tools | selectattr("type", "equalto", "function") | map(attribute="function") | list %}
    {{- render(tool) }}{{- "\n\n" }}{%- if not loop.last %}, {% endif %}
{%- endfor %}
{#- A comment with {{ braces }} and __class__ in it -#}
{%- for message in messages[::-1] %}
    {%- set ns.index = (messages | length - 1) - loop.index0 %}
    {%- if message.tool_calls is defined and message.tool_calls is not none %}
        {%- for tool_call in message.tool_calls %}
            {%- if tool_call.function is defined %}{%- set tool_call = tool_call.function %}{%- endif %}
            {{- '{"name": "' + tool_call.name + '", ' }}{{- '"arguments": ' }}{{- {"a": {"b": tool_call.arguments}} | tojson }}{{- "}" }}
            {%- for k, v in tool_call.arguments.items() %}{{ k ~ '=' ~ v }}{%- endfor %}
        {%- endfor %}
    {%- elif '</think>' in message.content %}
        {%- set content = message.content.split('</think>')[-1].lstrip('\n') %}{%- set _ = ns %}
    {%- endif %}
{%- endfor %}
{% generation %}{{ content if content else none }}{% endgeneration %}{% raw %}{{ x.__class__ }}{% endraw %}
`
	accents = `{% set a_b = "caf\u00e9 \xe9 <｜end▁of▁sentence｜>" %}{{ a_b.split("_")[0] }}{{ messages[0]['tool_calls'][0]['function']['name'] }}{{ 1.5e-3 * 2 ** 3 // 1 }}{{ '%d' }}`
)

func TestTemplates(t *testing.T) {
	for name, c := range map[string]struct {
		text     string
		expected string
		words    []string
	}{
		"ChatML":          {chatML, "", nil},
		"alternate roles": {alternate, "", nil},
		"tools":           {tools, "", nil},
		"accents":         {accents, "", nil},
		"plain text":      {"You are {name}. {", "", nil},
		"empty tag":       {"{{ }}{% %}", "", nil},

		"a class":               {`{{ ''.__class__ }}`, "critical MODEL-TEMPLATE", []string{"__class__"}},
		"subclasses":            {`{% for x in ().__class__.__base__.__subclasses__() %}{% endfor %}`, "critical MODEL-TEMPLATE", nil},
		"by subscript":          {`{{ x['__globals__'] }}`, "critical MODEL-TEMPLATE", nil},
		"by escape":             {`{{ x['\x5f\x5fclass\x5f\x5f'] }}`, "critical MODEL-TEMPLATE, high MODEL-TEMPLATE-ESCAPE", nil},
		"by octal":              {`{{ x['\137\137class\137\137'] }}`, "critical MODEL-TEMPLATE, high MODEL-TEMPLATE-ESCAPE", nil},
		"by name":               {`{{ x['\N{LOW LINE}'] }}`, "high MODEL-TEMPLATE-ESCAPE", nil},
		"by unicode":            {`{{ x["\u005f\u005fclass__"] }}`, "critical MODEL-TEMPLATE, high MODEL-TEMPLATE-ESCAPE", nil},
		"by parts":              {`{{ x['__cl' ~ 'ass__'] }}`, "critical MODEL-TEMPLATE", nil},
		"by argument":           {`{{ x[dict(__class__=1)|first] }}`, "critical MODEL-TEMPLATE", nil},
		"by wide underscores":   {"{{ x[dict(_＿class＿＿=1)|first] }}", "critical MODEL-TEMPLATE", nil},
		"an underscore":         {`{{ x._module }}`, "critical MODEL-TEMPLATE", []string{"_module"}},
		"attr":                  {`{{ x|attr('y') }}`, "critical MODEL-TEMPLATE", []string{"attr"}},
		"attr, mapped":          {`{{ [x]|map('attr', 'y')|list }}`, "critical MODEL-TEMPLATE", []string{"map(attr)"}},
		"format":                {`{{ '%c%c'|format(95, 95) }}`, "critical MODEL-TEMPLATE", nil},
		"format, called":        {`{{ '{0.a}'.format(x) }}`, "critical MODEL-TEMPLATE", nil},
		"filter block":          {`{% filter attr('x') %}{% endfilter %}`, "critical MODEL-TEMPLATE", nil},
		"import":                {`{% import 'x' as y %}`, "critical MODEL-TEMPLATE", []string{"import"}},
		"from":                  {`{% from 'x' import y %}`, "critical MODEL-TEMPLATE", nil},
		"include":               {`{%- include 'x' -%}`, "critical MODEL-TEMPLATE", nil},
		"extends":               {`{% extends 'x' %}`, "critical MODEL-TEMPLATE", nil},
		"debug":                 {`{% debug %}`, "critical MODEL-TEMPLATE", nil},
		"lipsum":                {`{{ lipsum }}`, "critical MODEL-TEMPLATE", nil},
		"cycler":                {`{{ cycler('a') }}`, "critical MODEL-TEMPLATE", nil},
		"self":                  {`{{ self.x }}`, "critical MODEL-TEMPLATE", []string{"self"}},
		"request":               {`{{ request.application }}`, "critical MODEL-TEMPLATE", nil},
		"os":                    {`{{ os.popen('x') }}`, "critical MODEL-TEMPLATE, critical MODEL-TEMPLATE", nil},
		"mro":                   {`{{ x.mro() }}`, "critical MODEL-TEMPLATE", nil},
		"a variable of a name":  {`{% set os = messages[0] %}{{ os.content }}`, "", nil},
		"an unknown function":   {`{{ fetch('x') }}`, "medium MODEL-TEMPLATE-UNKNOWN", []string{"the function fetch"}},
		"an unknown filter":     {`{{ x|b64decode }}`, "medium MODEL-TEMPLATE-UNKNOWN", []string{"the filter b64decode"}},
		"an unknown method":     {`{{ x.read() }}`, "medium MODEL-TEMPLATE-UNKNOWN", []string{"the method read"}},
		"an unknown statement":  {`{% exec x %}`, "medium MODEL-TEMPLATE-UNKNOWN", []string{"the statement exec"}},
		"open":                  {`{{ x`, "high MODEL-TEMPLATE-MALFORMED", nil},
		"open text":             {`{{ 'x }}`, "high MODEL-TEMPLATE-MALFORMED", nil},
		"open comment":          {`{# x`, "high MODEL-TEMPLATE-MALFORMED", nil},
		"open raw":              {`{% raw %}{{ x }}`, "high MODEL-TEMPLATE-MALFORMED", nil},
		"a bracket too many":    {`{{ x) }}`, "high MODEL-TEMPLATE-MALFORMED", nil},
		"brackets":              {`{{ ` + strings.Repeat("(", 500) + ` }}`, "high MODEL-TEMPLATE-MALFORMED", nil},
		"an odd character":      {"{{ x ` }}", "high MODEL-TEMPLATE-MALFORMED", nil},
		"hostile, then broken":  {`{{ x.__class__ }}{{`, "critical MODEL-TEMPLATE, high MODEL-TEMPLATE-MALFORMED", nil},
		"behind a raw":          {`{% raw %}{% endraw %}{{ x.__class__ }}`, "critical MODEL-TEMPLATE", nil},
		"behind a hidden end":   {`{{ '}}' ~ x.__class__ }}`, "critical MODEL-TEMPLATE", nil},
		"in a dictionary":       {`{{ {'a': {'b': x.__class__}} }}`, "critical MODEL-TEMPLATE", nil},
		"larger than the limit": {strings.Repeat("x", maxTemplate+1), "?high MODEL-TEMPLATE-LIMIT", nil},
	} {
		t.Run(name, func(t *testing.T) {
			want(t, inspect(t, Config{}, walk.Text, c.text, "chat_template.jinja"), c.expected, c.words...)
		})
	}
	// A template that begins with a brace is JSON to the walker.
	want(t, inspect(t, Config{}, walk.JSON, `{{ x.__class__ }}`, "x.j2"), "critical MODEL-TEMPLATE")
	want(t, inspect(t, Config{}, walk.Text, `{{ x.__class__ }}`, "a-1-py3-none-any.whl", "x.j2"), "")
}

func TestYAML(t *testing.T) {
	for in, expected := range map[string]string{
		"a: 1\n":                               "",
		"a: !!python/object/apply:os.system\n": "high MODEL-YAML",
		"a: !<tag:yaml.org,2002:python/object/new:x>\n":    "high MODEL-YAML",
		"model: {_target_: os.system}\n":                   "critical MODEL-TARGET",
		"  _target_: nemo.collections.nlp.Model\n":         "",
		"chat_template: '{{ x[''role''] }}'\n":             "",
		"chat_template: '{{ x.__class__ }}'\n":             "critical MODEL-TEMPLATE",
		"x: {{ y.__class__ }}\n":                           "",
		"template: |\n  {{ open\n":                         "",
		"a: " + strings.Repeat("x", 2<<20) + "\nb: 1\n":    "",
		"_target_: x.y\n_target_: 'builtins.eval'\n":       "critical MODEL-TARGET",
		strings.Repeat("# x\n", 5<<20):                     "?high MODEL-YAML-LIMIT",
		"{a: !!python/name:os.system }":                    "high MODEL-YAML",
		"a: !!python/tuple [1]\n":                          "",
		"hydra:\n  _target_: subprocess.Popen\n  x: 1\n":   "critical MODEL-TARGET",
		"a: !!python/object/apply:os.system\n# template\n": "high MODEL-YAML",
	} {
		want(t, inspect(t, Config{}, walk.Text, in, "config.yaml"), expected)
	}
}

func TestDocuments(t *testing.T) {
	for name, c := range map[string]struct {
		file, content string
		expected      string
		words         []string
	}{
		"plain":     {"config.json", `{"model_type": "llama", "auto_map": {}, "x": [1, NaN, null, -Infinity, "é\ud83d\ude00"]}`, "", nil},
		"auto_map":  {"config.json", `{"auto_map": {"AutoModel": "modeling_x.XModel", "AutoConfig": "configuration_x.XConfig"}}`, "high MODEL-AUTO-MAP", []string{`"modeling_x.py"`, `"configuration_x.py"`}},
		"as a list": {"tokenizer_config.json", `{"auto_map": {"AutoTokenizer": ["tokenization_x.X", null]}}`, "high MODEL-AUTO-MAP", []string{"tokenization_x.py"}},
		"nested":    {"config.json", `{"vision_config": {"auto_map": {"AutoModel": "m.X"}}}`, "high MODEL-AUTO-MAP", nil},
		"another repository": {
			"config.json", `{"auto_map": {"AutoModel": "org/name--modeling_x.XModel"}}`, "high MODEL-AUTO-MAP",
			[]string{"of another one", `"modeling_x.py of org/name"`},
		},
		"escaped":              {"config.json", `{"auto\u005fmap": {"AutoModel": "m.X"}}`, "high MODEL-AUTO-MAP", nil},
		"a pipeline":           {"config.json", `{"custom_pipelines": {"x": {"impl": "my_pipe.Pipe", "pt": ["AutoModel"]}}}`, "high MODEL-AUTO-MAP", []string{"my_pipe.py"}},
		"diffusers":            {"model_index.json", `{"_class_name": ["pipeline", "MyPipeline"]}`, "high MODEL-AUTO-MAP", nil},
		"diffusers, plain":     {"model_index.json", `{"_class_name": "StableDiffusionPipeline", "unet": ["diffusers", "UNet2DConditionModel"]}`, "", nil},
		"modules":              {"modules.json", `[{"type": "sentence_transformers.models.Pooling"}, {"type": "custom_st.Transformer"}]`, "high MODEL-AUTO-MAP", []string{"custom_st.py"}},
		"twice":                {"config.json", `{"auto_map": {"AutoModel": "m.X"}, "auto_map": {}}`, "high MODEL-AUTO-MAP", nil},
		"broken":               {"config.json", `{"auto_map": {"AutoModel": "m.X"}, `, "high MODEL-AUTO-MAP, medium MODEL-JSON", nil},
		"broken data":          {"data.json", "{\"a\": 1}\n{\"a\": 2}\n", "", nil},
		"not a document":       {"data.jsonl", `{"auto_map": {"AutoModel": "m.X"}}`, "", nil},
		"a template":           {"tokenizer_config.json", `{"chat_template": "{{ x.__class__ }}"}`, "critical MODEL-TEMPLATE", nil},
		"templates":            {"tokenizer_config.json", `{"chat_template": [{"name": "default", "template": "{{ x }}"}, {"name": "rag", "template": "{{ x.__class__ }}"}]}`, "critical MODEL-TEMPLATE", nil},
		"another key":          {"tokenizer_config.json", `{"custom_chat_template": "{{ x.__class__ }}"}`, "critical MODEL-TEMPLATE", nil},
		"open":                 {"tokenizer_config.json", `{"chat_template": "{{ x"}`, "high MODEL-TEMPLATE-MALFORMED", nil},
		"open, other key":      {"tokenizer_config.json", `{"prompt_template": "{{ x"}`, "medium MODEL-TEMPLATE-MALFORMED", nil},
		"a long template":      {"tokenizer_config.json", `{"chat_template": "` + strings.Repeat("x", maxJSONText+1) + `"}`, "?high MODEL-TEMPLATE-LIMIT", nil},
		"hydra":                {"config.json", `{"model": {"_target_": "os.system"}}`, "critical MODEL-TARGET", nil},
		"late in a large one":  {"config.json", `{"x": "` + strings.Repeat("x", 2*smallJSON) + `", "auto_map": {"AutoModel": "m.X"}}`, "high MODEL-AUTO-MAP", nil},
		"large, nothing in it": {"tokenizer.json", `{"x": "` + strings.Repeat("x", 2*smallJSON) + `"`, "", nil},

		"Keras":         {"config.json", `{"module": "keras", "class_name": "Sequential", "config": {"layers": [{"module": "keras.layers", "class_name": "Dense", "config": {}, "registered_name": null}]}}`, "", nil},
		"Keras, a loss": {"config.json", `{"class_name": "function", "module": "keras.losses", "config": "mean_squared_error", "registered_name": "mean_squared_error"}`, "", nil},
		"Lambda":        {"config.json", `{"class_name": "Model", "config": {"layers": [{"class_name": "Lambda", "config": {"function": "x"}}]}}`, "high MODEL-KERAS-LAMBDA", nil},
		"lambda":        {"config.json", `{"class_name": "__lambda__", "config": {"code": "x"}}`, "high MODEL-KERAS-LAMBDA", nil},
		"TFSMLayer":     {"config.json", `{"class_name": "TFSMLayer", "module": "keras.layers", "config": {"filepath": "x"}}`, "high MODEL-KERAS-TFSM", nil},
		"any module":    {"config.json", `{"class_name": "X", "module": "mine.layers", "config": {}}`, "high MODEL-KERAS-CUSTOM", nil},
		"os":            {"config.json", `{"class_name": "function", "module": "os", "config": "system"}`, "critical MODEL-KERAS-DANGER", []string{"os.system"}},
		"get_file":      {"config.json", `{"class_name": "function", "module": "keras.utils", "config": "get_file"}`, "critical MODEL-KERAS-DANGER", []string{"keras.utils.get_file"}},
		"builtins":      {"config.json", `{"class_name": "function", "module": "builtins", "config": "eval"}`, "critical MODEL-KERAS-DANGER", nil},
		"registered":    {"config.json", `{"class_name": "X", "module": null, "config": {}, "registered_name": "mine>X"}`, "high MODEL-KERAS-CUSTOM", nil},

		"skops":         {"schema.json", `{"__class__": "Pipeline", "__module__": "sklearn.pipeline", "__loader__": "ObjectNode", "content": {"__class__": "dict", "__module__": "builtins", "__loader__": "DictNode"}}`, "", nil},
		"skops, own":    {"schema.json", `{"__class__": "X", "__module__": "__main__", "__loader__": "ObjectNode"}`, "high MODEL-SKOPS-TYPE", []string{"__main__.X"}},
		"skops, os":     {"schema.json", `{"__class__": "system", "__module__": "os", "__loader__": "FunctionNode"}`, "critical MODEL-SKOPS-DANGER", nil},
		"skops, method": {"schema.json", `{"__class__": "method", "__module__": "sklearn.x", "__loader__": "MethodNode"}`, "high MODEL-SKOPS-TYPE", nil},
	} {
		t.Run(name, func(t *testing.T) {
			want(t, inspect(t, Config{}, walk.JSON, c.content, c.file), c.expected, c.words...)
		})
	}
	want(t, inspect(t, Config{}, walk.Text, "\n "+`{"auto_map": {"AutoModel": "m.X"}}`, "config.json"), "high MODEL-AUTO-MAP")
	// In an archive of a model as well, and not in a package.
	auto := `{"auto_map": {"AutoModel": "m.X"}}`
	want(t, inspect(t, Config{Code: "low"}, walk.JSON, auto, "model.nemo", "config.json"), "low MODEL-AUTO-MAP")
	want(t, inspect(t, Config{}, walk.JSON, auto, "a-1-py3-none-any.whl", "config.json"), "")
}

func TestJSONIsStrict(t *testing.T) {
	for _, in := range []string{``, `{`, `{"a"}`, `{"a":}`, `{"a":1,}`, `[1,]`, `[1 2]`, `{a:1}`, `"\q"`, `"\u00g0"`, "\"\n\"", `tru`, `-`, `1x`, "\"\xff\"", strings.Repeat("[", maxJSONDepth+1), strings.Repeat("1", 5000)} {
		if _, err := readJSON(strings.NewReader(in), func(jsonEvent) error { return nil }); err == nil {
			t.Errorf("%.40q was read", in)
		}
	}
	n, err := readJSON(strings.NewReader(`{"a": [1.5e3, "x", true, {}]} {`), func(jsonEvent) error { return nil })
	if err != nil || n != 29 {
		t.Errorf("a value of %d bytes, %v; want 29", n, err)
	}
}

func TestHDF5(t *testing.T) {
	hdf := func(parts ...string) string {
		return "\x89HDF\r\n\x1a\n" + strings.Repeat("\x00", 100) + strings.Join(parts, "\x00\x00")
	}
	lambda := `{"class_name": "Sequential", "config": {"layers": [{"class_name": "Lambda", "config": {"function": "x"}}]}}`
	plain := `{"class_name": "Sequential", "config": {"layers": [{"class_name": "Dense", "config": {}}]}}`
	for name, c := range map[string]struct{ content, expected string }{
		"weights":        {hdf("layer_names"), ""},
		"plain":          {hdf("model_config", plain), ""},
		"Lambda":         {hdf("model_config", lambda), "high MODEL-KERAS-LAMBDA"},
		"behind another": {hdf("model_config", plain, lambda), "high MODEL-KERAS-LAMBDA"},
		"escaped":        {hdf("model_config", strings.ReplaceAll(lambda, "Lambda", `Lam\u0062da`)), "high MODEL-KERAS-LAMBDA"},
		"key escaped":    {hdf("model_config", strings.ReplaceAll(lambda, "class_name", `cl\u0061ss_name`)), "high MODEL-KERAS-LAMBDA"},
		"spaced":         {hdf("model_config", strings.ReplaceAll(lambda, "{", "{ \n\t")), "high MODEL-KERAS-LAMBDA"},
		"behind a decoy": {hdf("model_config", `{"class_name": "x", `, lambda), "high MODEL-KERAS-LAMBDA"},
		"no JSON":        {hdf("model_config", "x"), "?high MODEL-HDF5"},
		"other JSON":     {hdf("model_config", `{"a": 1}`), "?high MODEL-HDF5"},
		"filtered":       {hdf("FRHP\x00\x08\x00\x04\x00", "layer_names"), "?high MODEL-HDF5"},
		"not filtered":   {hdf("FRHP\x00\x08\x00\x00\x00", "layer_names"), ""},
		"across pieces":  {hdf(strings.Repeat("\x00", searchChunk-130) + "model_config" + lambda), "high MODEL-KERAS-LAMBDA"},
	} {
		t.Run(name, func(t *testing.T) {
			want(t, inspect(t, Config{}, walk.HDF5, c.content, "model.h5"), c.expected)
		})
	}
	want(t, inspect(t, Config{}, walk.Data, "\x00\x00", "model.h5"), "high MODEL-UNKNOWN")
	want(t, inspectFile(t, Config{}, zipFile(t, "model.keras", "config.json", plain)), "")
	want(t, inspectFile(t, Config{}, zipFile(t, "model.keras", "a", "x")), "high MODEL-KERAS")
	want(t, inspectFile(t, Config{}, zipFile(t, "model.skops", "a", "x")), "high MODEL-SKOPS")
}

func TestCode(t *testing.T) {
	for file, expected := range map[string]string{
		"modeling_x.py": "medium MODEL-CODE", "handler.py": "medium MODEL-CODE", "setup.py": "medium MODEL-CODE",
		"requirements.txt": "low MODEL-REQUIREMENTS", "train.ipynb": "low MODEL-CODE", "README.md": "",
	} {
		want(t, inspect(t, Config{}, walk.Text, "x = 1\n", file), expected)
		want(t, inspect(t, Config{}, walk.Text, "x = 1\n", "a-1-py3-none-any.whl", file), "")
	}
	// Text that begins with a bracket is JSON to the walker.
	want(t, inspect(t, Config{}, walk.JSON, "[x for x in y]\n", "modeling_x.py"), "medium MODEL-CODE")
}
