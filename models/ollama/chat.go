package ollama

import "strings"

// A chat is a way to write a conversation down, in Ollama's template language
// and with the words that end an answer.
type chat struct {
	marks    []string // all of them stand in the model's own template
	template string
	stop     []string
}

// chats are the common ways. Ollama does not run the template in a GGUF file,
// which is Jinja: without one in its own language it sends the bare prompt.
func chats() map[string]chat {
	return map[string]chat{
		"chatml": {
			[]string{"<|im_start|>", "<|im_end|>"},
			"{{- range .Messages }}<|im_start|>{{ .Role }}\n{{ .Content }}<|im_end|>\n{{ end }}<|im_start|>assistant\n",
			[]string{"<|im_start|>", "<|im_end|>"},
		},
		"llama3": {
			[]string{"<|start_header_id|>", "<|eot_id|>"},
			"{{- range .Messages }}<|start_header_id|>{{ .Role }}<|end_header_id|>\n\n{{ .Content }}<|eot_id|>{{ end }}<|start_header_id|>assistant<|end_header_id|>\n\n",
			[]string{"<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"},
		},
		"gemma": {
			[]string{"<start_of_turn>", "<end_of_turn>"},
			"{{- $system := \"\" }}{{ range .Messages }}{{ if eq .Role \"system\" }}{{ $system = printf \"%s%s\\n\\n\" $system .Content }}{{ continue }}{{ end }}" +
				"<start_of_turn>{{ if eq .Role \"assistant\" }}model{{ else }}user{{ end }}\n{{ if eq .Role \"user\" }}{{ $system }}{{ $system = \"\" }}{{ end }}{{ .Content }}<end_of_turn>\n{{ end }}<start_of_turn>model\n",
			[]string{"<start_of_turn>", "<end_of_turn>"},
		},
		"phi3": {
			[]string{"<|user|>", "<|end|>"},
			"{{- range .Messages }}<|{{ .Role }}|>\n{{ .Content }}<|end|>\n{{ end }}<|assistant|>\n",
			[]string{"<|end|>", "<|system|>", "<|user|>", "<|assistant|>"},
		},
		"mistral": {
			[]string{"[INST]", "[/INST]"},
			"[INST] {{ range .Messages }}{{ if eq .Role \"system\" }}{{ .Content }}\n\n{{ else if eq .Role \"user\" }}{{ .Content }}[/INST]{{ else if eq .Role \"assistant\" }} {{ .Content }}</s>[INST] {{ end }}{{ end }}",
			[]string{"[INST]", "[/INST]"},
		},
	}
}

// chatOf names the one way whose marks stand in a Jinja template; "" where
// there is none, or where two would fit.
func chatOf(jinja string) (found string) {
	for name, c := range chats() {
		fits := true
		for _, m := range c.marks {
			fits = fits && strings.Contains(jinja, m)
		}
		switch {
		case fits && found != "":
			return ""
		case fits:
			found = name
		}
	}
	return found
}
