package weights

import (
	"strings"
)

// dangerousModules are modules of which anything may run code, read or write
// files, or talk to the network, those below them included. The allowlist of
// scan/pickle decides what passes: this list only says what is worse than
// unknown.
var dangerousModules = wordSet(`
	os posix nt ntpath subprocess _posixsubprocess commands popen2 sys shutil socket _socket ssl _ssl ctypes _ctypes cffi
	runpy code codeop pty pdb bdb profile cProfile trace timeit pydoc doctest idlelib lib2to3 distutils ensurepip venv pip
	setuptools pkg_resources pkgutil importlib _frozen_importlib _frozen_importlib_external imp zipimport zipapp
	_operator webbrowser httplib http urllib urllib2 requests aiohttp httpx ftplib smtplib smtpd
	telnetlib imaplib poplib nntplib xmlrpc xmlrpclib socketserver SocketServer asyncio multiprocessing concurrent signal
	pickle cPickle _pickle dill cloudpickle marshal shelve dbm inspect atexit site sysconfig _sysconfigdata _osx_support
	_aix_support _pyrepl test.support fileinput linecache sqlite3 rlcompleter platform uuid antigravity turtledemo cgitb wsgiref
	logging.config logging.handlers
	gc tempfile glob zipfile tarfile compileall py_compile pipes mailcap netrc nturl2path paramiko fabric sh pexpect
	winreg _winreg _winapi msilib win32api win32com
	torch.hub torch.jit torch.package torch._dynamo torch._inductor torch.fx torch.utils.cpp_extension torch.utils.collect_env
	torch.utils.data.datapipes torch.utils._config_module torch.utils.bottleneck torch.distributed.elastic torch.multiprocessing
	torch.serialization torch.testing numpy.f2py numpy.testing numpy.distutils scipy.weave pandas.io.pickle joblib.externals
	jinja2 mako tornado.template django flask werkzeug IPython ipykernel notebook
`)

// dangerousNames are the dangerous ones of modules that others of are not.
var dangerousNames = wordSet(`
	builtins.eval builtins.exec builtins.execfile builtins.compile builtins.open builtins.file builtins.getattr builtins.setattr
	builtins.delattr builtins.__import__ builtins.apply builtins.input builtins.raw_input builtins.breakpoint builtins.globals
	builtins.locals builtins.vars builtins.map builtins.filter builtins.help builtins.memoryview builtins.type builtins.exit
	builtins.quit builtins.reload builtins.__build_class__
	operator.attrgetter operator.methodcaller operator.call operator.setitem operator.delitem operator.iconcat
	functools.reduce functools.singledispatchmethod
	types.CodeType types.FunctionType types.LambdaType types.MethodType types.ModuleType types.BuiltinFunctionType types.new_class
	io.open io.open_code io.FileIO io.OpenWrapper _io.open _io.open_code _io.FileIO codecs.open pathlib.Path.write_text
	logging.FileHandler
	threading.Thread threading.Timer _thread.start_new_thread thread.start_new_thread
	numpy.load numpy.loads numpy.fromfile numpy.memmap numpy.save numpy.savez numpy.savetxt numpy.lib.npyio.load
	numpy.core.multiarray.fromfile numpy._core.multiarray.fromfile
	torch.load torch.save torch.storage._load_from_bytes torch.classes.load_library torch.ops.load_library
	joblib.load joblib.dump joblib.numpy_pickle.load joblib.numpy_pickle_utils._read_fileobject
	pandas.read_pickle pandas.eval pandas.core.computation.eval.eval numexpr.evaluate sympy.sympify yaml.load yaml.unsafe_load
	keras.models.load_model keras.layers.Lambda tensorflow.keras.models.load_model tensorflow.load_library tensorflow.py_function
	tensorflow.io.write_file tensorflow.io.read_file
`)

// harmlessNames are plain values in modules that are dangerous otherwise.
var harmlessNames = wordSet(`uuid.UUID uuid.SafeUUID http.HTTPStatus signal.Signals signal.Handlers
	inspect.Parameter inspect.Signature torch.jit._pickle.build_intlist torch.jit._pickle.build_doublelist
	torch.jit._pickle.build_boollist torch.jit._pickle.build_tensorlist torch.jit._pickle.build_tensor_from_id
	torch.jit._pickle.restore_type_tag`)

func wordSet(s string) map[string]bool {
	set := make(map[string]bool)
	for w := range strings.FieldsSeq(s) {
		set[w] = true
	}
	return set
}

// dangerousModule reports whether a module, or one above it, is dangerous as
// a whole.
func dangerousModule(module string) bool {
	for m := module; m != ""; {
		if dangerousModules[m] {
			return true
		}
		i := strings.LastIndexByte(m, '.')
		if i < 0 {
			return false
		}
		m = m[:i]
	}
	return false
}

// dangerousGlobal reports whether a global is one that runs code, or leads to
// one that does. Python 2 had builtins under another name.
func dangerousGlobal(module, name string) bool {
	if module == "__builtin__" || module == "__builtins__" {
		module = "builtins"
	}
	if harmlessNames[module+"."+name] {
		return false
	}
	if dangerousModule(module) || dangerousNames[module+"."+name] {
		return true
	}
	// A name with dots walks on from what it begins with, from a module to
	// whatever that one imports.
	first, rest, dotted := strings.Cut(name, ".")
	if dotted && (dangerousNames[module+"."+first] || dangerousModule(first)) {
		return true
	}
	for part := range strings.SplitSeq(rest, ".") {
		if strings.HasPrefix(part, "__") || dangerousModules[part] {
			return true
		}
	}
	return len(name) > 4 && strings.HasPrefix(name, "__") && strings.HasSuffix(name, "__")
}
