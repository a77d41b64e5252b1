package main

import (
	"cmp"
	"fmt"
	"path"
	"strings"

	"github.com/darkmirror/darkmirror/mirror/config"
	"github.com/darkmirror/darkmirror/mirror/store"
	"github.com/darkmirror/darkmirror/models"
	"github.com/darkmirror/darkmirror/models/hub"
)

// modelsView is what the settings for models are made from.
type modelsView struct {
	path     string // of the hub: that of the only source, or the common one
	closed   bool   // some repositories want a token
	cache    string // a cache folder that some source is published into
	folder   string
	s3       *models.S3Config
	images   string // the entry under oci that has them as artifacts, or empty
	modelcar bool
	example  modelExample
}

// A modelExample is a published model, to show how names are written.
type modelExample struct{ repo, ref, commit string }

// readModels finds where models are published and one of them.
func (v *clientsView) readModels(cfg *config.Config) error {
	m := &v.models
	m.path = hubPath
	if len(cfg.Models) == 1 {
		m.path = "/models/" + cfg.Models[0].Name
	}
	m.example = modelExample{"ORGANISATION/NAME", "main", strings.Repeat("0", 40)}
	found := false
	for i := range cfg.Models {
		c := &cfg.Models[i].Publish
		m.closed = m.closed || len(c.Access) > 0
		m.cache, m.folder = cmp.Or(m.cache, c.Cache.Dir), cmp.Or(m.folder, c.Folder)
		if c.S3.Endpoint != "" && m.s3 == nil {
			m.s3 = &c.S3
		}
		if found {
			continue
		}
		at, ok, err := models.ReadPublished(publishDir(cfg, "models/"+c.Name))
		if err != nil {
			return err
		}
		if !ok {
			continue
		}
		st, err := store.Open(storeDir(cfg))
		if err != nil {
			return err
		}
		set, err := at.Load(st)
		if err != nil {
			return err
		}
		for _, r := range set.Revisions {
			if r.Repo.Kind == hub.Model && len(r.Refs) > 0 && !found {
				m.example, found = modelExample{r.Repo.ID, r.Refs[0], r.Commit}, true
			}
		}
	}
	for i := range cfg.OCI {
		if c := &cfg.OCI[i].Publish; c.Models != "" && m.images == "" {
			m.images, m.modelcar = c.Name, c.Modelcar
		}
	}
	if !found {
		v.warnings = append(v.warnings, "no model is published yet; the examples name none")
	}
	return nil
}

// hasImages reports whether some source has images, rather than models, to
// publish.
func hasImages(cfg *config.Config) bool {
	for i := range cfg.OCI {
		if cfg.OCI[i].Publish.Models == "" {
			return true
		}
	}
	return false
}

// A variable of an environment.
type variable struct{ name, value string }

// hubEnv is what every client of a hub is told: where it is, and not to call
// anybody else.
func (v *clientsView) hubEnv() []variable {
	list := []variable{
		{"HF_ENDPOINT", v.serve.url() + v.models.path},
		{"HF_HUB_DISABLE_TELEMETRY", "1"},
		{"HF_HUB_DISABLE_UPDATE_CHECK", "1"},
		{"HF_HUB_DISABLE_XET", "1"},
		{"DISABLE_SAFETENSORS_CONVERSION", "1"},
		{"DO_NOT_TRACK", "1"},
	}
	if v.serve.ca != "" {
		for _, name := range []string{"SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "NODE_EXTRA_CA_CERTS"} {
			list = append(list, variable{name, v.serve.caFile()})
		}
	}
	return list
}

// offlineEnv is for engines that read a cache folder and ask nobody.
func (v *clientsView) offlineEnv() []variable {
	return []variable{
		{"HF_HUB_CACHE", v.models.cache},
		{"HF_HUB_OFFLINE", "1"},
		{"TRANSFORMERS_OFFLINE", "1"},
		{"HF_DATASETS_OFFLINE", "1"},
		{"HF_HUB_DISABLE_TELEMETRY", "1"},
		{"HF_HUB_DISABLE_UPDATE_CHECK", "1"},
		{"DISABLE_SAFETENSORS_CONVERSION", "1"},
		{"DO_NOT_TRACK", "1"},
	}
}

// envFile is an environment as systemd, docker --env-file and compose read it.
func envFile(lists ...[]variable) string {
	var b strings.Builder
	for _, list := range lists {
		for _, e := range list {
			fmt.Fprintf(&b, "%s=%s\n", e.name, e.value)
		}
	}
	return b.String()
}

// exports is an environment as a login shell reads it.
func exports(lists ...[]variable) string {
	var b strings.Builder
	for line := range strings.Lines(envFile(lists...)) {
		b.WriteString("export " + line)
	}
	return b.String()
}

// tokenNote says where a token goes, which is never printed.
func (v *clientsView) tokenNote() string {
	if !v.models.closed {
		return ""
	}
	return " Some models want a token: HF_TOKEN, or a file that HF_TOKEN_PATH names."
}

func hubSettings(v *clientsView) []setting {
	list := v.serve.caSetting(v.serve.caFile())
	return append(list, setting{
		File: "/etc/profile.d/darkmirror-models.sh", Content: exports(v.hubEnv()),
		Note: "For huggingface_hub, hf, transformers, sentence-transformers, datasets and @huggingface/hub. Files over 50 GB are refused by these clients whatever the hub; they are in the folders or the object store." + v.tokenNote(),
	}, setting{
		Content: fmt.Sprintf("hf download %s\npython3 -c 'from transformers import AutoConfig; print(AutoConfig.from_pretrained(%q))'\n", v.models.example.repo, v.models.example.repo),
		Note:    "To try it:",
	})
}

// vllmEnv keeps vLLM from calling out.
func vllmEnv() []variable {
	return []variable{{"VLLM_NO_USAGE_STATS", "1"}, {"VLLM_DO_NOT_TRACK", "1"}}
}

func vllmSettings(v *clientsView) []setting {
	m := &v.models
	list := v.serve.caSetting(v.serve.caFile())
	list = append(list, setting{
		File: "/etc/darkmirror/vllm-hub.env", Content: envFile(v.hubEnv(), vllmEnv()),
		Note: "vLLM that downloads from the mirror at its first start: EnvironmentFile= of systemd, or --env-file of docker." + v.tokenNote(),
	})
	commands := fmt.Sprintf("vllm serve %s --revision %s\n", m.example.repo, m.example.commit)
	if m.cache != "" {
		list = append(list, setting{
			File: "/etc/darkmirror/vllm-cache.env", Content: envFile(v.offlineEnv(), vllmEnv()),
			Note: "vLLM that reads the cache folder and asks nobody; the folder may be mounted read-only.",
		})
	}
	if m.folder != "" {
		commands += fmt.Sprintf("vllm serve %s\n", path.Join(m.folder, m.example.repo))
	}
	if m.s3 != nil {
		list = append(list, setting{
			File: "/etc/darkmirror/vllm-s3.env", Content: envFile(s3Env(m.s3), vllmEnv()),
			Note: "vLLM that streams from the object store. AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY of an account that may read the bucket go beside it.",
		})
		commands += fmt.Sprintf("vllm serve %s --load-format runai_streamer\n", s3URL(m.s3, m.example))
	}
	return append(list, setting{Content: commands, Note: "By the hub's name and commit" + also(m.folder != "", ", by path") + also(m.s3 != nil, ", from the object store") + "; each with the environment above that fits:"})
}

func also(is bool, text string) string {
	if is {
		return text
	}
	return ""
}

// s3Env is what the Run:ai streamer reads.
func s3Env(c *models.S3Config) []variable {
	virtual := "0"
	if c.VirtualHost {
		virtual = "1"
	}
	return []variable{
		{"AWS_ENDPOINT_URL", c.Endpoint},
		{"RUNAI_STREAMER_S3_ENDPOINT", c.Endpoint},
		{"RUNAI_STREAMER_S3_USE_VIRTUAL_ADDRESSING", virtual},
		{"AWS_REGION", cmp.Or(c.Region, "us-east-1")},
		{"AWS_EC2_METADATA_DISABLED", "true"},
	}
}

// s3URL is a model's place; the last slash is needed.
func s3URL(c *models.S3Config, e modelExample) string {
	return "s3://" + path.Join(c.Bucket, c.Prefix, e.repo, e.commit) + "/"
}

func tgiSettings(v *clientsView) []setting {
	m := &v.models
	list := v.serve.caSetting(v.serve.caFile())
	env, note := v.hubEnv(), "TGI that downloads from the mirror at its first start."+v.tokenNote()
	if m.cache != "" {
		env, note = v.offlineEnv(), "TGI that reads the cache folder and asks nobody. Its router takes HF_HUB_OFFLINE=1 and no other word for it."
		env = append(env, variable{"HUGGINGFACE_HUB_CACHE", m.cache})
	}
	env = append(env, variable{"USAGE_STATS", "off"})
	return append(list, setting{File: "/etc/darkmirror/tgi.env", Content: envFile(env), Note: note + " Weights that are no safetensors it converts beside the originals, which a read-only folder does not allow."}, setting{
		Content: fmt.Sprintf("text-generation-launcher --model-id %s --revision %s\n", m.example.repo, m.example.commit),
		Note:    unverified + "To start it:",
	})
}

func nimSettings(v *clientsView) []setting {
	m := &v.models
	env := []variable{{"NIM_MODEL_PATH", "/models/" + m.example.repo}, {"HF_HUB_OFFLINE", "1"}, {"HF_HUB_DISABLE_TELEMETRY", "1"}, {"NIM_TELEMETRY_MODE", "0"}}
	note := "A model-free NIM that is given a folder"
	switch {
	case m.folder != "":
		env[0].value = path.Join(m.folder, m.example.repo)
		note += "; mount it under the same path."
	case m.s3 != nil:
		env = append([]variable{{"NIM_MODEL_PATH", s3URL(m.s3, m.example)}}, s3Env(m.s3)...)
		note = "A model-free NIM that reads the object store; its account's keys go beside it."
	default:
		note += ": models.folder publishes one, which this configuration does not."
	}
	return []setting{{File: "/etc/darkmirror/nim.env", Content: envFile(env), Note: unverified + note + " NGC_API_KEY and HF_TOKEN stay unset."}}
}

func kserveSettings(v *clientsView) []setting {
	m := &v.models
	uri, note := "pvc://models/"+m.example.repo, "A volume that holds the folder of models.folder, mounted read-only."
	switch {
	case m.images != "" && m.modelcar:
		uri = "oci+native://" + v.serve.host + "/" + m.images + "/" + strings.ToLower(m.example.repo) + "-modelcar:" + strings.ReplaceAll(m.example.ref, "/", "-")
		note = "A modelcar image, mounted as an image volume. There is no shell in it, which KServe's older oci:// would need."
	case m.s3 != nil:
		uri = s3URL(m.s3, m.example)
		note = "The object store; the service account's secret holds its address and keys."
	}
	return []setting{{
		File: "kubernetes/darkmirror-inferenceservice.yaml",
		Content: fmt.Sprintf(`apiVersion: serving.kserve.io/v1beta1
kind: InferenceService
metadata:
  name: darkmirror-example
spec:
  predictor:
    model:
      modelFormat:
        name: huggingface
      storageUri: %s
      env:
      - {name: HF_HUB_OFFLINE, value: "1"}
      - {name: TRANSFORMERS_OFFLINE, value: "1"}
      - {name: HF_HUB_DISABLE_TELEMETRY, value: "1"}
      - {name: DO_NOT_TRACK, value: "1"}
      - {name: VLLM_NO_USAGE_STATS, value: "1"}
`, uri),
		Note: unverified + note,
	}}
}
