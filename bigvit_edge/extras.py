"""What pip brings only where it is asked to: which verb wants which extra, and what to say where it is missing."""

from importlib.util import find_spec

from bigvit_edge.errors import UserError, list_few

BASE = "export"  # which all others but LIGHT bring along
EXTRAS = {  # by name, the modules that it brings and we import; pyproject.toml has their packages
    BASE: ("torch", "networkx", "safetensors"),
    "executorch": ("executorch", "torchao"),
    "litert": ("litert_torch", "ai_edge_litert", "ai_edge_quantizer"),
    "coreml": ("coremltools",),
    "onnx": ("onnx", "onnxruntime", "onnxscript"),
    "demo": ("sklearn", "skimage"),
    "web": ("starlette", "uvicorn"),
    "ray": ("ray",),
}
LIGHT = ("web",)  # which go without BASE


def require(*names: str) -> None:
    """Check that the packages of these extras are installed.

    And those of BASE, unless all are of LIGHT. A name that is no extra, as of a format of our own, needs no more than
    that. UserError with the line that brings what is missing.
    """
    base = () if names and set(names) <= set(LIGHT) else (BASE,)
    wanted = {name: EXTRAS[name] for name in dict.fromkeys((*base, *names)) if name in EXTRAS}
    missing = {name: [module for module in modules if find_spec(module) is None] for name, modules in wanted.items()}
    lacking = [name for name, modules in missing.items() if modules]
    if not lacking:
        return
    modules = [module for each in missing.values() for module in each]
    met = f"{list_few(modules)} {'are' if len(modules) > 1 else 'is'} not installed"
    raise UserError(met, "what this needs besides the package alone", f"pip install 'bigvit-edge[{','.join(lacking)}]'")
