package engine

import (
	"embed"
	"strings"
)

// The lists of what an engine knows, each as one release has it: the first line
// of the file says which, and where it stands. What is on a list loads with
// that release. What is not may load with another one, or by a way that has no
// list: that is not known, and never said.
//
//go:embed known/*.txt
var knownFiles embed.FS

// The releases that were looked at.
const (
	vllmRelease         = "vLLM 0.33.0"
	tgiRelease          = "TGI 3.3.7"
	transformersRelease = "transformers 5.23.0"
	llamacppRelease     = "llama.cpp b11549"
)

// A known is the set of names in one list.
type known map[string]bool

func readKnown(name string) known {
	b, err := knownFiles.ReadFile("known/" + name + ".txt")
	if err != nil {
		return nil // a test reads every one
	}
	k := make(known)
	for line := range strings.Lines(string(b)) {
		if line = strings.TrimSpace(line); line != "" && line[0] != '#' {
			k[line] = true
		}
	}
	return k
}

// A method is a way to write weights in fewer bits, as quantization_config
// names it, with what an engine needs for it.
type methods map[string]string

// vllmMethods are those of vLLM 0.33.0.
var vllmMethods = methods{
	"awq": "", "auto_awq": "", "awq_marlin": "", "gptq": "", "auto_gptq": "", "gptq_marlin": "", "fp8": "", "fbgemm_fp8": "", "fp_quant": "",
	"modelopt": "", "modelopt_fp4": "", "modelopt_mxfp8": "", "modelopt_mixed": "", "humming": "", "compressed-tensors": "", "experts_int8": "",
	"quark": "", "moe_wna16": "", "torchao": "", "inc": "", "mxfp4": "", "gpt_oss_mxfp4": "", "deepseek_v4_fp8": "", "mxfp8": "",
	"bitsandbytes": "the plugin vllm-bnb-plugin",
}

// tgiMethods are those that TGI 3.3.7 finds out by itself.
var tgiMethods = methods{"gptq": "", "awq": "", "exl2": "", "fp8": "", "fbgemm_fp8": "", "compressed-tensors": ""}

// transformersMethods are those of transformers 5.23.0.
var transformersMethods = methods{
	"awq": "the Python packages gptqmodel and accelerate", "gptq": "the Python packages optimum and gptqmodel",
	"bitsandbytes": "the Python packages bitsandbytes and accelerate", "compressed-tensors": "the Python package compressed-tensors",
	"fp8":   "the Python package accelerate, and a GPU of compute capability 8.9 or higher (others get the weights unpacked to more bytes)",
	"mxfp4": "the Python packages accelerate and kernels, and a GPU of compute capability 7.5 or higher",
	"aqlm":  "the Python package aqlm", "eetq": "the Python package kernels", "quanto": "the Python package optimum-quanto",
	"torchao": "the Python package torchao", "hqq": "the Python package hqq", "vptq": "the Python package vptq",
	"spqr": "the Python package spqr_quant", "fp_quant": "the Python package fp_quant", "higgs": "the Python package flute-kernel",
	"quark": "", "fouroversix": "the Python package fouroversix", "fbgemm_fp8": "", "bitnet": "", "nvfp4": "", "mxfp8": "",
	"auto-round": "", "metal": "", "sinq": "the Python package sinq", "gemma": "",
}
