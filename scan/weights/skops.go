package weights

import "strings"

// skopsTrusted are the packages whose types skops creates without asking, or
// asks for by names that every model has.
var skopsTrusted = wordSet("numpy scipy sklearn collections datetime pandas xgboost lightgbm catboost quantile_forest")

// skopsBuiltins are the builtins that are plain values.
var skopsBuiltins = wordSet("str int float bool list tuple dict set frozenset bytes bytearray complex NoneType slice type range object")

// skopsLoaders are loaders by which skops itself was made to run code.
var skopsLoaders = wordSet("OperatorFuncNode MethodNode")

// skops judges one object of a schema.json.
func (d *document) skops(o object) {
	class, module := o.fields["__class__"], o.fields["__module__"]
	name := module + "." + class
	top, _, _ := strings.Cut(module, ".")
	d.spoke = true
	switch {
	case top == "builtins" && skopsBuiltins[class]:
	case dangerousGlobal(module, class):
		d.list("MODEL-SKOPS-DANGER", name)
	case skopsLoaders[o.fields["__loader__"]], !skopsTrusted[top]:
		d.list("MODEL-SKOPS-TYPE", name)
	}
}
