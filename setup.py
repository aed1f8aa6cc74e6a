"""Compiles the CPU kernels while the package is built. It never fails an install: without a compiler it says so in one
line, and the kernels are compiled at first use, or PyTorch renders in their place.
"""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

from setuptools import setup
from setuptools.command.build_py import build_py

try:
    from setuptools.command.bdist_wheel import bdist_wheel
except ImportError:  # setuptools < 70.1
    from wheel.bdist_wheel import bdist_wheel  # type: ignore[no-redef]

RENDERING = Path(__file__).resolve().parent / "closeup_ns" / "rendering"


def load_builder() -> ModuleType:
    """closeup_ns/rendering/build.py by path: the package itself needs torch, which an isolated build does not have."""
    spec = importlib.util.spec_from_file_location("closeup_kernel_build", RENDERING / "build.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def compile_kernels(folder: Path, for_this_cpu: bool) -> None:
    """Compile all instruction sets, or the best that this CPU runs, into ``folder``; remove what older sources left."""
    builder = load_builder()
    variants = builder.runnable_variants()[:1] if for_this_cpu else builder.buildable_variants()
    names = {builder.library_name(variant) for variant in builder.VARIANT_FLAGS}
    for old in folder.glob("closeup_*.so"):
        if old.name not in names:
            old.unlink()
    for variant in variants:
        if builder.is_whole(folder / builder.library_name(variant)):
            continue
        try:
            builder.compile_variant(variant, folder)
        except builder.BuildError as error:
            print(f"closeup-ns: {error}; that will be tried again at first use", file=sys.stderr)


class BuildWithKernels(build_py):
    """Puts the libraries where the package looks for them: in the tree for an editable install, else in the wheel."""

    def run(self) -> None:
        editable = getattr(self, "editable_mode", False)
        target = RENDERING if editable else Path(self.build_lib).resolve() / "closeup_ns" / "rendering"
        if not self.dry_run:
            compile_kernels(target / "_lib", for_this_cpu=editable)
        super().run()


class PlatformWheel(bdist_wheel):
    """A wheel for this kind of machine, but for any Python: the libraries know nothing of either torch or Python."""

    def finalize_options(self) -> None:
        super().finalize_options()
        self.root_is_pure = False

    def get_tag(self) -> tuple[str, str, str]:
        return ("py3", "none", super().get_tag()[2])


setup(cmdclass={"build_py": BuildWithKernels, "bdist_wheel": PlatformWheel})
